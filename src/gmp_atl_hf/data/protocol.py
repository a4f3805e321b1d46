"""Protocols: which speakers are in training, development and test of every fold."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from .development import development_speakers
from .fold import PARTS, Fold, refuse_shared_speakers, select
from .speakers import Speakers, natural_order

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["KINDS", "PARTS", "Fold", "Protocol", "select"]

KINDS = ("leave-one-speaker-out", "leave-one-session-out", "group-k-fold", "given")


@dataclass(frozen=True)
class Protocol:
    """How a corpus is cut into training, development and test.

    Args:
        kind: `leave-one-speaker-out`: every speaker is the test once. `leave-one-session-out`: every session is, with
            all its speakers. `group-k-fold`: the speakers are dealt into `num_folds` groups with like shares of
            emotions and genders. `given`: one fold, after the table's column `split`.
        num_folds: Number of folds of `group-k-fold` (5 by default); the other kinds have as many as the corpus gives.
            A recipe calls it `protocol.folds`.
        dev_speakers: Number of development speakers per fold; 0 for none. By default, and this is our choice, about
            20 % of the training speakers (at least one of each gender where there are two to spare, at most 20), but
            for `leave-one-session-out` the speakers of one whole other session: dialogue partners share room, day and
            topic, so a development speaker whose partner is trained on would look better than a test speaker does.
        seed: Another seed deals `group-k-fold` groups and development speakers differently.

    Raises:
        RequestError: When the kind is unknown, or a number makes no sense for it.

    Example:
        >>> folds = Protocol("leave-one-speaker-out").folds(table)
        >>> parts = select(table, folds[0])  # {"train": …, "dev": …, "test": …}
    """

    kind: str = "leave-one-speaker-out"
    num_folds: int | None = None
    dev_speakers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            near = difflib.get_close_matches(str(self.kind), KINDS, n=1, cutoff=0.4)
            raise RequestError(
                f"no protocol is called {self.kind!r}",
                f"one of {', '.join(KINDS)}",
                f"did you mean {near[0]!r}?" if near else "kind: leave-one-speaker-out",
            )
        if self.num_folds is not None and self.kind != "group-k-fold":
            raise RequestError(
                f"{self.num_folds} folds were asked for, but {self.kind} has as many folds as the corpus gives",
                "a number of folds with kind: group-k-fold only",
                "take out the number of folds, or use kind: group-k-fold",
            )
        if self.num_folds is not None and self.num_folds < 2:
            raise RequestError(f"the number of folds is {self.num_folds}", "at least 2", "ask for 5 folds")
        if self.dev_speakers is not None and self.dev_speakers < 0:
            raise RequestError(
                f"dev_speakers is {self.dev_speakers}", "0 (none) or more", "leave it out for about 20 %"
            )
        if self.seed < 0:
            raise RequestError(f"the protocol's seed is {self.seed}", "0 or more", "seed: 0")

    def folds(self, table: Dataset) -> list[Fold]:
        """Cut a table into folds; depends on who is in the table, never on the order of its rows.

        Args:
            table: The table; needs `speaker`, `emotion` and `gender`, and `session` or `split` if the kind asks for it.

        Returns:
            The folds in the protocol's order, numbered from 1.

        Raises:
            RequestError: When the table cannot be cut so: too few speakers, a speaker on both sides, a missing column,
                an emotion that a training part lacks.
        """
        speakers = Speakers.of(table)
        cut = {
            "leave-one-speaker-out": _leave_one_speaker_out,
            "leave-one-session-out": _leave_one_session_out,
            "group-k-fold": _group_k_fold,
            "given": _given,
        }[self.kind]
        place = {name: number for number, name in enumerate(speakers.names)}
        served = dict.fromkeys(speakers.names, 0)
        folds = []
        for number, sides in enumerate(cut(self, table, speakers), start=1):
            dev = sides.dev or development_speakers(
                speakers, sides.train, self.dev_speakers, sides.dev_groups, served, (self.seed, number)
            )
            for speaker in dev:
                served[speaker] += 1
            train = [speaker for speaker in sides.train if speaker not in dev]
            fold = Fold(number, *(tuple(sorted(part, key=place.__getitem__)) for part in (train, dev, sides.test)))
            _refuse_missing_emotions(speakers, fold)
            folds.append(fold)
        return folds

    def describe(self, table: Dataset) -> dict[str, Any]:
        """Say what the protocol makes of a table, for reports and cards.

        Args:
            table: The table.

        Returns:
            Plain numbers and strings: `kind`, `seed`, `num_folds`, `recordings`, `speakers` (`total`, `female`, `male`,
            `unknown`), for each part the smallest and largest number of `speakers` and `recordings` over the folds, and
            a `sentence`.

        Raises:
            RequestError: As `folds`.
        """
        speakers, folds = Speakers.of(table), self.folds(table)
        genders = {word: sum(g == word for g in speakers.genders.values()) for word in ("female", "male")}
        parts: dict[str, dict[str, list[int]]] = {}
        for part in PARTS:
            people = [len(getattr(fold, part)) for fold in folds]
            clips = [sum(speakers.recordings[s] for s in getattr(fold, part)) for fold in folds]
            parts[part] = {"speakers": [min(people), max(people)], "recordings": [min(clips), max(clips)]}
        total = len(speakers.names)
        unknown = total - sum(genders.values())
        who = ", ".join(f"{n} {word}" for word, n in [*genders.items(), ("of unknown gender", unknown)] if n)
        train, dev, test = (_range(parts[part]["speakers"]) for part in PARTS)
        choice = (
            f"{dev} of the training side for development" if parts["dev"]["speakers"][1] else "none for development"
        )
        sentence = (
            f"{self.kind}, {len(folds)} fold{'s' if len(folds) > 1 else ''}, {total} speakers ({who}); speakers per "
            f"fold: {train} for training, {choice}, {test} for the test; no speaker is in two parts."
        )
        return {
            "kind": self.kind,
            "seed": self.seed,
            "num_folds": len(folds),
            "recordings": sum(speakers.recordings.values()),
            "speakers": {"total": total, **genders, "unknown": unknown},
            **parts,
            "sentence": sentence,
        }


@dataclass(frozen=True)
class _Sides:
    """The two sides of a fold, before development speakers are taken from the training side.

    Args:
        train: The training side.
        test: The test side.
        dev: Development speakers where the corpus prescribes them; not in `train`.
        dev_groups: Groups of the training side that would make good development parts as a whole, the best first.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    dev: tuple[str, ...] = ()
    dev_groups: tuple[tuple[str, ...], ...] = ()


def _leave_one_speaker_out(protocol: Protocol, table: Dataset, speakers: Speakers) -> list[_Sides]:
    _refuse_few(len(speakers.names), 2, "speakers", protocol.kind)
    return [_Sides(tuple(s for s in speakers.names if s != test), (test,)) for test in speakers.names]


def _leave_one_session_out(protocol: Protocol, table: Dataset, speakers: Speakers) -> list[_Sides]:
    sessions = speakers.by_session(table)
    _refuse_few(len(sessions), 2, "sessions", protocol.kind)
    names = natural_order(sessions)
    sides = []
    for number, test in enumerate(names):
        # From the next session on round the circle, so that each is the development session of one fold.
        others = [sessions[name] for name in names[number + 1 :] + names[:number]]
        train = tuple(speaker for other in others for speaker in other)
        sides.append(_Sides(train, sessions[test], dev_groups=tuple(others) if len(others) > 1 else ()))
    return sides


def _group_k_fold(protocol: Protocol, table: Dataset, speakers: Speakers) -> list[_Sides]:
    count = protocol.num_folds or 5
    _refuse_few(len(speakers.names), count, "speakers", f"{protocol.kind} with {count} folds")
    groups = speakers.stratified_groups(count, protocol.seed)
    return [_Sides(tuple(s for s in speakers.names if s not in group), tuple(group)) for group in groups]


def _given(protocol: Protocol, table: Dataset, speakers: Speakers) -> list[_Sides]:
    parts = speakers.by_split(table)
    refuse_shared_speakers(parts, "the given split")
    for part in ("train", "test"):
        if not parts[part]:
            raise RequestError(
                f"the given split has no {part} recordings", "train and test", "correct the column split"
            )
    if parts["dev"] and protocol.dev_speakers is not None:
        raise RequestError(
            f"dev_speakers is {protocol.dev_speakers}, but the given split has development speakers of its own",
            "one of the two",
            "take out dev_speakers",
        )
    return [_Sides(parts["train"], parts["test"], parts["dev"])]


def _range(smallest_largest: list[int]) -> str:
    smallest, largest = smallest_largest
    return str(smallest) if smallest == largest else f"{smallest} to {largest}"


def _refuse_few(there: int, wanted: int, what: str, why: str) -> None:
    if there < wanted:
        raise RequestError(
            f"the table has {there} {what}, but {why} needs at least {wanted}",
            f"{wanted} {what} or more",
            f"ask for {there} folds or fewer"
            if why.endswith("folds") and there > 1
            else "use another protocol, or more recordings",
        )


def _refuse_missing_emotions(speakers: Speakers, fold: Fold) -> None:
    """A class without a single training recording cannot be learnt, and the fold's UAR would hide that."""
    there = speakers.emotions_of(fold.train)
    lacking = [label for label in speakers.labels if label not in there]
    if lacking:
        raise RequestError(
            f"the training part of fold {fold.number} has no recording of {', '.join(lacking)}",
            f"every emotion in every training part ({', '.join(speakers.labels)})",
            f"drop it (labels: {{{lacking[0]}: null}}), merge it into another, or use fewer folds or dev_speakers",
        )
