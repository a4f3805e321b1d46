"""The frames that are clustered: how many of each clip, which, and who extracts them.

What is drawn depends on the seed and on the lengths of the clips alone. Batches are grouped into *runs*, the units that
processes share out; the runs are the same however many processes there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch import Tensor

from .averaging import FeatureKey
from .feature_stream import FeatureExtraction, frames_of
from .process_group import SINGLE_PROCESS, ProcessGroup

EXTRACTED_FRAMES = 8
"""Clips with at most this many times the frames wanted are extracted: of 10,000 hours, 22 hours for 500,000 frames.
Below that size every clip gives its share."""

RUN_FRAMES = 4096
"""Most drawn frames of a run that holds more than one batch."""

RUNS = 64
"""Runs that a small sample is still cut into, so that there is something to share out."""

SHORTEST_RUN = 256
"""Frames below which sharing is not worth the many small products."""


class FrameDraw:
    """Exactly so many frames of all clips, every frame as likely as every other; all of them where there are no more.

    Args:
        counts: Frames of each clip.
        sample_frames: How many to draw.
        seed: Seed of the draw. Which frames of a clip are drawn depends on it, the clip's row and how many they are.

    Attributes:
        rows: (extracted,) int64 rows of the clips that are extracted, ascending.
        kept: (clips,) int64 frames drawn of each clip.
    """

    def __init__(self, counts: Sequence[int], sample_frames: int, seed: int) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        self.seed = seed
        self.rows = self._draw_rows(EXTRACTED_FRAMES * sample_frames)
        frames = self.counts[self.rows]
        total = int(frames.sum())
        self.kept = np.zeros_like(self.counts)
        if total <= sample_frames:
            self.kept[self.rows] = frames
            return
        # Whole numbers: the frames up to the end of each clip, times the share, rounded by one draw for all clips.
        offset = int(np.random.default_rng(seed).integers(total))
        ends = (np.cumsum(frames) * sample_frames + offset) // total
        self.kept[self.rows] = np.diff(ends, prepend=0)

    def _draw_rows(self, most: int) -> np.ndarray:
        """All clips, or so many drawn at random that they hold this many frames."""
        if int(self.counts.sum()) <= most:
            return np.arange(len(self.counts))
        order = np.random.default_rng([self.seed, 1]).permutation(len(self.counts))
        enough = int(np.searchsorted(np.cumsum(self.counts[order]), most)) + 1
        return np.sort(order[:enough])

    def frames_of(self, row: int) -> np.ndarray:
        """(drawn,) int64 frames of a clip, ascending."""
        count, kept = int(self.counts[row]), int(self.kept[row])
        if kept == count:
            return np.arange(count)
        return np.sort(np.random.default_rng([self.seed, row]).choice(count, size=kept, replace=False))


@dataclass(frozen=True)
class Sample:
    """The drawn frames.

    Args:
        features: Layer (or other key) → (frames, channels) float32 on the CPU, run by run; no frames except in the main
            process.
        runs: Frames of every run.
        rows: (frames,) int64 row of the table that each frame is of.
    """

    features: Mapping[FeatureKey, Tensor]
    runs: Sequence[int]
    rows: np.ndarray


def take_sample(
    extraction: FeatureExtraction,
    table: datasets.Dataset,
    sample_frames: int,
    seed: int,
    description: str | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Sample:
    """Draws frames of the training rows, all of them or exactly so many, and gathers them in the main process.

    Memory does not depend on the number of clips: it is that of the frames drawn, for each layer and window.

    Args:
        extraction: Of the features.
        table: The training rows, and nothing else.
        sample_frames: Most frames to keep, in all processes.
        seed: Seed of the draw.
        description: What the progress bar says; None for no bar.
        group: The processes that share the extraction.
    """
    draw = FrameDraw(frames_of(table, extraction.config), sample_frames, seed)
    samples = np.asarray(table["num_samples"])[draw.rows]
    batches = [draw.rows[batch].tolist() for batch in extraction.batches(samples)]
    runs = _runs([int(draw.kept[batch].sum()) for batch in batches])
    lengths = [int(draw.kept[[row for number in run for row in batches[number]]].sum()) for run in runs]
    keys, frames_here = extraction.keys, sum(group.shard(lengths))
    features = {key: torch.empty(frames_here, extraction.channels) for key in keys}
    shard = [batches[number] for run in group.shard(runs) for number in run]
    end = 0
    with closing(extraction.stream(table, shard, sum(map(len, shard)), description)) as stream:
        for row, states in stream:
            frames = torch.from_numpy(draw.frames_of(row))
            start, end = end, end + len(frames)
            for key in keys:
                features[key][start:end] = states[key][frames.to(states[key].device)].cpu()
    if group.count > 1:
        for key in keys:
            features[key] = _gathered(features[key], lengths, group)
    order = np.array([row for run in runs for number in run for row in batches[number]], np.int64)
    return Sample(features, lengths, np.repeat(order, draw.kept[order]))


def _runs(drawn: Sequence[int]) -> list[list[int]]:
    """Groups batches, given by how many frames of each are drawn."""
    most = max(SHORTEST_RUN, min(RUN_FRAMES, sum(drawn) // RUNS))
    runs: list[list[int]] = []
    filled = most
    for number, frames in enumerate(drawn):
        if filled + frames > most:
            runs.append([])
            filled = 0
        runs[-1].append(number)
        filled += frames
    return runs


def _gathered(frames: Tensor, lengths: Sequence[int], group: ProcessGroup) -> Tensor:
    """The frames of all processes, run by run, in the main process; nothing in the others."""
    parts = iter(frames.split(list(group.shard(lengths))))
    gathered = frames.new_empty(sum(lengths) if group.is_main else 0, frames.shape[1])
    end = 0
    for number, length in enumerate(lengths):
        part = next(parts) if number % group.count == group.index else frames.new_zeros(length, frames.shape[1])
        part = group.sum(part)
        start, end = end, end + length
        if group.is_main:
            gathered[start:end] = part
    return gathered
