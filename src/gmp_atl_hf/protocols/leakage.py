"""Nobody who is tested touches anything before: the check made wherever rows or an artefact are about to be used."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data.spelling import spelling
from ..data.table_values import refuse_other_tables
from ..errors import RequestError, counted
from .speakers import is_unknown, natural_order, speakers_in

if TYPE_CHECKING:
    from datasets import Dataset

_FIX = "use what has seen no test speaker: make it again without them, or test on other speakers"


@dataclass(frozen=True)
class HeldOut:
    """What a fold is tested on, which nothing may have seen.

    Args:
        speakers: The test speakers; none where a fold shares speakers and says so.
        ids: The test recordings.
    """

    speakers: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()

    @classmethod
    def of(cls, table: Dataset | None) -> HeldOut:
        """What nothing may touch when these rows are the test: its recordings and its speakers, all of them.

        Rows that do not say who speaks are held to be of one more speaker, who is unknown.

        Raises:
            RequestError: It is no table, or has neither ids nor speakers.
        """
        if table is None:
            return NO_TEST_SET
        refuse_other_tables(table)
        if not {"speaker", "id"} & {*table.column_names}:
            raise RequestError(
                f"the test rows have the columns {', '.join(table.column_names)}, by which nobody knows them again",
                "who speaks (`speaker`) and the name of the recording (`id`), or one of them",
                "give the rows that load_corpus gives, or add the columns",
            )
        speakers = speakers_in([table]) if "speaker" in table.column_names else ()
        return cls(frozenset(speakers), frozenset(_ids(table)))

    def refuse_training(
        self, train: Dataset | None, dev: Iterable[Dataset], seen_speakers: Iterable[str] | None
    ) -> None:
        """Refuse to train, or to choose the epoch, on test rows, and to start from a model that knows a test speaker.

        Raises:
            RequestError: Names the first test speaker or recording among them.
        """
        self.refuse_rows(train, "training")
        for table in dev:
            self.refuse_rows(table, "choosing the epoch")
        self.refuse_speakers(seen_speakers or (), "the model has seen")

    def refuse_calibration(self, table: Dataset, train: Dataset | None) -> None:
        """Refuse rows to calibrate on that belong to the test or were trained on.

        Raises:
            RequestError: Names the first test speaker, test recording or training recording among them.
        """
        refuse_other_tables(table)
        self.refuse_rows(table, "calibration")
        learnt = sorted(_ids(table) & (set() if train is None else _ids(train)))
        if learnt:
            raise RequestError(
                f"calibration would use the training recording {learnt[0]}{_more(learnt, 'recording')}",
                "recordings that were not trained on: a model is surer of those that were",
                "calibrate on the development rows",
            )

    def refuse_rows(self, table: Dataset | None, use: str) -> None:
        """Refuse rows that belong to the test.

        Args:
            table: Rows that are about to be used, with `id` and, unless only frame labels are left, `speaker`.
            use: What for, as in "training".

        Raises:
            RequestError: Names the first test speaker or recording among them.
        """
        if table is None or not (self.speakers or self.ids):
            return
        if "speaker" in table.column_names:
            self.refuse_speakers(speakers_in([table]), f"{use} would use", " before being tested")
        elif self.speakers and not self.ids:
            raise RequestError(
                f"the rows for {use} have no column `speaker`, and the test rows no `id`: nothing can be compared",
                "who speaks (`speaker`), or the names of the recordings (`id`), on both sides",
                "give the rows that load_corpus gives, or add the columns",
            )
        self.refuse_recordings(_ids(table), use)

    def refuse_recordings(self, ids: Iterable[str], use: str) -> None:
        """Refuse recordings that belong to the test.

        Raises:
            RequestError: Names the first of them and the `use` they were meant for, as in "calibration".
        """
        leaked = sorted(self.ids.intersection(ids))
        if leaked:
            raise RequestError(
                f"{use} would use the test recording {leaked[0]}{_more(leaked, 'recording')}",
                "test recordings that nothing touches before the test",
                _FIX,
            )

    def refuse_speakers(self, speakers: Iterable[str], what: str, when: str = "") -> None:
        """Refuse a model or file made from a test speaker.

        Args:
            speakers: Whom it was made from.
            what: What it is, as in "the backbone models/x has seen".
            when: Ends the sentence.

        Raises:
            RequestError: Names the first test speaker among them.
        """
        tested = {spelling(name): name for name in self.speakers}
        leaked = natural_order({tested[key] for key in map(spelling, set(speakers)) if key in tested})
        if leaked:
            raise RequestError(
                f"{what} the test speaker {leaked[0]}{_more(leaked, 'speaker')}{when}",
                "test speakers that nothing has seen before the test",
                _FIX,
            )


NO_TEST_SET = HeldOut()
"""For models that have no test of their own."""

MAYBE_SEEN_STAMP = "Not everybody whom the model was trained on is known: test speakers may be among them."


def maybe_seen(seen: Iterable[str], tested: Iterable[str]) -> bool:
    """Whether one of the tested speakers may be among the unknown ones that a model has seen.

    Args:
        seen: Speakers that the model has seen; `<corpus>/unknown` stands for people of a corpus that nobody has named,
            and `unknown` alone for people of any corpus.
        tested: Test speakers.
    """
    unknown = {speaker.rpartition("/")[0] for speaker in seen if is_unknown(speaker)}
    return "" in unknown or any(speaker.rpartition("/")[0] in unknown for speaker in tested)


def _ids(table: Dataset) -> set[str]:
    """The names of a table's recordings, as far as it has names for them."""
    return {name for name in table["id"] if name} if "id" in table.column_names else set()


def warn_of_unguarded_speakers(held_out: Dataset | None, others: Iterable[Dataset | None]) -> None:
    """Say, to the caller of whoever asks, that a test speaker would not be noticed where rows do not say who speaks."""
    tables = {"the test rows": [held_out], "rows to train on or to choose the epoch by": [*others]}
    for which, given in tables.items():
        if held_out is not None and any(each is not None and not _says_who_speaks(each) for each in given):
            warnings.warn(
                f"{which} do not say who speaks: only recordings are compared with those of the test, so nothing keeps "
                "other recordings of a test speaker out. Fill the column `speaker`",
                stacklevel=3,
            )


def _says_who_speaks(table: Dataset) -> bool:
    return "speaker" in table.column_names and (len(table) == 0 or any(table["speaker"]))


def _more(names: list[str], what: str) -> str:
    return f" (and {counted(len(names) - 1, f'more {what}')})" if len(names) > 1 else ""
