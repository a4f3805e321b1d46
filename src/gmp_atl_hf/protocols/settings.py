"""The settings of a protocol, as a recipe and `Protocol` take them; importing them loads no other library."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data.protocol_kinds import KINDS
from ..errors import RequestError, did_you_mean

_CORPORA = {"quiet": True, "non_empty": True, "unique": True}


@dataclass(frozen=True)
class ProtocolSettings:
    """Who is in train, development and test; `Protocol` says what each setting means.

    That test speakers are unseen is stated in the paper, all the rest is our choice. The metadata are those of
    `recipe.convert`: `key` is the name in a recipe.

    Raises:
        RequestError: When the kind is unknown, or a number makes no sense for it.
    """

    kind: str = field(default="leave-one-speaker-out", metadata={"choices": KINDS})
    num_folds: int | None = field(default=None, metadata={"key": "folds", "at_least": 2})
    dev_speakers: int | None = field(default=None, metadata={"at_least": 0})
    seed: int = field(default=0, metadata={"at_least": 0})
    train_corpora: tuple[str, ...] | None = field(default=None, metadata={"key": "train", **_CORPORA})
    test_corpora: tuple[str, ...] | None = field(default=None, metadata={"key": "test", **_CORPORA})
    allow_shared_speakers: bool = field(default=False, metadata={"quiet": True})

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RequestError(
                f"no protocol is called {self.kind!r}",
                f"one of {', '.join(KINDS)}",
                did_you_mean(self.kind, KINDS, "kind: leave-one-speaker-out"),
            )
        if self.num_folds is not None and self.kind != "group-k-fold":
            raise RequestError(
                f"{self.num_folds} folds were asked for, but {self.kind} has as many folds as the corpus gives",
                "a number of folds with kind: group-k-fold only",
                "take out the number of folds (in a recipe protocol.folds), or use kind: group-k-fold",
            )
        if self.num_folds is not None and self.num_folds < 2:
            raise RequestError(f"the number of folds is {self.num_folds}", "at least 2", "ask for 5 folds")
        if self.dev_speakers is not None and self.dev_speakers < 0:
            raise RequestError(
                f"dev_speakers is {self.dev_speakers}", "0 (none) or more", "leave it out for about 20 %"
            )
        if (self.train_corpora or self.test_corpora) and self.kind != "cross-corpus":
            raise RequestError(
                f"corpora to train or test on, with kind {self.kind}",
                "them with cross-corpus only",
                "protocol: {kind: cross-corpus, test: [name]}",
            )
        if self.allow_shared_speakers and self.kind != "given":
            raise RequestError(
                f"allow_shared_speakers with kind {self.kind}, which never shares speakers",
                "it with kind: given only",
                "take out allow_shared_speakers",
            )
        if self.seed < 0:
            raise RequestError(f"the protocol's seed is {self.seed}", "0 or more", "seed: 0")
