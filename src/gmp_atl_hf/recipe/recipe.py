"""What a run is: dataclasses that a person can read in a minute, as Python or as YAML.

*Stated* and *our choice* refer to arXiv 2405.02151. The module imports neither torch nor transformers.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from ..errors import RequestError, did_you_mean, known_names
from ..protocols.settings import ProtocolSettings
from ..ranges import MOST_SECONDS
from .checks import (
    check_coherence,
    check_field_names,
    check_name,
    check_protocol,
    convert,
    dump_yaml,
    load_yaml,
    split_rest,
    to_plain,
)
from .grid import check_search, dotted_paths
from .variants import apply_override, variant_overrides, with_overrides

StageName = Literal["multitask", "retrain", "finetune"]
Start = Literal["auto", "backbone", "multitask", "retrain"]
Source = Literal["multitask", "backbone"]

STAGE_NAMES: tuple[StageName, ...] = ("multitask", "retrain", "finetune")


@dataclass(frozen=True)
class CorpusSpec:
    """Which recordings to read.

    Args:
        name: A reader: emodb, iemocap, demo, folder, csv or hub. Our choice; the paper reports IEMOCAP.
        root: The corpus folder or file; None for corpora that need none. A relative path starts at the folder the
            command is typed in; `${NAME}` is replaced by the environment variable. No part of the method.
        options: Every further key: the reader's own options. No part of the method.
    """

    name: str
    root: str | None = field(default=None, metadata={"expand": True, "quiet": True})
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"rest": True})


@dataclass(frozen=True)
class DataSpec:
    """How recordings are given to the training.

    Args:
        max_seconds: Longest piece of a clip in training, in seconds; None for whole clips. Tests hear whole clips.
            Our choice; the paper does not say.
        augment: `speed` plays clips 0.9 to 1.1 times as fast in the trainings on emotions, drawn anew in every epoch;
            no front-end cache then. Our choice: none.
        shuffle_labels: Permute emotions among the training and development clips of each speaker, to see what chance
            looks like; the report is stamped. No part of the method.
        short_clips: What to do with clips too short for one frame (25 ms): stop with their names (`error`), `pad` them
            with zeros, or list them and `drop` them. Our choice.
        front_end_cache: Where the output of a frozen convolution front end is kept, in half precision, so that it is
            computed once rather than in every epoch of every stage: true for `front-end` inside the run's folder, a
            folder of one's own, or false to do without. About 184 MB for each hour of audio. No part of the method.
    """

    max_seconds: float | None = field(default=10.0, metadata={"above": 0, "at_most": MOST_SECONDS})
    augment: Literal["none", "speed"] = "none"
    shuffle_labels: bool = False
    short_clips: Literal["error", "pad", "drop"] = "error"
    front_end_cache: bool | str = field(default=True, metadata={"expand": True})

    def __post_init__(self) -> None:
        cache = self.front_end_cache
        if isinstance(cache, str) and cache.strip().lower() in ("", "true", "false", "yes", "no", "on", "off"):
            raise RequestError(
                f"`data.front_end_cache` is the text {cache!r}",
                "true, false, or a folder",
                "front_end_cache: true, without quotes",
            )


@dataclass(frozen=True)
class PseudoLabelSpec:
    """Frame labels for the retraining.

    Args:
        layers: Transformer layers, from 1, or from the top as -1, -2, …. The third-last (-3) being the best is stated
            (known from summaries of the paper).
        clusters: Numbers of clusters, one scale each. That there are several scales is stated, the numbers are our
            choice.
        source: The model whose hidden states are clustered: `multitask` (stated) or the untouched `backbone`
            (ablation).
        sample_frames: Most frames that k-means is fitted on, drawn from the training speakers. Our choice.
        seed: Seed of the draw and of k-means. Our choice.
    """

    layers: tuple[int, ...] = field(default=(-3,), metadata={"non_empty": True, "unique": True, "not_zero": True})
    clusters: tuple[int, ...] = field(
        default=(50, 100, 500), metadata={"non_empty": True, "unique": True, "at_least": 2}
    )
    source: Source = "multitask"
    sample_frames: int = field(default=500_000, metadata={"at_least": 1})
    seed: int = field(default=0, metadata={"at_least": 0})


@dataclass(frozen=True)
class StageSpec:
    """One of the three trainings.

    Args:
        skip: Leave this stage out. The paper performs all three; leaving one out is an ablation.
        start: The weights to start from. `auto` is the backbone for `multitask` and `retrain` (retraining HuBERT
            itself is stated), and the last stage before it that is performed for `finetune` (stated).
        model: `GMPATLConfig` fields for this stage alone, on top of the recipe's `model`. Our choice where set.
        same_updates_as_all: Fine-tune with as many updates as all stages of the whole method together; `finetune`
            only. Not in the paper: it makes the comparison with fine-tuning alone fair.
        arguments: Every further key: `GMPATLTrainingArguments` fields. The paper's values are not known: our choice.
    """

    skip: bool = False
    start: Start = "auto"
    model: Mapping[str, Any] = field(default_factory=dict, metadata={"quiet": True})
    same_updates_as_all: bool = field(default=False, metadata={"quiet": True})
    arguments: Mapping[str, Any] = field(default_factory=dict, metadata={"rest": True})


@dataclass(frozen=True)
class StagesSpec:
    """The three trainings, in their order.

    Args:
        multitask: Emotion and gender together (stated).
        retrain: Frame labels of masked frames. Cross-entropy on frame labels is stated, masking is our choice.
        finetune: Emotion with AM-Softmax (stated).
    """

    multitask: StageSpec = field(default_factory=StageSpec)
    retrain: StageSpec = field(default_factory=StageSpec)
    finetune: StageSpec = field(default_factory=StageSpec)

    @property
    def performed(self) -> tuple[StageName, ...]:
        """Names of the stages that are not skipped, in their order."""
        return tuple(name for name in STAGE_NAMES if not getattr(self, name).skip)

    def start_of(self, name: StageName) -> Literal["backbone", "multitask", "retrain"]:
        """Whose weights a stage starts from, `auto` resolved."""
        start: Start = getattr(self, name).start
        if start != "auto":
            return start
        if name == "finetune":
            if not self.retrain.skip:
                return "retrain"
            if not self.multitask.skip:
                return "multitask"
        return "backbone"


@dataclass(frozen=True)
class VariantSpec:
    """A name for a set of overrides.

    Args:
        name: A built-in variant, or a new name with `set`. Our choice.
        base: A built-in variant that `set` comes on top of. Our choice.
        set: Dotted path to value. Our choice.
    """

    name: str
    base: str | None = field(default=None, metadata={"quiet": True})
    set: Mapping[str, Any] = field(default_factory=dict, metadata={"quiet": True})


@dataclass(frozen=True)
class Recipe:
    """A run: corpora, protocol, backbone, stages, seeds and variants.

    Everything is checked on construction, every variant included, so that a typo never costs a training.

    Args:
        name: Names the run's folder. No part of the method.
        corpus: The corpora to read; one is enough.
        labels: Emotion in the corpus → emotion to learn, or None to drop it; None keeps the corpus' labels as they
            are. Our choice; the paper does not say how it merges.
        data: How recordings are given to the training.
        protocol: Who is in train, development and test.
        backbone: Hub id or local folder of a HuBERT (stated; base size is our choice), or a mapping of
            `HubertConfig` fields to start from scratch. `${NAME}` is replaced by the environment variable.
        model: `GMPATLConfig` fields. Which of them are stated is in its documentation.
        pseudo_labels: Frame labels for the retraining.
        stages: The three trainings.
        search: Dotted path under `stages.finetune` to the values to try. Every variant fine-tunes once with each
            combination in each fold, and the fold's development speakers choose. Our choice: nothing is searched.
        seeds: One complete run each. Our choice; the paper does not say.
        variants: What to compare; the first, with the first seed, becomes the final model. Our choice. Empty in a
            recipe that `resolve` gave back.
        final: Whether to make the final model. No part of the method.

    Raises:
        RequestError: A value of the wrong kind or out of range, an unknown name, or parts that contradict each other.

    Example:
        >>> recipe = Recipe.from_dict({"name": "mine", "corpus": {"name": "demo"}, "variants": ["gmp-atl", "direct"]})
        >>> recipe.resolve("direct").stages.performed
        ('finetune',)
    """

    name: str
    corpus: tuple[CorpusSpec, ...] = field(metadata={"non_empty": True, "unique": True})
    labels: Mapping[str, str | None] | None = field(default=None, metadata={"non_empty": True})
    data: DataSpec = field(default_factory=DataSpec)
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    backbone: str | Mapping[str, Any] = field(
        default="facebook/hubert-base-ls960", metadata={"expand": True, "non_empty": True}
    )
    model: Mapping[str, Any] = field(default_factory=dict)
    pseudo_labels: PseudoLabelSpec = field(default_factory=PseudoLabelSpec)
    stages: StagesSpec = field(default_factory=StagesSpec)
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, metadata={"quiet": True})
    seeds: tuple[int, ...] = field(default=(0,), metadata={"non_empty": True, "unique": True, "at_least": 0})
    variants: tuple[VariantSpec, ...] = (VariantSpec("gmp-atl"), VariantSpec("direct"))
    final: bool = True

    def __post_init__(self) -> None:
        hints = get_type_hints(Recipe)
        for item in fields(self):
            value = convert(hints[item.name], getattr(self, item.name), item.name, item.metadata)
            object.__setattr__(self, item.name, value)
        check_name(self.name)
        check_protocol(self)
        check_search(self)
        for index, name in enumerate(self.variant_names):
            if name in self.variant_names[:index]:
                raise RequestError(f"`variants` has `{name}` twice", "each name once", "remove or rename one of them")
        for name in self.variant_names:
            self.resolve(name)
        if not self.variants:
            check_coherence(self)
            self.candidates()

    @classmethod
    def from_dict(cls, recipe: Mapping[str, Any]) -> Recipe:
        """Read plain dicts and lists, as YAML gives them.

        Args:
            recipe: The keys of a recipe; one corpus may stand without a list, a built-in variant as its bare name.

        Returns:
            The checked recipe.

        Raises:
            RequestError: As for the class; also for unknown keys, with the nearest right one.
        """
        if recipe.get("variants", True) in ([], ()):
            raise RequestError("`variants` is an empty list", "at least one entry", "variants: [gmp-atl]")
        return cls._from_plain(recipe)

    @classmethod
    def _from_plain(cls, recipe: Mapping[str, Any]) -> Recipe:
        values = split_rest(cls, recipe, "")
        for required in ("name", "corpus"):
            if values.get(required) is None:
                raise RequestError(f"the recipe has no `{required}`", f"`{required}: …`", "see the recipe `demo`")
        if isinstance(values["corpus"], Mapping):
            # Converted here rather than wrapped in a list, so that messages say `corpus.root` as the file does.
            values["corpus"] = [convert(CorpusSpec, values["corpus"], "corpus", {})]
        if isinstance(values.get("search"), Mapping):
            values["search"] = dotted_paths(values["search"])
        if isinstance(values.get("variants"), (list, tuple)):
            values["variants"] = [{"name": v} if isinstance(v, str) else v for v in values["variants"]]
        return cls(**values)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe file.

        Args:
            path: The file, or the name of a packaged recipe such as `demo`.
            overrides: `key.path=value` texts, applied in order before anything is checked; values are YAML.

        Returns:
            The checked recipe.

        Raises:
            RequestError: As for `from_dict`; also for a file that is missing or no YAML.
        """
        file = find_recipe(path)
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RequestError(f"{file} is not UTF-8 text", "a recipe in YAML") from error
        plain = load_yaml(text, str(file))
        if not isinstance(plain, dict):
            raise RequestError(f"{file} holds no `key: value` lines", "a recipe in YAML", "see the recipe `demo`")
        return cls.from_dict(with_overrides(plain, overrides))

    def to_dict(self) -> dict[str, Any]:
        """Give plain dicts and lists with every setting written out; `from_dict` makes the same recipe of them."""
        plain: dict[str, Any] = to_plain(self)
        if len(plain["corpus"]) == 1:
            plain["corpus"] = plain["corpus"][0]
        plain["variants"] = [v["name"] if list(v) == ["name"] else v for v in plain["variants"]]
        return plain

    def to_yaml(self) -> str:
        """Write the recipe as YAML with every setting written out; reading it makes the same recipe."""
        return dump_yaml(self.to_dict())

    @property
    def variant_names(self) -> tuple[str, ...]:
        """Names of the variants, in order."""
        return tuple(variant.name for variant in self.variants)

    def resolve(self, variant_name: str) -> Recipe:
        """Apply a variant's overrides.

        Args:
            variant_name: One of `variant_names`.

        Returns:
            A recipe without variants.

        Raises:
            RequestError: When there is no such variant, or its overrides make no valid recipe.
        """
        if variant_name not in self.variant_names:
            raise RequestError(
                f"the recipe has no variant {variant_name!r}",
                known_names(self.variant_names) if self.variants else "a recipe with variants",
                did_you_mean(variant_name, self.variant_names),
            )
        index = self.variant_names.index(variant_name)
        overrides = variant_overrides(self.variants[index], f"variants.{index}")
        return self._changed(overrides, {"variants": []}, f"variant {variant_name}")

    def _changed(self, overrides: Mapping[str, Any], emptied: Mapping[str, Any], called: str) -> Recipe:
        """Give the recipe with overrides, and without what they came from; errors begin with what they are called."""
        plain = {**self.to_dict(), **emptied}
        try:
            for dotted, value in overrides.items():
                apply_override(plain, dotted, to_plain(value))
            return self._from_plain(plain)
        except RequestError as error:
            raise RequestError(f"{called}: {error.found}", error.expected, error.fix) from error

    @property
    def grid(self) -> tuple[dict[str, Any], ...]:
        """Every combination of the values to search, as dotted path to value."""
        return tuple(dict(zip(self.search, values, strict=True)) for values in itertools.product(*self.search.values()))

    def candidates(self) -> tuple[Recipe, ...]:
        """Give the recipe once for each combination in `grid`, in that order, with nothing left to search.

        Returns:
            Recipes; the recipe itself if it searches nothing.

        Raises:
            RequestError: A combination makes no valid recipe.
        """
        return tuple(self.candidate(overrides) for overrides in self.grid) if self.search else (self,)

    def candidate(self, overrides: Mapping[str, Any]) -> Recipe:
        """Give the recipe with one combination of the search in place of it.

        Args:
            overrides: One of `grid`.

        Returns:
            A recipe with nothing left to search.

        Raises:
            RequestError: The combination makes no valid recipe.
        """
        return self._changed(overrides, {"search": {}}, f"search {overrides}")

    def check_field_names(self) -> None:
        """Refuse unknown names in `backbone`, `model` and the stages' arguments; imports transformers."""
        check_field_names(self)


def packaged_recipes() -> dict[str, Path]:
    """Find the recipes that come with the package.

    Returns:
        Name to file, sorted by name.
    """
    here = Path(__file__).resolve().parent
    # In the wheel the recipes lie inside the package; in a source checkout beside `src`.
    folder = next((f for f in (here / "packaged", here.parents[2] / "recipes") if f.is_dir()), None)
    return {} if folder is None else {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_recipe(path: str | os.PathLike[str]) -> Path:
    """Find a recipe file by its path, or a packaged one by its name.

    Args:
        path: A path, or a name such as `demo`.

    Returns:
        The file.

    Raises:
        RequestError: With the known names when there is neither.
    """
    file = Path(path)
    if file.is_file():
        return file
    known = packaged_recipes()
    name = os.fspath(path)
    if name in known:
        return known[name]
    raise RequestError(
        f"there is no recipe {name}" + (" (it is a folder)" if file.is_dir() else ""),
        f"a YAML file, or {known_names(known)}" if known else "a YAML file",
        did_you_mean(file.stem, known),
    )
