"""K-means on each emotion's or gender's frames by themselves, the centres of all joined into one codebook.

The K clusters are shared out evenly; where K does not divide, the first classes, in the order of the labels, have one
more. A frame of a clustered clip gets the nearest centre of its clip's own class; any other frame, such as that of a
development clip, whose labels are logged and never learnt, the nearest of all centres.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch import Tensor

from ..data.columns import GENDERS
from ..data.table_values import emotions_of_table, refuse_missing_columns, refuse_unnamed_emotions
from ..errors import RequestError, errors_of
from ..evaluation.unknown import UNKNOWN
from .choices import Per
from .frame_sample import FrameDraw, Sample
from .lloyd import Codebook
from .normalization import groups_of


@dataclass(frozen=True)
class Classes:
    """Classes whose frames are clustered by themselves.

    Args:
        by: `emotion` or `gender`.
        names: In the order in which their centres stand in a codebook.
    """

    by: Per
    names: tuple[str, ...]

    @classmethod
    def of(cls, table: datasets.Dataset, by: Per) -> Classes:
        """Those that the training rows have, in the order of the labels.

        Raises:
            RequestError: The table lacks the column, or no row has a known class.
        """
        found = set(class_of_rows(table, by))
        names = tuple(name for name in _known_names(table, by) if name in found)
        if not names:
            raise RequestError(
                f"frames are to be clustered per {by}, and no recording has a known {by}",
                f"training recordings with a known {by}",
                "pseudo_labels: {per: none}",
            )
        return cls(by, names)

    def shares(self, clusters: int) -> list[int]:
        """How many of so many clusters each class has.

        Raises:
            RequestError: There are fewer clusters than classes.

        Example:
            >>> Classes("emotion", ("anger", "neutral", "sadness")).shares(100)
            [34, 33, 33]
        """
        each, more = divmod(clusters, len(self.names))
        if each == 0:
            raise RequestError(
                f"{clusters} clusters per {self.by}, of which there are {len(self.names)}: {', '.join(self.names)}",
                "at least as many clusters as classes",
                "larger numbers in pseudo_labels.clusters, or pseudo_labels: {per: none}",
            )
        return [each + (place < more) for place in range(len(self.names))]

    def centres(self, name: str | None, clusters: int) -> slice:
        """Which of so many centres are those of a class; all of them without a class, or for one that has none."""
        if name not in self.names:
            return slice(0, clusters)
        ends = np.cumsum([0, *self.shares(clusters)]).tolist()
        place = self.names.index(name)
        return slice(ends[place], ends[place + 1])


@dataclass(frozen=True)
class FrameClasses:
    """The class of each frame to cluster.

    Args:
        classes: All of them.
        places: (frames,) int64 places among them; -1 where the class is not known: such a frame is not clustered.
    """

    classes: Classes
    places: Tensor

    @classmethod
    def of(cls, sample: Sample, table: datasets.Dataset, by: Per) -> FrameClasses | None:
        """Those of a sample of the training rows; None where frames are clustered all together."""
        if by == "none":
            return None
        classes = Classes.of(table, by)
        places = {name: place for place, name in enumerate(classes.names)}
        rows = np.array([-1 if name is None else places[name] for name in class_of_rows(table, by)], np.int64)
        return cls(classes, torch.from_numpy(rows[np.asarray(sample.rows, np.int64)]))

    def fit_each(
        self,
        fit: Callable[[Tensor, Sequence[int] | None, Sequence[int]], dict[int, Codebook]],
        frames: Tensor,
        runs: Sequence[int] | None,
        clusters: Sequence[int],
    ) -> dict[int, Codebook]:
        """Fit the frames of each class by themselves, and join what was fitted.

        Args:
            fit: Gives a codebook for each number of clusters, of some frames and the lengths of their runs.
            frames: (frames, channels) of all classes.
            runs: Lengths of the runs of frames, or None for a single one.
            clusters: How many centres the joined codebooks are to have.

        Raises:
            RequestError: A class cannot be fitted; it is named.
        """
        shares = {count: self.classes.shares(count) for count in clusters}
        lengths = [len(frames)] if runs is None else runs
        run_of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        fitted = []
        for place, name in enumerate(self.classes.names):
            chosen = self.places == place
            own_runs = [length for length in torch.bincount(run_of[chosen]).tolist() if length]
            with errors_of(f"{self.classes.by} {name}"):
                wanted = sorted({share[place] for share in shares.values()})
                fitted.append(fit(frames[chosen.to(frames.device)], own_runs, wanted))
        return {
            count: _joined([fitted[place][share] for place, share in enumerate(shares[count])]) for count in clusters
        }


def _joined(parts: Sequence[Codebook]) -> Codebook:
    return Codebook(
        torch.cat([part.centres for part in parts]),
        sum(part.inertia for part in parts),
        sum(part.frames for part in parts),
        max(part.iterations for part in parts),
        sum(part.unused for part in parts),
    )


def class_of_rows(table: datasets.Dataset, by: Per) -> list[str | None]:
    """The emotion or gender of each row; None where it is not known.

    Raises:
        RequestError: The table lacks the column, or what it holds cannot be used.
    """
    needed: dict[str, str] = {by: f"the {by} of each recording, since frames are clustered per {by}"}
    refuse_missing_columns(table, needed, "load_corpus gives it; or per='none'")
    if by == "gender":
        return groups_of(table, by)
    names = _known_names(table, by)
    refuse_unnamed_emotions(table, names)
    return [None if value is None or value < 0 else names[value] for value in table[by]]


def _known_names(table: datasets.Dataset, by: Per) -> Sequence[str]:
    return GENDERS if by == "gender" else emotions_of_table(table)


def classes_to_label_by(table: datasets.Dataset, by: Per, clustered: Sequence[str]) -> list[str | None]:
    """The class by whose centres each row of a table is labelled: its own for speakers who were clustered, else None.

    Speakers tell, not rows: of a table whose speakers were clustered with other recordings, pass no classes.

    Raises:
        RequestError: The table lacks a column.
    """
    needed = {"speaker": f"who speaks: only those who were clustered are labelled per {by}"}
    refuse_missing_columns(table, needed, "load_corpus gives it; add it to a table of your own")
    known = set(clustered)
    names = class_of_rows(table, by)
    # Where a row does not say who speaks, the codebooks say `unknown`, too.
    speakers = (speaker or UNKNOWN for speaker in table["speaker"])
    return [name if speaker in known else None for name, speaker in zip(names, speakers, strict=True)]


def refuse_too_few_frames(
    table: datasets.Dataset, frames: Sequence[int], by: Per, clusters: Sequence[int], sample_frames: int, seed: int
) -> None:
    """Refuse, before anything is trained or extracted, classes with fewer drawn frames than clusters.

    Args:
        table: The training rows.
        frames: Frames of each row.
        by: What makes the classes.
        clusters: Numbers of clusters of the joined codebooks.
        sample_frames: Most frames that are clustered, of all classes together.
        seed: That of k-means. Which frames are drawn follows from it and from the lengths of the clips alone.

    Raises:
        RequestError: Names the class.
    """
    classes = Classes.of(table, by)
    of_rows = class_of_rows(table, by)
    there = _count(of_rows, frames)
    drawn = _count(of_rows, FrameDraw(frames, sample_frames, seed).kept.tolist())
    for number in clusters:
        for name, share in zip(classes.names, classes.shares(number), strict=True):
            if drawn[name] >= share:
                continue
            sampled = f" (sample_frames {sample_frames} draws them of {there[name]})"
            more = "a larger pseudo_labels.sample_frames" if there[name] >= share else f"more recordings of {name}"
            raise RequestError(
                f"{drawn[name]} frames of {by} {name} for {share} of {number} clusters"
                + (sampled if drawn[name] < there[name] else ""),
                "at least as many frames as clusters",
                f"{more}, smaller pseudo_labels.clusters, or pseudo_labels: {{per: none}}",
            )


def _count(of_rows: Sequence[str | None], frames: Sequence[int]) -> Counter[str | None]:
    """Frames of each class."""
    counts: Counter[str | None] = Counter()
    for name, count in zip(of_rows, frames, strict=True):
        counts[name] += count
    return counts
