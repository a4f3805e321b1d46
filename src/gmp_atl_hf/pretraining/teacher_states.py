"""A teacher's hidden states of a table, computed once and kept on the disk: what a student is to predict."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm

from ..batching.conv_features import rounded
from ..batching.feature_cache import fail_together, rows_of_process
from ..batching.feature_store import FeatureStore, refuse_without_room
from ..data.audio import SAMPLING_RATE, read_clip
from ..data.fingerprints import recording_hashes
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..pseudo_labels.codebook import FeatureSource
from ..pseudo_labels.feature_stream import FeatureExtraction, Stream, frames_of
from ..threads import READERS, prefetch
from .teachers import Teacher

STATISTICS_FRAMES = 20_000
"""Frames that a target's mean and deviation are taken over: each is known to within 1 %."""

_SMALLEST_DEVIATION = 1e-3


def state_column(layer: int) -> str:
    """Name of the table's column with the paths of a layer's states."""
    return f"teacher_layer{layer}"


def add_paths(stores: Mapping[int, FeatureStore], table: datasets.Dataset) -> datasets.Dataset:
    """Add a column `teacher_layer{L}` of paths per layer to rows whose states have been computed."""
    names = recording_hashes(table)
    for layer, store in stores.items():
        table = table.add_column(state_column(layer), [str(store.path(name)) for name in names])
    return table


class TeacherStates:
    """States of some layers, one file of half precision per recording and layer.

    The key is content: what one run has computed another finds, and nothing outdated is ever read. Deleting the folder
    costs nothing but time.
    """

    def __init__(self, folder: Path, teacher: Teacher) -> None:
        self.teacher = teacher
        self.keys = {layer: teacher.key(layer) for layer in teacher.layers}
        self.stores = {layer: FeatureStore(folder / key[:16], teacher.facts.width) for layer, key in self.keys.items()}

    def fill(self, table: datasets.Dataset, description: str | None = None) -> None:
        """Compute what is missing of a table; called by all processes, each does its share.

        Args:
            table: The table, with `audio` and `num_samples`.
            description: Text of the progress bar; None for no bar.

        Raises:
            RequestError: The disk has not enough room.
            RuntimeError: Another process could not do its share.
        """
        state = PartialState()
        with fail_together("compute the teacher's states"):
            self._fill(table, rows_of_process(table, state), state, description)

    def _fill(self, table: datasets.Dataset, rows: Sequence[int], state: PartialState, description: str | None) -> None:
        names = recording_hashes(table)
        stored = {name: all(store.read(name) is not None for store in self.stores.values()) for name in set(names)}
        missing = list({names[row]: row for row in rows if not stored[names[row]]}.values())
        if not missing:
            return
        samples = table["num_samples"]
        frames = sum(self.teacher.facts.grid.count(samples[row]) for row in missing)
        for store in self.stores.values():
            refuse_without_room(store.folder, store.channels, frames * store.channels * 2 * state.num_processes)
        clips: Any = table.select_columns(["audio"])

        def work(row: int) -> int:
            waveform = read_clip(clips[row]["audio"])
            for layer, states in self.teacher.states(waveform).items():
                self.stores[layer].write(names[row], rounded(states.cpu().numpy()))
            return len(waveform)

        seconds = sum(samples[row] for row in missing) // SAMPLING_RATE
        shown = description is not None and state.is_main_process
        title = f"{description}: what the teacher says"
        with (
            tqdm(total=seconds, desc=title, unit=" s of audio", disable=not shown) as bar,
            closing(prefetch(work, missing, self._threads(), one_torch_thread=True)) as done,
        ):
            total = 0
            for length in done:
                total += length
                bar.update(total // SAMPLING_RATE - bar.n)

    def _threads(self) -> int:
        """Clips at once: beside a GPU every core decodes and takes spectra; on a CPU the layers need the cores."""
        return READERS if self.teacher.device.type == "cpu" else max(READERS, os.cpu_count() or 1)

    def statistics(self, table: datasets.Dataset, seed: int) -> dict[int, tuple[Tensor, Tensor]]:
        """Layer → (width,) float32 mean and deviation, none of them zero, over a sample of the table's frames."""
        counts = [self.teacher.facts.grid.count(samples) for samples in table["num_samples"]]
        ends = np.cumsum(counts)
        chosen = np.sort(np.random.default_rng(seed).permutation(int(ends[-1]))[:STATISTICS_FRAMES])
        rows = np.searchsorted(ends, chosen, side="right")
        names = recording_hashes(table)
        found = {}
        for layer in self.stores:
            parts = []
            for row in np.unique(rows).tolist():
                places = chosen[rows == row] - (ends[row] - counts[row])
                parts.append(self._frames(layer, names[row], places).double())
            sample = torch.cat(parts)
            deviation = sample.std(dim=0, correction=0).clamp(min=_SMALLEST_DEVIATION)
            found[layer] = sample.mean(dim=0).float(), deviation.float()
        return found

    def source(self) -> FeatureSource:
        """Describe the states, so that a codebook can refuse those of another teacher."""
        settings = {"sampling_rate": SAMPLING_RATE, "family": self.teacher.facts.config.model_type}
        return FeatureSource("teacher", self.keys, self.teacher.layers, settings)

    def extraction(self, student: GMPATLConfig) -> FeatureExtraction:
        """The states as sampling and labelling want them, as many frames of each row as the student makes of it."""

        def extract(table: datasets.Dataset, batches: Iterable[Sequence[int]]) -> Stream:
            names, counts = recording_hashes(table), frames_of(table, student)
            for row in chain.from_iterable(batches):
                # A frame that the teacher lacks repeats the one before.
                places = np.arange(counts[row])
                yield row, {layer: self._frames(layer, names[row], places) for layer in self.stores}

        return FeatureExtraction(extract, self.source(), self.teacher.facts.width, student)

    def _frames(self, layer: int, name: str, places: np.ndarray) -> Tensor:
        """(places, width) float32 of one recording."""
        states = self.stores[layer].read(name)
        if states is None:
            raise RuntimeError(f"{self.stores[layer].path(name)} was there a moment ago and is not any more")
        return torch.from_numpy(states[np.minimum(places, len(states) - 1)].astype(np.float32))
