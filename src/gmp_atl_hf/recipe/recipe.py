"""What a run is: one YAML file, checked as a whole, and the method of each of its variants.

*Stated* and *our choice* refer to arXiv 2405.02151. The module imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from ..errors import RequestError, did_you_mean, errors_of, known_names
from ..protocols.settings import ProtocolSettings
from .checks import check_corpora
from .convert import split_rest
from .file import RecipeFile
from .grid import check_search, dotted_paths
from .method import Method
from .sections import BACKBONE, CorpusSpec, DataSpec, PseudoLabelSpec, ReplaySpec, StagesSpec, VariantSpec
from .variants import variant_overrides


@dataclass(frozen=True)
class Recipe(RecipeFile):
    """A run: corpora, protocol, backbone, stages, seeds and variants.

    Everything is checked on construction, every variant included, so that a typo never costs a training.

    Args:
        name: Names the run's folder. No part of the method.
        corpus: The corpora to read; one is enough.
        labels: Emotion in the corpus → emotion to learn, or None to drop it; None keeps the corpus' labels as they
            are. Our choice; the paper does not say how it merges.
        data: How recordings are given to the training.
        protocol: Who is in train, development and test.
        backbone: Hub id or local folder of a HuBERT (stated; base size is our choice) or of an encoder of another
            family (our choice), or a mapping of `HubertConfig` fields to start from scratch. `${NAME}` is replaced by
            the environment variable.
        model: `GMPATLConfig` fields. Which of them are stated is in its documentation.
        pseudo_labels: Frame labels for the retraining.
        replay: Plain speech that the retraining hears as well. Our choice: none.
        stages: The three trainings.
        search: Dotted path under `stages.finetune` to the values to try. Every variant fine-tunes once with each
            combination in each fold, and the fold's development speakers choose. Our choice: nothing is searched.
        seeds: One complete run each. Our choice; the paper does not say.
        variants: What to compare; the first, with the first seed, becomes the final model. Our choice.
        final: Whether to make the final model. No part of the method.

    Raises:
        RequestError: A value of the wrong kind or out of range, an unknown name, or parts that contradict each other.

    Example:
        >>> recipe = Recipe.from_dict({"name": "mine", "corpus": {"name": "demo"}, "variants": ["gmp-atl", "direct"]})
        >>> recipe.method("direct").stages.performed
        ('finetune',)
    """

    name: str
    corpus: tuple[CorpusSpec, ...] = field(metadata={"non_empty": True, "unique": True})
    labels: Mapping[str, str | None] | None = field(default=None, metadata={"non_empty": True})
    data: DataSpec = field(default_factory=DataSpec)
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    backbone: str | Mapping[str, Any] = field(default="facebook/hubert-base-ls960", metadata=BACKBONE)
    model: Mapping[str, Any] = field(default_factory=dict)
    pseudo_labels: PseudoLabelSpec = field(default_factory=PseudoLabelSpec)
    replay: ReplaySpec | None = field(default=None, metadata={"quiet": True})
    stages: StagesSpec = field(default_factory=StagesSpec)
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, metadata={"quiet": True})
    seeds: tuple[int, ...] = field(default=(0,), metadata={"non_empty": True, "unique": True, "at_least": 0})
    variants: tuple[VariantSpec, ...] = (VariantSpec("gmp-atl"), VariantSpec("direct"))
    final: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_corpora(self.protocol, self.corpus, self.labels)
        if not self.variants:
            raise RequestError("`variants` is an empty list", "at least one entry", "variants: [gmp-atl]")
        for index, name in enumerate(self.variant_names):
            if name in self.variant_names[:index]:
                raise RequestError(f"`variants` has `{name}` twice", "each name once", "remove or rename one of them")
        check_search(self.search, self._overrides)
        for name, method in self._methods.items():
            with errors_of(f"variant {name}"):
                method.candidates()

    @classmethod
    def _written_out(cls, values: dict[str, Any]) -> dict[str, Any]:
        if isinstance(values.get("search"), Mapping):
            values["search"] = dotted_paths(values["search"])
        if isinstance(values.get("variants"), (list, tuple)):
            values["variants"] = [{"name": v} if isinstance(v, str) else v for v in values["variants"]]
        return values

    def to_dict(self) -> dict[str, Any]:
        """Give plain dicts and lists with every setting written out; `from_dict` makes the same recipe of them."""
        plain = super().to_dict()
        plain["variants"] = [v["name"] if list(v) == ["name"] else v for v in plain["variants"]]
        return plain

    @property
    def variant_names(self) -> tuple[str, ...]:
        """Names of the variants, in order."""
        return tuple(variant.name for variant in self.variants)

    def method(self, variant_name: str) -> Method:
        """Give the method of a variant: the recipe's own, with the variant's overrides.

        Args:
            variant_name: One of `variant_names`.

        Returns:
            `data`, `backbone`, `model`, `pseudo_labels`, `stages`, `search` and `replay`.

        Raises:
            RequestError: When there is no such variant.
        """
        if variant_name not in self._methods:
            raise RequestError(
                f"the recipe has no variant {variant_name!r}",
                known_names(self.variant_names),
                did_you_mean(variant_name, self.variant_names),
            )
        return self._methods[variant_name]

    def check_field_names(self) -> None:
        """Refuse unknown names in `backbone`, `model` and the stages' arguments; imports transformers."""
        self._common.check_field_names()
        for name, method in self._methods.items():
            with errors_of(f"variant {name}"):
                for candidate in method.candidates():
                    candidate.check_field_names()

    @property
    def _common(self) -> Method:
        """The method before any variant changes it."""
        return Method(**{item.name: getattr(self, item.name) for item in fields(Method)})

    @cached_property
    def _overrides(self) -> dict[str, dict[str, Any]]:
        return {
            variant.name: variant_overrides(variant, f"variants.{index}", NOT_PER_VARIANT)
            for index, variant in enumerate(self.variants)
        }

    @cached_property
    def _methods(self) -> dict[str, Method]:
        methods = {}
        for name, overrides in self._overrides.items():
            with errors_of(f"variant {name}"):
                split_rest(Recipe, {dotted.partition(".")[0]: None for dotted in overrides}, "")
                methods[name] = self._common.changed(overrides)
        return methods


NOT_PER_VARIANT = tuple(
    item.name for item in fields(Recipe) if item.name == "search" or item.name not in {f.name for f in fields(Method)}
)
"""What variants share, so that their numbers can be compared."""
