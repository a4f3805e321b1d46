"""Frames centred and scaled by the statistics of their own speaker or gender, which takes the voice out of clusters.

One rule for every row: a group that was clustered has the statistics of its training frames; one that was not, such as
a development speaker, has those of its own frames in the table that is labelled, which needs no emotion; and a row
whose speaker or gender is not known has those of all training frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from torch import Tensor

from ..data.columns import GENDERS
from ..data.table_values import refuse_missing_columns, refuse_other_text, refuse_unusable_genders
from ..protocols.speakers import is_unknown
from .choices import Normalize
from .exact_sums import STEPS_PER_UNIT, ExactSums
from .feature_stream import FeatureExtraction
from .process_group import SINGLE_PROCESS, ProcessGroup

LEAST_SHARE = 1e-6
"""A group whose variance in a channel is a smaller share of that of all frames has the deviation of all frames."""


_MEASURED = ("mean", "deviation")


def _name(layer: int, what: str) -> str:
    return f"normalization.layer{layer}.{what}"


@dataclass(frozen=True)
class GroupStatistics:
    """Mean and deviation of the frames of each group, and, in the last row, of all training frames.

    Args:
        by: `speaker` or `gender`.
        groups: Names of the groups.
        means: Layer → (groups + 1, channels) float32 on the CPU.
        deviations: The same; never zero.
    """

    by: Normalize
    groups: tuple[str, ...]
    means: Mapping[int, Tensor]
    deviations: Mapping[int, Tensor]

    @classmethod
    def of_tensors(
        cls, by: Normalize, groups: tuple[str, ...], layers: Sequence[int], tensors: Mapping[str, Tensor]
    ) -> GroupStatistics:
        """What `tensors` gave; a `KeyError` where something is missing."""
        means, deviations = ({layer: tensors[_name(layer, what)] for layer in layers} for what in _MEASURED)
        return cls(by, groups, means, deviations)

    def tensors(self) -> dict[str, Tensor]:
        """Name → tensor, to be kept beside the centres."""
        measured = dict(zip(_MEASURED, (self.means, self.deviations), strict=True))
        return {_name(layer, what): each[layer] for what, each in measured.items() for layer in each}

    def described(self) -> dict[str, Any]:
        """What a reader of `codebooks.json` should know; JSON types."""
        return {
            "by": self.by,
            "groups": list(self.groups),
            "statistics": "mean and deviation of each group's training frames; last row: of all training frames",
            "other_groups": "by their own frames in the table that is labelled",
            "group_not_known": "by all training frames",
        }

    def rows_of(self, table: datasets.Dataset) -> list[int]:
        """For each row of a table the row of the statistics."""
        return _rows_of(groups_of(table, self.by), self.groups)

    def normalized(self, states: Mapping[int, Tensor], row: int) -> dict[int, Tensor]:
        """Centre and scale the states of one clip.

        Args:
            states: Layer → (frames, channels) float32, any device.
            row: Of the statistics.
        """
        return {
            layer: (frames - self.means[layer][row].to(frames.device)) / self.deviations[layer][row].to(frames.device)
            for layer, frames in states.items()
        }

    def completed(
        self,
        extraction: FeatureExtraction,
        table: datasets.Dataset,
        description: str | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> GroupStatistics:
        """The same with the groups of a table that are not among them, by their own frames.

        Args:
            extraction: Of the states that were clustered.
            table: The rows to label.
            description: What the progress bar says; None for no bar.
            group: The processes that share the extraction.
        """
        names, known = groups_of(table, self.by), {None, *self.groups}
        further = [row for row, name in enumerate(names) if name not in known]
        if not further:
            return self
        own = _Moments.measure(extraction, table.select(further), self.by, description, group)
        means, deviations = own.statistics({layer: rows[-1].square() for layer, rows in self.deviations.items()})

        def joined(mine: Mapping[int, Tensor], theirs: Mapping[int, Tensor]) -> dict[int, Tensor]:
            return {layer: torch.cat([mine[layer][:-1], theirs[layer][:-1], mine[layer][-1:]]) for layer in mine}

        return GroupStatistics(
            self.by, (*self.groups, *own.groups), joined(self.means, means), joined(self.deviations, deviations)
        )


def measure_groups(
    extraction: FeatureExtraction,
    table: datasets.Dataset,
    by: Normalize,
    description: str | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> GroupStatistics | None:
    """Measure the groups of the training rows in one pass over all of their frames; None where nothing is normalised.

    Memory depends on the number of groups, and on nothing else.

    Args:
        extraction: Of the states.
        table: The training rows and nothing else, with `num_samples`, what the extraction needs, and the column.
        by: What makes the groups.
        description: What the progress bar says; None for no bar.
        group: The processes that share the extraction.

    Raises:
        RequestError: The table lacks the column, or frames have values that are not finite.
    """
    if by == "none":
        return None
    found = _Moments.measure(extraction, table, by, description, group)
    means, deviations = found.statistics(None)
    return GroupStatistics(by, found.groups, means, deviations)


def groups_of(table: datasets.Dataset, by: Normalize) -> list[str | None]:
    """The group of each row; None where it is not known.

    Raises:
        RequestError: The table lacks the column, or what it holds cannot be used.
    """
    refuse_without_groups(table, by)
    if by == "gender":
        refuse_unusable_genders(table, lenient=True, without="set it to None where it is not known")
        return [None if value is None or value < 0 else GENDERS[value] for value in table["gender"]]
    refuse_other_text(table, "speaker")
    return [None if not name or is_unknown(name) else name for name in table["speaker"]]


def _rows_of(names: Sequence[str | None], groups: Sequence[str]) -> list[int]:
    """The row of the statistics for each name; the last one where the group is not known or not among them."""
    rows = {name: row for row, name in enumerate(groups)}
    return [len(groups) if name is None else rows.get(name, len(groups)) for name in names]


def refuse_without_groups(table: datasets.Dataset, by: Normalize) -> None:
    """Refuse, by a `RequestError`, a table that does not say what its frames are to be normalised by."""
    needed: dict[str, str] = {by: f"the {by} of each recording, since frames are normalised by it"}
    refuse_missing_columns(table, needed, "load_corpus gives it; or normalize='none'")


@dataclass(frozen=True)
class _Moments:
    """Numbers, sums and sums of squares of the frames of each group, and in the last row of all frames.

    Args:
        groups: Names of the groups, sorted.
        frames: (groups + 1,) int64.
        sums: Layer → (groups + 1, 2, channels) int64, in steps of `STEPS_PER_UNIT`.
    """

    groups: tuple[str, ...]
    frames: Tensor
    sums: Mapping[int, Tensor]

    @classmethod
    def measure(
        cls,
        extraction: FeatureExtraction,
        table: datasets.Dataset,
        by: Normalize,
        description: str | None,
        group: ProcessGroup,
    ) -> _Moments:
        names = groups_of(table, by)
        groups = tuple(sorted({name for name in names if name is not None}))
        places = _rows_of(names, groups)
        layers = extraction.source.layers
        frames = torch.zeros(len(groups) + 1, dtype=torch.int64)
        exact = {layer: ExactSums(layer, len(groups) + 1, 2, extraction.channels) for layer in layers}
        with closing(extraction.share(table, description, group)) as stream:
            for row, states in stream:
                place = places[row]
                frames[place] += len(states[layers[0]])
                for layer in layers:
                    values = states[layer].cpu().double()
                    exact[layer].add(place, torch.stack([values.sum(0), values.square().sum(0)]), table, row)
        frames, sums = group.sum(frames), {layer: exact[layer].over(group) for layer in layers}
        frames[-1] = frames.sum()
        for layer in layers:
            sums[layer][-1] = sums[layer].sum(0)
        return cls(groups, frames, sums)

    def statistics(self, variance_of_all: Mapping[int, Tensor] | None) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Means and deviations by layer; channels that a group hardly moves in have the deviation of all frames.

        Args:
            variance_of_all: Layer → (channels,), of the training frames; None where these are the training frames.
        """
        means, deviations = {}, {}
        for layer, sums in self.sums.items():
            moments = sums.double() / STEPS_PER_UNIT / self.frames.clamp(min=1)[:, None, None]
            mean = moments[:, 0]
            variance = (moments[:, 1] - mean.square()).clamp(min=0)
            whole = variance[-1] if variance_of_all is None else variance_of_all[layer].double()
            # What a channel that never moves differs by is rounding.
            whole = torch.where(whole > 1e-12 * mean[-1].square(), whole, torch.ones_like(whole))
            variance = torch.where(variance > LEAST_SHARE * whole, variance, whole)
            means[layer], deviations[layer] = mean.float(), variance.sqrt().float()
        return means, deviations
