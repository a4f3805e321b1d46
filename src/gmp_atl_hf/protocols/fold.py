"""One fold: three lists of speakers, the proof that nobody is in two of them, and the rows that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ..data.table_values import refuse_missing_columns, refuse_other_tables
from ..errors import RequestError, counted
from .leakage import HeldOut
from .speakers import natural_order

if TYPE_CHECKING:
    from datasets import Dataset

PARTS = ("train", "dev", "test")


@dataclass(frozen=True)
class Fold:
    """The speakers of one fold.

    Args:
        number: Counts from 1 in the protocol's order.
        train: Speakers that are trained on.
        dev: Speakers that the best epoch is chosen on; taken from the training side.
        test: Speakers that nothing touches before the test.
        part_of: Recording id → its part, for a fold that shares speakers between its parts and is allowed to; the
            recordings then decide, not the speakers. None for every honest fold.

    Raises:
        RequestError: When a speaker is in two parts, unless `part_of` is given.
    """

    number: int
    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    part_of: Mapping[str, str] | None = field(default=None, hash=False, repr=False)

    def __post_init__(self) -> None:
        if self.part_of is None:
            refuse_shared_speakers({part: getattr(self, part) for part in PARTS}, f"fold {self.number}")

    @property
    def speaker_independent(self) -> bool:
        """Whether no speaker is in two parts."""
        return self.part_of is None

    def select(self, table: Dataset) -> dict[str, Dataset]:
        """Give the rows of each part.

        Args:
            table: The table the fold was made from, or one with more columns.

        Returns:
            `train`, `dev` and `test`, each with its rows in the table's order; `dev` has none where nobody develops.

        Raises:
            RequestError: When the table lacks the column, or has a speaker or recording that is in no part of the fold.

        Example:
            >>> parts = Protocol("leave-one-speaker-out").folds(table)[0].select(table)  # doctest: +SKIP
            >>> train, dev, test = parts["train"], parts["dev"], parts["test"]  # doctest: +SKIP
        """
        return select(table, self)

    def held_out(self, test: Dataset) -> HeldOut:
        """What nothing may touch before the test: its recordings and, where speakers are not shared, its speakers."""
        return HeldOut(frozenset(self.test if self.speaker_independent else ()), HeldOut.of(test).ids)

    def to_json(self) -> dict[str, Any]:
        """The content of `split.json`: `{fold, train, dev, test}`, plain numbers, lists and strings.

        Where speakers are shared also `speaker_independent: false` and `recordings` (part → ids).
        """
        content = {"fold": self.number, **{part: list(getattr(self, part)) for part in PARTS}}
        if self.part_of is not None:
            content["speaker_independent"] = False
            content["recordings"] = {part: [i for i, own in self.part_of.items() if own == part] for part in PARTS}
        return content


def select(table: Dataset, fold: Fold) -> dict[str, Dataset]:
    """The rows of each part of a fold; see `Fold.select`."""
    return {part: table.select(rows) for part, rows in rows_of_parts(table, fold).items()}


def rows_of_parts(table: Dataset, fold: Fold) -> dict[str, list[int]]:
    """The numbers of the rows of each part of a fold; raises as `Fold.select` does."""
    part_of = fold.part_of or {speaker: part for part in PARTS for speaker in getattr(fold, part)}
    column, what = ("speaker", "speaker") if fold.part_of is None else ("id", "recording")
    refuse_other_tables(table)
    refuse_missing_columns(table, {column: f"the {what}s that fold {fold.number} is made of"})
    rows: dict[str, list[int]] = {part: [] for part in PARTS}
    for row, name in enumerate(table[column]):
        if name not in part_of:
            raise RequestError(
                f"{what} {name} is in no part of fold {fold.number}",
                "the table that the fold was made from",
                "make the folds again from this table: protocol.folds(table)",
            )
        rows[part_of[name]].append(row)
    return rows


def refuse_shared_speakers(parts: Mapping[str, tuple[str, ...]], where: str) -> None:
    """Refuse parts that share a speaker.

    Raises:
        RequestError: Names a shared speaker, both parts, and `where`: what the parts belong to.
    """
    for one, other in combinations(PARTS, 2):
        shared = natural_order({*parts[one]} & {*parts[other]})
        if shared:
            more = f" (and {counted(len(shared) - 1, 'more speaker')})" if len(shared) > 1 else ""
            raise RequestError(
                f"speaker {shared[0]}{more} is in {one} and in {other} of {where}",
                "every speaker in one part only, so that the test is on voices never seen in training",
                "move the speaker's recordings to one part, or use a protocol that splits by speaker (group-k-fold); "
                "to follow published folds all the same, protocol.allow_shared_speakers: true stamps every number",
            )
