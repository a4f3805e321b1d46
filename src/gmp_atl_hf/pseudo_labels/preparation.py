"""What is clustered, made of a model's states: their places' means taken away, normalised by their group, averaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import datasets
from torch import Tensor

from ..data.scale_names import SINGLE_FRAME
from .averaging import averaged, averaging_radii, feature_keys
from .choices import Normalize, Positions
from .feature_stream import FeatureExtraction, Stream
from .normalization import GroupStatistics, measure_groups
from .positions import PositionMeans, measure_positions, without_positions
from .process_group import SINGLE_PROCESS, ProcessGroup

_REMOVED = "removed"


@dataclass(frozen=True)
class Preparation:
    """What was measured over the training frames, to prepare these and any others alike.

    Args:
        positions: The mean state of each place in a clip; None where it is not taken away.
        groups: The statistics of each speaker or gender; None where frames are not normalised.
    """

    positions: PositionMeans | None = None
    groups: GroupStatistics | None = None

    @classmethod
    def measure(
        cls,
        extraction: FeatureExtraction,
        table: datasets.Dataset,
        positions: Positions,
        normalize: Normalize,
        bar: Callable[[str], str | None],
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> Preparation:
        """Measure what the settings ask for, each in one pass over all frames.

        Args:
            extraction: Of the states of the layers.
            table: The training rows and nothing else, with `num_samples`, what the extraction needs, and the column of
                the groups.
            positions: Whether the mean state of each place is taken away.
            normalize: What makes the groups.
            bar: What a progress bar says, given what is measured; None for no bar.
            group: The processes that share the extraction.

        Raises:
            RequestError: The table lacks the column, or frames have values that are not finite.
        """
        places = measure_positions(extraction, table, positions, bar("mean state of each place"), group)
        rest = without_positions(extraction, places)
        return cls(places, measure_groups(rest, table, normalize, bar("frames to normalize by"), group))

    @property
    def normalize(self) -> Normalize:
        """What makes the groups."""
        return "none" if self.groups is None else self.groups.by

    def applied(self, extraction: FeatureExtraction, windows: Sequence[float]) -> FeatureExtraction:
        """The extraction with what is clustered in place of the layers' own states, clip by clip.

        A group's statistics are those of its single frames at every window: averaging normalised frames and normalising
        averaged ones is the same, and channels that move slowly keep their weight in long windows.

        Args:
            extraction: Of the states of the layers.
            windows: Seconds to average over. The tables to extract need the column of the groups, if there are any.

        Raises:
            RequestError: Two windows hold as many frames of this model.
        """
        extraction, groups = without_positions(extraction, self.positions), self.groups
        if tuple(windows) == (SINGLE_FRAME,) and groups is None:
            return extraction
        radii = averaging_radii(windows, extraction.config)

        def extract(table: datasets.Dataset, batches: Iterable[Sequence[int]]) -> Stream:
            places = None if groups is None else groups.rows_of(table)
            with closing(extraction.extract(table, batches)) as stream:
                for row, states in stream:
                    own = states if groups is None or places is None else groups.normalized(states, places[row])
                    yield row, averaged(own, radii)

        return replace(extraction, extract=extract, keys=tuple(feature_keys(extraction.source.layers, windows)))

    def completed(
        self,
        extraction: FeatureExtraction,
        table: datasets.Dataset,
        description: str | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> Preparation:
        """The same with the groups of a table that were not clustered, as `GroupStatistics.completed` has them."""
        if self.groups is None:
            return self
        rest = without_positions(extraction, self.positions)
        return replace(self, groups=self.groups.completed(rest, table, description, group))

    def tensors(self) -> dict[str, Tensor]:
        """Name → tensor, to be kept beside the centres."""
        return {name: tensor for part in self._parts for name, tensor in part.tensors().items()}

    def described(self) -> dict[str, Any]:
        """What `codebooks.json` says of it, JSON types; nothing where nothing is done."""
        found: dict[str, Any] = {} if self.positions is None else {"positions": _REMOVED}
        return found if self.groups is None else {**found, "normalized_by": self.groups.described()}

    def settings(self) -> dict[str, str]:
        """What every scale says of it, `none` where nothing is done."""
        return {"positions": "none" if self.positions is None else _REMOVED, "normalize": self.normalize}

    def add_to(self, digest: hashlib._Hash) -> None:
        """Add all that was measured to a hash."""
        if self.groups is not None:
            digest.update("\n".join(self.groups.groups).encode())
        parts: list[Mapping[int, Tensor]] = [] if self.groups is None else [self.groups.means, self.groups.deviations]
        for part in parts if self.positions is None else [*parts, self.positions.means]:
            for tensor in part.values():
                digest.update(tensor.contiguous().numpy().tobytes())

    @classmethod
    def of_content(
        cls, content: Mapping[str, Any], normalize: Normalize, layers: Sequence[int], tensors: Mapping[str, Tensor]
    ) -> Preparation:
        """What `described` and `tensors` gave; a `KeyError` where something is missing."""
        positions = PositionMeans.of_tensors(layers, tensors) if content.get("positions") == _REMOVED else None
        if normalize == "none":
            return cls(positions)
        names = tuple(content["normalized_by"]["groups"])
        return cls(positions, GroupStatistics.of_tensors(normalize, names, layers, tensors))

    @property
    def _parts(self) -> list[PositionMeans | GroupStatistics]:
        return [part for part in (self.positions, self.groups) if part is not None]


UNPREPARED = Preparation()
"""States as the model makes them."""
