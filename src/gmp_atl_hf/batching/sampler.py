"""Which clips make up an optimiser step, and how they are dealt to processes and accumulation steps.

The order of decisions is what keeps a step the same however it is computed: first the clips of each *optimiser step*
are chosen, from seed and epoch alone; only then are they dealt out to any number of processes and batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class ClipKey(NamedTuple):
    """What the sampler requests from the dataset.

    Attributes:
        row: Row of the table.
        epoch: Epoch, from which the clip's masks and crop are drawn.
        filler: True for a clip that only fills an otherwise empty batch: it is computed and counts for nothing. Every
            process must run every batch, but no clip may count twice to even them out.
    """

    row: int
    epoch: int = 0
    filler: bool = False


class StepBatchSampler(Sampler[list[ClipKey]]):
    """Batches of one process, `accumulation` of them to each optimiser step.

    With `batch_size`, a step is `batch_size · accumulation · processes` shuffled clips, sorted by length before they
    are dealt out so that a batch holds clips of similar length. With `batch_seconds`, a batch is a run of neighbours in
    length holding about that many seconds, and a step is `accumulation · processes` random batches.

    Args:
        samples: Length of each row in samples.
        batch_size: Clips per batch; ignored with `batch_seconds`.
        accumulation: Batches per process and optimiser step.
        processes: Number of processes.
        process_index: This process, from 0.
        seed: Seed of the shuffling.
        batch_seconds: Seconds of audio per batch, or None.
        max_samples: Samples that a longer clip is cropped to after the front end, or None.
        sampling_rate: Samples per second.

    Raises:
        ValueError: There is no clip.
    """

    # Lengths are jittered by up to this share before sorting, so that a clip does not meet the same neighbours in
    # every epoch. Our choice: it costs about one point of padding.
    LENGTH_JITTER = 0.03

    def __init__(
        self,
        samples: Sequence[int],
        batch_size: int,
        accumulation: int = 1,
        processes: int = 1,
        process_index: int = 0,
        seed: int = 0,
        batch_seconds: float | None = None,
        max_samples: int | None = None,
        sampling_rate: int = 16_000,
    ) -> None:
        # The front end sees the whole clip, so neighbours have similar whole lengths; the encoder sees the crop.
        self.whole = np.asarray(samples, dtype=np.int64)
        if len(self.whole) == 0:
            raise ValueError("there is no clip to sample; expected a table with at least one row")
        self.samples = self.whole if max_samples is None else np.minimum(self.whole, max_samples)
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.processes = processes
        self.process_index = process_index
        self.seed = seed
        self.batch_samples = None if batch_seconds is None else batch_seconds * sampling_rate
        self.epoch = 0
        per_step = accumulation * processes
        if self.batch_samples is None:
            self.steps = -(-len(self.samples) // (batch_size * per_step))
        else:
            self.steps = max(1, round(float(self.samples.sum()) / (self.batch_samples * per_step)))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose shuffling the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def __iter__(self) -> Iterator[list[ClipKey]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        batches = self._by_count(rng) if self.batch_samples is None else self._by_seconds(rng)
        per_step = self.accumulation * self.processes
        for step in range(self.steps):
            dealt = batches[step * per_step : (step + 1) * per_step]
            # Neighbours in length go to different processes, so that no process waits for the longest batch of all.
            for batch in dealt[self.process_index :: self.processes]:
                yield self._keys(batch)

    def _keys(self, rows: np.ndarray) -> list[ClipKey]:
        if len(rows) == 0:
            return [ClipKey(int(self.whole.argmin()), self.epoch, filler=True)]
        return [ClipKey(int(row), self.epoch) for row in rows]

    def _by_count(self, rng: np.random.Generator) -> list[np.ndarray]:
        order = rng.permutation(len(self.samples))
        per_step = self.accumulation * self.processes
        batches: list[np.ndarray] = []
        for start in range(0, len(order), self.batch_size * per_step):
            clips = order[start : start + self.batch_size * per_step]
            clips = clips[np.argsort(self.whole[clips], kind="stable")]
            batches += np.array_split(clips, per_step)
        return batches

    def _by_seconds(self, rng: np.random.Generator) -> list[np.ndarray]:
        jitter = 1 + self.LENGTH_JITTER * rng.uniform(-1, 1, len(self.whole))
        order = np.argsort(self.whole * jitter, kind="stable")
        ends = np.cumsum(self.samples[order])
        total = self.steps * self.accumulation * self.processes
        # A clip belongs to the batch in which its middle falls: equal seconds for every batch, no clip twice.
        middles = ends - self.samples[order] / 2
        batch_of = np.minimum((middles * total / ends[-1]).astype(np.int64), total - 1)
        batches = np.split(order, np.searchsorted(batch_of, np.arange(1, total)))
        return [batches[index] for index in rng.permutation(total)]
