"""The settings of a protocol, as a recipe and `Protocol` take them; importing them loads no other library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..data.protocol_kinds import KINDS
from ..errors import RequestError, counted, did_you_mean

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
        self._refuse_other_types()
        if self.kind not in KINDS:
            raise RequestError(
                f"no protocol is called {self.kind!r}",
                f"one of {', '.join(KINDS)}",
                did_you_mean(self.kind, KINDS, "kind: leave-one-speaker-out"),
            )
        if self.num_folds is not None and self.kind != "group-k-fold":
            asked = counted(self.num_folds, "fold was", "folds were")
            raise RequestError(
                f"{asked} asked for, but {self.kind} has as many folds as the corpus gives",
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

    def _refuse_other_types(self) -> None:
        """Refuse what a recipe refuses while it is read, and make tuples of lists."""
        for name in ("num_folds", "dev_speakers", "seed"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise RequestError(f"the protocol's {name} is {value!r}", "a whole number", f"{name}=2")
        for name in ("train_corpora", "test_corpora"):
            if isinstance(names := getattr(self, name), str):
                raise RequestError(f"the protocol's {name} is {names!r}", "a list of corpora", f"{name}=[{names!r}]")
            if names is not None:
                object.__setattr__(self, name, tuple(names))


def under_either_name(given: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Join settings under their names in Python with further ones, which may have the names that recipes use.

    Args:
        given: A value for each field of `ProtocolSettings`; those left alone have its default.
        further: Values by the `key` of a field.

    Raises:
        RequestError: A further name is none of those, or the same setting was given under both of its names.
    """
    own = {each.name: each for each in fields(ProtocolSettings)}
    of_key = {each.metadata["key"]: each for each in own.values() if "key" in each.metadata}
    joined = dict(given)
    for name, value in further.items():
        if name not in of_key:
            as_in_recipes = ", ".join(f"{key} for {each.name}" for key, each in of_key.items())
            raise RequestError(
                f"Protocol has no setting {name!r}",
                f"one of {', '.join(own)} (or, as in recipes, {as_in_recipes})",
                did_you_mean(name, [*own, *of_key], f"take {name!r} out"),
            )
        field = of_key[name].name
        if given[field] != of_key[name].default:
            raise RequestError(
                f"Protocol was given {field} and {name}, which are one setting", "one of the two", f"take {name} out"
            )
        joined[field] = value
    return joined
