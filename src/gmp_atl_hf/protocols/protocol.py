"""Protocols: which speakers are in training, development and test of every fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, counted
from .development import development_speakers
from .fold import PARTS, Fold, select
from .settings import ProtocolSettings, under_either_name
from .speakers import Speakers, is_unknown, natural_order, people
from .splitters import SPLITTERS, TrainTestSplit, refuse_unknown_speakers

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["PARTS", "Fold", "Protocol", "select"]

FEWEST = 3
"""Fewer speakers than this leave nobody for development: the number of epochs is fixed and nothing is calibrated."""


class Protocol(ProtocolSettings):
    """How a corpus is cut into training, development and test.

    Args:
        kind: `leave-one-speaker-out`: every speaker is the test once. `leave-one-session-out`: every session is, with
            all its speakers. `group-k-fold`: the speakers are dealt into `num_folds` groups with like shares of
            emotions and genders. `given`: one fold, after the table's column `split`. `cross-corpus`: one fold, trained
            on some corpora of the table and tested on others.
        num_folds: Number of folds of `group-k-fold` (5 by default); the other kinds have as many as the corpus gives.
            Recipes call it `folds`, which is taken as well.
        dev_speakers: Number of development speakers per fold; 0 for none. By default, and this is our choice, about
            20 % of the training speakers (at least one of each gender where there are two to spare, at most 20), but
            for `leave-one-session-out` the speakers of one whole other session: dialogue partners share room, day and
            topic, so a development speaker whose partner is trained on would look better than a test speaker does. A
            table with fewer than three speakers has none. Recordings of unknown speakers stay in training.
        seed: Another seed deals `group-k-fold` groups and development speakers differently.
        train_corpora: Corpora to train on, for `cross-corpus`; by default all that are not tested on. Recipes call
            it `train`, which is taken as well.
        test_corpora: Corpora to test on, for `cross-corpus`. Recipes call it `test`, which is taken as well.
        allow_shared_speakers: Follow a `given` split although speakers are on both sides of it or not known. Every
            number is then stamped "not speaker-independent" and has no interval.
        **names_of_recipes: `folds`, `train` and `test`, in place of the names above.

    Raises:
        RequestError: When the kind or a setting is unknown, a setting is given under both of its names, or a number
            makes no sense for the kind.

    Example:
        >>> fold = Protocol("leave-one-speaker-out").folds(table)[0]  # doctest: +SKIP
        >>> parts = fold.select(table)  # {"train": …, "dev": …, "test": …}  # doctest: +SKIP
    """

    def __init__(
        self,
        kind: str = ProtocolSettings.kind,
        num_folds: int | None = ProtocolSettings.num_folds,
        dev_speakers: int | None = ProtocolSettings.dev_speakers,
        seed: int = ProtocolSettings.seed,
        train_corpora: tuple[str, ...] | None = ProtocolSettings.train_corpora,
        test_corpora: tuple[str, ...] | None = ProtocolSettings.test_corpora,
        allow_shared_speakers: bool = ProtocolSettings.allow_shared_speakers,
        **names_of_recipes: Any,
    ) -> None:
        given = {
            "kind": kind,
            "num_folds": num_folds,
            "dev_speakers": dev_speakers,
            "seed": seed,
            "train_corpora": train_corpora,
            "test_corpora": test_corpora,
            "allow_shared_speakers": allow_shared_speakers,
        }
        super().__init__(**under_either_name(given, names_of_recipes))

    def folds(self, table: Dataset) -> list[Fold]:
        """Cut a table into folds; depends on who is in the table, never on the order of its rows.

        Args:
            table: The table; needs `speaker`, `emotion` and `gender`, and `session` or `split` if the kind asks for it.

        Returns:
            The folds in the protocol's order, numbered from 1.

        Raises:
            RequestError: When the table cannot be cut so: too few speakers, a speaker in training and test, a missing
                column, a row without speaker or emotion, an emotion that a training part lacks.
        """
        speakers = Speakers.of(table)
        refuse_unknown_speakers(self.kind, table, speakers)
        place = {name: number for number, name in enumerate(speakers.names)}
        served = dict.fromkeys(speakers.names, 0)
        folds = []
        for number, split in enumerate(SPLITTERS[self.kind](self, table, speakers), start=1):
            trained = _training_side(table, speakers, split)
            dev = split.dev or self._development(trained, split, served, number)
            for speaker in dev:
                served[speaker] += 1
            train, part_of = [speaker for speaker in split.train if speaker not in dev], None
            if split.part_of is not None:
                # Of a development speaker who is tested as well, only the recordings of the training side develop.
                part_of = _with_development(table, split, dev)
                train = _of_part(table, part_of, "train")
            parts = (tuple(sorted(part, key=place.__getitem__)) for part in (train, dev, split.test))
            fold = Fold(number, next(parts), next(parts), next(parts), part_of)
            _refuse_missing_emotions(trained, fold)
            folds.append(fold)
        if len(emotions := sorted(speakers.emotions_of(speakers.names))) < 2:
            raise RequestError(
                f"every recording of the table is {emotions[0]}, so any model would be right about all of them",
                "two emotions or more",
                "check the labels; a model is tested on such a corpus with gmp-atl evaluate",
            )
        return folds

    def _development(self, speakers: Speakers, split: TrainTestSplit, served: dict[str, int], number: int) -> list[str]:
        """Take development speakers from the training side, unless there are too few people for it."""
        few = len(served) < FEWEST or (split.part_of is not None and len(split.train) < 2)
        if few and self.dev_speakers is None:
            return []
        return development_speakers(
            speakers, split.train, self.dev_speakers, split.dev_groups, served, (self.seed, number)
        )

    def describe(self, table: Dataset, epochs: bool = True) -> dict[str, Any]:
        """Say what the protocol makes of a table, for reports and cards.

        Args:
            table: The table.
            epochs: Whether what is trained has epochs to choose among, about which the sentence then says a word.

        Returns:
            Plain numbers and strings: `kind`, `seed`, `num_folds`, `recordings`, `speakers` (`total`, `female`, `male`,
            `unknown`), for each part the smallest and largest number of `speakers` and `recordings` over the folds,
            whether all of it is `speaker_independent`, the speakers in two parts (`shared_speakers`, what stands for
            unknown ones among them), the number of recordings of `unknown_speakers`, and a `sentence`. Unknown speakers
            are in no other number.

        Raises:
            RequestError: As `folds`.
        """
        speakers, folds = Speakers.of(table), self.folds(table)
        chosen = [select(table, fold) for fold in folds]
        uniform = [fold.number for fold, one in zip(folds, chosen, strict=True) if len(set(one["test"]["emotion"])) < 2]
        parts = {
            part: {
                "speakers": _extremes([len(people(getattr(fold, part))) for fold in folds]),
                "recordings": _extremes([len(one[part]) for one in chosen]),
            }
            for part in PARTS
        }
        known = people(speakers.names)
        genders = Counter(speakers.genders[name] for name in known)
        named = {"female": genders["female"], "male": genders["male"], "of unknown gender": genders[None]}
        genders_of_all = ", ".join(f"{count} {gender}" for gender, count in named.items() if count)
        total = len(known)
        who = counted(total, "speaker") + (f" ({genders_of_all})" if known else "")
        train, dev, test = (_who(parts[part]) for part in PARTS)
        choice = (
            f"{dev} of the training side for development"
            if parts["dev"]["recordings"][1]
            else "none for development" + (" (fixed number of epochs, no calibration)" if epochs else "")
        )
        shared = natural_order({s for fold in folds for s in {*fold.train, *fold.dev} & {*fold.test}})
        unnamed = sum(count for name, count in speakers.recordings.items() if is_unknown(name))
        independent = all(fold.speaker_independent for fold in folds)
        how = self.kind
        if self.kind == "cross-corpus":
            tested = set(self.test_corpora or ())
            sides = [" and ".join(sorted(side)) for side in ({*table["corpus"]} - tested, tested)]
            how += f" (trained on {sides[0]}, tested on {sides[1]})"
        return {
            "kind": self.kind,
            "seed": self.seed,
            "num_folds": len(folds),
            "recordings": sum(speakers.recordings.values()),
            "speakers": {"total": total, **dict(zip(("female", "male", "unknown"), named.values(), strict=True))},
            **parts,
            "speaker_independent": independent,
            "shared_speakers": shared,
            "unknown_speakers": unnamed,
            "sentence": (
                f"{how}, {counted(len(folds), 'fold')}, {who}; speakers per fold: "
                f"{train} for training, {choice}, {test} for the test; {_independence(independent, shared, unnamed)}"
                f"{_one_emotion(uniform)}."
            ),
        }


def _training_side(table: Dataset, speakers: Speakers, split: TrainTestSplit) -> Speakers:
    """What is known of the training side: where speakers are shared, their test recordings do not belong to it."""
    if split.part_of is None:
        return speakers
    rows = [row for row, name in enumerate(table["id"]) if split.part_of[name] == "train"]
    return Speakers.of(table.select(rows))


def _with_development(table: Dataset, split: TrainTestSplit, dev: Sequence[str]) -> dict[str, str]:
    """Recording → part once development speakers have been taken from the training side."""
    part_of = dict(split.part_of or {})
    for name, speaker in zip(table["id"], table["speaker"], strict=True):
        if part_of[name] == "train" and speaker in dev and not split.dev:
            part_of[name] = "dev"
    return part_of


def _of_part(table: Dataset, part_of: Mapping[str, str], part: str) -> list[str]:
    """Speakers with a recording in a part."""
    return list(dict.fromkeys(s for i, s in zip(table["id"], table["speaker"], strict=True) if part_of[i] == part))


def _independence(independent: bool, shared: Sequence[str], unnamed: int) -> str:
    if independent and unnamed:
        return f"no known speaker is in two parts, and nobody knows who speaks {counted(unnamed, 'recording')}"
    if independent:
        return "no speaker is in two parts"
    known = people(shared)
    facts = [f"{counted(len(known), 'speaker')} of the test also trained on"] if known else []
    facts += [f"nobody knows who speaks {counted(unnamed, 'recording')}"] if unnamed else []
    return f"not speaker-independent: {', '.join(facts)}"


def _one_emotion(folds: Sequence[int]) -> str:
    """Say which tests have one emotion only: there UAR is the recall of that emotion, and guessing it gives 100 %."""
    numbers = ", ".join(map(str, folds))
    return f"; the test of fold {numbers} has recordings of one emotion only, so UAR says little there" if folds else ""


def _extremes(counts: Sequence[int]) -> list[int]:
    return [min(counts), max(counts)]


def _who(part: dict[str, list[int]]) -> str:
    """How many speakers a part has in each fold; those without a name cannot be counted."""
    return "unknown ones" if part["recordings"][1] and not part["speakers"][1] else _range(part["speakers"])


def _range(smallest_largest: list[int]) -> str:
    smallest, largest = smallest_largest
    return str(smallest) if smallest == largest else f"{smallest} to {largest}"


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
