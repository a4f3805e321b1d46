"""What the protocols need to know about the speakers of a table."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data.columns import COLUMNS, GENDERS, split_word
from ..data.spelling import spelling
from ..data.table_values import (
    emotions_of_table,
    refuse_empty_text,
    refuse_missing_columns,
    refuse_other_tables,
    refuse_other_text,
    refuse_unusable_emotions,
    refuse_unusable_genders,
)
from ..errors import RequestError, counted
from ..evaluation.genders import genders_of_speakers
from ..evaluation.unknown import UNKNOWN as UNKNOWN
from ..evaluation.unknown import is_unknown as is_unknown
from ..evaluation.unknown import people as people

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Speakers:
    """The speakers of a table.

    Args:
        labels: All emotions of the table's label set.
        names: Speakers in natural order (2 before 10).
        genders: Speaker to `female`, `male` or None.
        emotions: Speaker to the emotions with the number of the speaker's recordings of each.
        recordings: Speaker to the number of recordings.
    """

    labels: list[str]
    names: list[str]
    genders: dict[str, str | None]
    emotions: dict[str, Counter[str]]
    recordings: dict[str, int]

    @classmethod
    def of(cls, table: Dataset) -> Speakers:
        """Collect the speakers of a table.

        Raises:
            RequestError: When the table has no rows, lacks a column, has values that cannot be used, or one person may
                be two.
        """
        labels = _usable_emotions(table)
        emotions: dict[str, Counter[str]] = defaultdict(Counter)
        for speaker, emotion in zip(table["speaker"], table["emotion"], strict=True):
            emotions[speaker][labels[emotion]] += 1
        if not emotions:
            raise RequestError(
                "the table has no rows", "recordings to make folds of", "check the corpus and the label map"
            )
        names = natural_order(emotions)
        _refuse_two_spellings(names)
        words = (None if gender is None or gender < 0 else GENDERS[gender] for gender in table["gender"])
        genders = genders_of_speakers(zip(table["speaker"], words, strict=True))
        return cls(
            labels,
            names,
            {name: genders[name] for name in names},
            dict(emotions),
            {name: emotions[name].total() for name in names},
        )

    def emotions_of(self, names: Iterable[str]) -> set[str]:
        """The emotions that these speakers have recordings of."""
        return {emotion for name in names for emotion in self.emotions[name]}

    def by_session(self, table: Dataset) -> dict[str, tuple[str, ...]]:
        """The speakers of each session, in natural order; a session's name begins with the corpus of its people.

        Raises:
            RequestError: When a recording has no session, or a speaker is in two.
        """
        values = _filled(table, "session", "leave-one-session-out", "use kind: leave-one-speaker-out or group-k-fold")
        sessions: dict[str, set[str]] = defaultdict(set)
        home: dict[str, str] = {}
        for speaker, value in zip(table["speaker"], values, strict=True):
            session = f"{speaker.partition('/')[0]}/{value}"
            if home.setdefault(speaker, session) != session:
                raise RequestError(
                    f"speaker {speaker} is in the sessions {home[speaker]} and {session}",
                    "every speaker in one session only, so that leaving a session out leaves its speakers out",
                    "use kind: leave-one-speaker-out or group-k-fold",
                )
            sessions[session].add(speaker)
        return {session: tuple(natural_order(members)) for session, members in sessions.items()}

    def by_split(self, table: Dataset) -> dict[str, tuple[str, ...]]:
        """`train`, `dev` and `test` of the column `split` to their speakers, who may be in several.

        Raises:
            RequestError: When a recording has no split.
        """
        parts: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set()}
        values = _filled(table, "split", "given", "use kind: group-k-fold, or fill the column split")
        for speaker, value in zip(table["speaker"], values, strict=True):
            parts[split_word(value) or ""].add(speaker)
        return {part: tuple(natural_order(members)) for part, members in parts.items()}

    def stratified_groups(self, count: int, seed: int) -> list[list[str]]:
        """Deal the speakers into groups with like shares of emotions and genders; another seed deals differently.

        Raises:
            RequestError: When a group would be empty.
        """
        from sklearn.model_selection import StratifiedGroupKFold

        # Rows in the order of the speakers' names: the table's own order must not matter.
        rows = [
            (name, emotion)
            for name in self.names
            for emotion in sorted(self.emotions[name])
            for _ in range(self.emotions[name][emotion])
        ]
        kinds = [f"{emotion} {self.genders[name]}" for name, emotion in rows]
        if max(Counter(kinds).values()) < count:
            # A table this small has no class that could be in every fold, so there is nothing to balance but numbers.
            kinds = ["any"] * len(rows)
        splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # It warns where a class has fewer recordings than there are folds; the caller checks for missing emotions.
            warnings.simplefilter("ignore", UserWarning)
            parts = list(splitter.split(np.zeros(len(rows)), kinds, [name for name, _ in rows]))
        groups = [natural_order({rows[row][0] for row in test}) for _, test in parts]
        empty = [number for number, group in enumerate(groups, start=1) if not group]
        if empty:
            raise RequestError(
                f"fold {empty[0]} of {count} would have no speaker to test on",
                "at least one speaker per fold",
                f"ask for {count - len(empty)} folds, or use another seed",
            )
        return groups


def _usable_emotions(table: Dataset) -> list[str]:
    """The emotions of a table that folds can be made of: people bring tables of their own.

    Raises:
        RequestError: Names what is missing, or the first rows that cannot be used.
    """
    refuse_other_tables(table)
    refuse_missing_columns(table, {name: COLUMNS[name] for name in ("speaker", "emotion", "gender")})
    refuse_empty_text(table, "speaker", "who speaks, in each row", "where nobody knows, write <corpus>/unknown")
    labels = emotions_of_table(table)
    refuse_unusable_emotions(table, labels)
    refuse_unusable_genders(table, lenient=True, without="set it to None where it is not known")
    return labels


def speakers_in(tables: Iterable[Dataset | None]) -> set[str]:
    """Everybody who speaks in some tables; `UNKNOWN` among them where a table or a row does not say who speaks.

    Raises:
        RequestError: A table has something else than text for its speakers.
    """
    given = [table for table in tables if table is not None]
    for table in given:
        if "speaker" in table.column_names:
            refuse_other_text(table, "speaker")
    columns = [table["speaker"] if "speaker" in table.column_names else [None] for table in given]
    return {speaker or UNKNOWN for column in columns for speaker in column}


def _refuse_two_spellings(names: Iterable[str]) -> None:
    """Refuse a table in which one person may be two; `load_corpus` gives everybody one name within a corpus."""
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(spelling(name), name)) != name:
            raise RequestError(
                f"speakers {ascii(other)} and {ascii(name)} differ in case, blanks or the form of their letters only",
                "one name for every speaker, so that nobody is both trained and tested on",
                "give all recordings of a person the same speaker",
            )


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names as people do: `s2` before `s10`."""

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = []
        for digits, text in re.findall(r"([0-9]+)|([^0-9]+)", name):
            # Of numbers without zeros in front the longer one is the larger, and equally long ones are sorted as text.
            number = digits.lstrip("0")
            parts.append((0, len(number), number) if digits else (1, 0, text))
        # The name itself decides between "3" and "03".
        return parts, name

    return sorted(names, key=key)


def _filled(table: Dataset, column: str, kind: str, fix: str) -> list[str]:
    """Give a column that has to have a value in every row."""
    values = list(table[column]) if column in table.column_names else [None] * len(table)
    empty = [number for number, value in enumerate(values) if value in (None, "")]
    if empty:
        share = f"{len(empty)} of {counted(len(values), 'recording')}"
        some = f"{share} {'has' if len(empty) == 1 else 'have'} no {column}, the first is {_row_name(table, empty[0])}"
        none = f"the table has no {column}s"
        raise RequestError(
            none if len(empty) == len(values) else some,
            f"a {column} for every recording, as protocol {kind} needs",
            fix,
        )
    return [str(value) for value in values]


def _row_name(table: Dataset, row: int) -> str:
    """The recording's id, where the table has ids, else the number of the row."""
    return str(table["id"][row] if "id" in table.column_names else f"row {row}")
