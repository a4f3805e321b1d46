"""What a recipe for a run and one for a pre-training have in common: how they are read, checked and written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Self, get_type_hints

from ..errors import RequestError
from .checks import check_name
from .convert import convert, split_rest, to_plain
from .overrides import with_overrides
from .packaged import find_recipe
from .sections import CorpusSpec
from .yaml12 import dump_yaml, load_yaml

_SIGNS: Mapping[str, tuple[str, ...]] = {
    "run": ("protocol", "pseudo_labels", "stages", "variants"),
    "pretrain": ("iterations", "sample_frames", "teacher_states"),
}
"""Verb that takes a recipe → keys by which its recipes are known."""


class RecipeFile:
    """Base of frozen dataclasses whose fields are the keys of a YAML file, `name` and `corpus` among them."""

    _required: ClassVar[tuple[str, ...]] = ("name", "corpus")
    _example: ClassVar[str] = "demo"
    _verb: ClassVar[str] = "run"

    name: str
    corpus: tuple[CorpusSpec, ...]

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):  # type: ignore[arg-type]
            value = convert(hints[item.name], getattr(self, item.name), item.name, item.metadata)
            object.__setattr__(self, item.name, value)
        check_name(self.name)

    @classmethod
    def from_dict(cls, recipe: Mapping[str, Any]) -> Self:
        """Read plain dicts and lists, as YAML gives them.

        Args:
            recipe: The keys of a recipe; one corpus may stand without a list, a built-in variant as its bare name.

        Returns:
            The checked recipe.

        Raises:
            RequestError: As for the class; also for unknown keys, with the nearest right one.
        """
        cls._refuse_other_kind(recipe, "the recipe")
        values = split_rest(cls, recipe, "")
        for required in cls._required:
            if values.get(required) is None:
                example = f"see the recipe `{cls._example}`"
                raise RequestError(f"the recipe has no `{required}`", f"`{required}: …`", example)
        if isinstance(values["corpus"], Mapping):
            # Converted here rather than wrapped in a list, so that messages say `corpus.root` as the file does.
            values["corpus"] = [convert(CorpusSpec, values["corpus"], "corpus", {})]
        return cls(**cls._written_out(values))

    @classmethod
    def _written_out(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The same values without the short forms that a file may use."""
        return values

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Self:
        """Read a recipe file.

        Args:
            path: The file, or the name of a packaged recipe such as `demo`.
            overrides: `key.path=value` texts, applied in order before anything is checked; values are YAML.

        Returns:
            The checked recipe.

        Raises:
            RequestError: As for `from_dict`; also for a file that is missing or no YAML.
        """
        file = find_recipe(path, pretraining=cls._verb == "pretrain")
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RequestError(f"{file} is not UTF-8 text", "a recipe in YAML") from error
        plain = load_yaml(text, str(file))
        if not isinstance(plain, dict):
            example = f"see the recipe `{cls._example}`"
            raise RequestError(f"{file} holds no `key: value` lines", "a recipe in YAML", example)
        cls._refuse_other_kind(plain, str(file))
        return cls.from_dict(with_overrides(plain, overrides))

    @classmethod
    def _refuse_other_kind(cls, recipe: Mapping[str, Any], what: str) -> None:
        """Refuse a recipe for the other verb as that, before its keys are called unknown one by one."""
        if not isinstance(recipe, Mapping) or any(key in recipe for key in _SIGNS[cls._verb]):
            return
        for verb, signs in _SIGNS.items():
            found = [f"`{key}`" for key in signs if key in recipe]
            if verb != cls._verb and found:
                raise RequestError(
                    f"{what} is for gmp-atl {verb}: it has {', '.join(found)}",
                    f"a recipe for gmp-atl {cls._verb}, such as `{cls._example}`",
                    f"gmp-atl {verb} with it",
                )

    def to_dict(self) -> dict[str, Any]:
        """Give plain dicts and lists with every setting written out; `from_dict` makes the same recipe of them."""
        plain: dict[str, Any] = to_plain(self)
        if len(plain["corpus"]) == 1:
            plain["corpus"] = plain["corpus"][0]
        return plain

    def to_yaml(self) -> str:
        """Write the recipe as YAML with every setting written out; reading it makes the same recipe."""
        return dump_yaml(self.to_dict())
