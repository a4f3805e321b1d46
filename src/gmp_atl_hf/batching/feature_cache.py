"""Where the features of a table's recordings come from: the store, or the front end and then the store."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.audio import read_clip
from ..data.fingerprints import file_state, recording_hashes
from ..modeling.frames_gmp_atl import frame_count
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .conv_features import ConvFeatures, FrontEnd
from .feature_store import FeatureStore, refuse_without_room

_own_order: random.Random | None = None


def fill_in_own_order(number: int) -> None:
    """Let this process, one of several with a number each, fill caches in an order of its own from now on.

    Those that fill the same one then hardly ever work on the same recording at the same time, and do not wait for each
    other.
    """
    global _own_order
    _own_order = random.Random(number)


class FrontEndCache:
    """Features of a frozen front end: computed once, rounded to half precision, read by every training after that.

    In place of the front end it may be what goes on to the `LowestLayers`.

    What is read is always rounded, also at first use, so that it makes no difference when the cache was filled. The
    key is content: another fold, seed or variant finds the same files, another checkpoint never does. Each front end
    has its own folder below `folder`; deleting it costs nothing but time.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: GMPATLPreTrainedModel,
        feature_extractor: Any,
        front_end: FrontEnd | None = None,
    ) -> None:
        self.front_end = FrontEnd(model, feature_extractor) if front_end is None else front_end
        self.device = model.device
        self._kernels, self._strides = model.config.conv_kernel, model.config.conv_stride
        self.store = FeatureStore(Path(folder) / self.front_end.key[:16], self.front_end.channels)

    def names(self, table: datasets.Dataset) -> list[str]:
        """What each row's recording is called in the store: a hash of its content."""
        return recording_hashes(table)

    def read(self, name: str, waveform: Callable[[], npt.NDArray[np.float32]]) -> ConvFeatures:
        """Read-only (frames, channels) of the recording `name`, in float16, or in float32 beyond its range.

        One that `fill` has not seen is computed here, on the CPU, from the (samples,) float32 that `waveform` gives.
        """
        features = self.store.read(name)
        if features is None:
            features = self.front_end.encode(waveform())
            self.store.write(name, features)
        return features

    def fill(self, table: datasets.Dataset, description: str | None = None, workers: int = 0) -> None:
        """Compute what is missing of a table; called by all processes, each does its share.

        Args:
            table: The table, with `audio` and `num_samples`.
            description: What the progress bar says before the name of the front end; None for no bar.
            workers: Processes that decode, as `dataloader_num_workers` of a training.

        Raises:
            RequestError: The disk has not enough room.
            RuntimeError: Another process could not do its share.
        """
        state = PartialState()
        with fail_together("fill the front-end cache"):
            self._fill(table, rows_of_process(table, state), state, description, workers)

    def _fill(
        self,
        table: datasets.Dataset,
        rows: Sequence[int],
        state: PartialState,
        description: str | None,
        workers: int,
    ) -> None:
        names = self.names(table)
        missing = list({names[row]: row for row in rows if self.store.read(names[row]) is None}.values())
        if not missing:
            return
        # The other processes need about as much at the same time.
        self._refuse_full_disk(table.select(missing)["num_samples"], state.num_processes)
        if _own_order is not None:
            _own_order.shuffle(missing)
        layers = self.front_end.layers_on(self.device)
        title = f"{description}: {self.front_end.name}"
        shown = description is not None and state.is_main_process
        with tqdm(total=len(missing), desc=title, unit="clip", disable=not shown) as bar:
            for row, waveform in self._waveforms(table, missing, names, workers):
                if waveform is not None:
                    self.store.write(names[row], self.front_end.encode(waveform, layers))
                bar.update()

    def _waveforms(
        self, table: datasets.Dataset, rows: Sequence[int], names: Sequence[str], workers: int
    ) -> Iterator[tuple[int, npt.NDArray[np.float32] | None]]:
        clips = _Waveforms(table.select_columns(["audio"]), rows, [self.store.path(names[row]) for row in rows])
        # With a generator of its own, which a loader draws from: from the global one, a cache that has to be filled
        # would shift the dropout of the training that follows.
        yield from DataLoader(
            clips, batch_size=None, num_workers=workers, collate_fn=_as_is, generator=torch.Generator()
        )

    def _refuse_full_disk(self, samples: Sequence[int], processes: int) -> None:
        frames = sum(frame_count(int(n), self._kernels, self._strides) for n in samples)
        needed = frames * self.front_end.channels * 2 * processes
        refuse_without_room(self.store.folder, self.store.channels, needed)


def rows_of_process(table: datasets.Dataset, state: PartialState) -> list[int]:
    """Rows that this process computes features of, the longest first.

    They are dealt out by length, whatever is there already: processes look at different times, and must not disagree.
    """
    rows: list[int] = np.argsort(np.asarray(table["num_samples"]), kind="stable")[::-1].tolist()
    return rows[state.process_index :: state.num_processes]


@contextmanager
def fail_together(task: str) -> Iterator[None]:
    """Let an exception of one process end the block in all of them: the others would wait for it for ever."""
    trouble: Exception | None = None
    try:
        yield
    except Exception as error:
        trouble = error
    others: list[bool] = gather_object([trouble is not None])
    if trouble is not None:
        raise trouble
    if any(others):
        raise RuntimeError(f"another process could not {task}; its own message says why")


class _Waveforms(Dataset[tuple[int, npt.NDArray[np.float32] | None]]):
    """Decoded rows of a table, for loader workers; None for one whose file another process has written since."""

    def __init__(self, table: datasets.Dataset, rows: Sequence[int], files: Sequence[Path]) -> None:
        self.table, self.rows, self.files = table, rows, files
        self.before = [file_state(file) for file in files]  # a damaged one is there, and is written anew

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, npt.NDArray[np.float32] | None]:
        row = self.rows[index]
        written = file_state(self.files[index]) != self.before[index]
        return row, None if written else read_clip(self.table[row]["audio"])


def _as_is(item: Any) -> Any:
    return item
