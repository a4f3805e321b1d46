"""Frames without what they say of nothing but their place in the clip.

An encoder with absolute positions, such as Whisper's, carries them through all of its layers: its clusters of single
frames are clusters of time, which a masked frame's neighbours tell with certainty, and retraining on them teaches the
encoder to count. So the mean state of each place, over the training clips, is taken away before frames are clustered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import datasets
import numpy as np
import torch
from torch import Tensor

from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.families_gmp_atl import family_of
from .choices import Positions
from .exact_sums import STEPS_PER_UNIT, ExactSums
from .feature_stream import FeatureExtraction, Stream, frames_of
from .process_group import SINGLE_PROCESS, ProcessGroup

PRIOR_CLIPS = 3
"""The mean of a place counts as that of all frames would, seen in so many clips: late places are reached by few clips,
whose own states must not be taken away. Our choice."""


def removes_positions(positions: Positions, config: GMPATLConfig) -> bool:
    """Whether the mean state of each place is taken away from the states of such an encoder."""
    return family_of(config.encoder_type).absolute_positions if positions == "auto" else positions == "remove"


@dataclass(frozen=True)
class PositionMeans:
    """The mean state of each place in a clip.

    Args:
        means: Layer → (places + 1, channels) float32 on the CPU; the last one, of all frames, is for places that no
            training clip reaches.
    """

    means: Mapping[int, Tensor]

    @classmethod
    def of_tensors(cls, layers: Sequence[int], tensors: Mapping[str, Tensor]) -> PositionMeans:
        """What `tensors` gave; a `KeyError` where something is missing."""
        return cls({layer: tensors[_name(layer)] for layer in layers})

    def tensors(self) -> dict[str, Tensor]:
        """Name → tensor, to be kept beside the centres."""
        return {_name(layer): mean for layer, mean in self.means.items()}

    def removed(self, states: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The states of one clip, layer → (frames, channels) float32 on any device, without their places' means."""
        return {layer: frames - self._of(layer, len(frames)).to(frames.device) for layer, frames in states.items()}

    def _of(self, layer: int, frames: int) -> Tensor:
        mean = self.means[layer]
        return mean[torch.arange(frames).clamp(max=len(mean) - 1)]


def measure_positions(
    extraction: FeatureExtraction,
    table: datasets.Dataset,
    positions: Positions,
    description: str | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> PositionMeans | None:
    """Measure the mean state of each place in one pass over all frames; None where it is not taken away.

    Memory depends on the length of the longest clip, and on nothing else.

    Args:
        extraction: Of the states.
        table: The training rows and nothing else, with `num_samples` and what the extraction needs.
        positions: Whether they are taken away.
        description: What the progress bar says; None for no bar.
        group: The processes that share the extraction.

    Raises:
        RequestError: Frames have values that are not finite.
    """
    if not removes_positions(positions, extraction.config):
        return None
    counts = np.asarray(frames_of(table, extraction.config))
    layers, places = extraction.source.layers, int(counts.max(initial=0))
    exact = {layer: ExactSums(layer, places, extraction.channels) for layer in layers}
    with closing(extraction.share(table, description, group)) as stream:
        for row, states in stream:
            for layer in layers:
                exact[layer].add(slice(0, counts[row]), states[layer].cpu().double(), table, row)
    reached = torch.from_numpy((counts[:, None] > np.arange(places)).sum(0)).double()
    means = {}
    for layer in layers:
        sums = exact[layer].over(group).double() / STEPS_PER_UNIT
        whole = sums.sum(0) / reached.sum()
        of_places = (sums + PRIOR_CLIPS * whole) / (reached[:, None] + PRIOR_CLIPS)
        means[layer] = torch.cat([of_places, whole[None]]).float()
    return PositionMeans(means)


def without_positions(extraction: FeatureExtraction, means: PositionMeans | None) -> FeatureExtraction:
    """The extraction with the means of the places taken away from its states; as it is, given None."""
    if means is None:
        return extraction

    def extract(table: datasets.Dataset, batches: Iterable[Sequence[int]]) -> Stream:
        with closing(extraction.extract(table, batches)) as stream:
            for row, states in stream:
                yield row, means.removed(states)

    return replace(extraction, extract=extract)


def _name(layer: int) -> str:
    return f"positions.layer{layer}"
