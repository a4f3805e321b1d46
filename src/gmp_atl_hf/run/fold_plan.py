"""Which steps a run has, what each depends on, and which of them variants share; nothing is performed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..batching.conv_features import PRECISION
from ..batching.sampler import StepBatchSampler
from ..checkpoints import save_scratch_backbone
from ..data.audio import SAMPLING_RATE
from ..data.fingerprints import combine
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..protocols.fold import Fold, select
from ..protocols.leakage import Untouched
from ..protocols.shuffled_labels import shuffle_labels
from ..pseudo_labels.feature_stream import frames_of
from ..pseudo_labels.kmeans import column_name
from ..recipe.method import Method
from ..recipe.sections import STAGE_NAMES, StageName
from ..run_folder.step_folder import StepFolder
from .search import Candidate, train_candidates
from .stages import MODEL_CLASSES, STEP_NAMES, stage_arguments, stage_model_fields
from .steps import Training, make_pseudo_labels, pseudo_labels_of, train

Labeller = Callable[[datasets.Dataset], datasets.Dataset]
"""Puts frame labels beside the rows of a table, where a training needs them."""

FRONT_END_FOLDER = "front-end"
"""Folder of the front-end cache inside a run's folder."""


@dataclass(frozen=True)
class PlannedStep:
    """One step of one fold.

    Args:
        folder: Its folder and all that it depends on.
        perform: Does the work in the folder given.
        equals: All planned steps with this key, this one among them.
    """

    folder: StepFolder
    perform: Callable[[Path], None]
    equals: Sequence[StepFolder] = ()

    def finished_elsewhere(self) -> StepFolder | None:
        """The same step of another variant, if that is finished."""
        return next((one for one in self.equals if one.path != self.folder.path and one.finished), None)


@dataclass(frozen=True)
class PlannedFold:
    """All steps of one variant, seed and fold.

    Args:
        variant: Name of the variant.
        seed: Seed of the run.
        fold: Its speakers.
        folder: Where its results go.
        steps: In their order; the last is the fine-tuning.
        train: Rows to train on.
        test: Rows to test on.
        batch_size: Clips per batch of the test.
        untouched: What of the test nothing may touch before.
        front_end_cache: Folder of the front-end cache for the test, or None.
    """

    variant: str
    seed: int
    fold: Fold
    folder: Path
    steps: tuple[PlannedStep, ...]
    train: datasets.Dataset
    test: datasets.Dataset
    batch_size: int
    untouched: Untouched
    front_end_cache: Path | None = None

    @property
    def finetune(self) -> StepFolder:
        """The step whose model is tested."""
        return self.steps[-1].folder

    def step(self, name: str) -> StepFolder:
        """Find a step by the name of its folder."""
        return next(step.folder for step in self.steps if step.folder.path.name == name)


@dataclass
class Planner:
    """Makes the plan of each fold and remembers which steps it has planned before.

    Args:
        output_dir: The run's folder.
        table: All rows.
        fingerprints: id → hash of the row.
        backbones: Variant → what its backbone is, from `describe_backbone`.
        common_backbone: The recipe's own backbone, which variants have unless they set another.
        processes: Processes that share each training.
    """

    output_dir: Path
    table: datasets.Dataset
    fingerprints: Mapping[str, str]
    backbones: Mapping[str, Mapping[str, Any]]
    common_backbone: str | Mapping[str, Any]
    processes: int = 1
    _planned: dict[str, list[StepFolder]] = field(default_factory=dict)

    def plan(
        self,
        variant: str,
        recipe: Method,
        seed: int,
        fold: Fold,
        name: str | None = None,
        stops: Mapping[str, int] | None = None,
    ) -> PlannedFold:
        """Plan one fold.

        Args:
            variant: Name of the variant.
            recipe: The variant's method.
            seed: Seed of the run.
            fold: Its speakers.
            name: Name of the fold's folder; `fold-01` and so on by default.
            stops: Stage → last optimiser step, for a model that has no development speakers.

        Returns:
            The plan.

        Raises:
            RequestError: The fold's training rows have fewer frames than clusters are asked for.
        """
        name = name or f"fold-{fold.number:02d}"
        return _FoldPlan(self, variant, recipe, seed, fold, name, stops or {}).make()

    def register(self, step: PlannedStep) -> PlannedStep:
        """Remember a step, so that those with the same key know of each other."""
        equals = self._planned.setdefault(step.folder.key, [])
        if all(one.path != step.folder.path for one in equals):
            equals.append(step.folder)
        return PlannedStep(step.folder, step.perform, equals)


def known_genders(rows: datasets.Dataset) -> int:
    """How many genders some rows have, unknown ones left aside."""
    return len({gender for gender in rows["gender"] if gender is not None})


class _FoldPlan:
    """The steps of one fold, made one after the other."""

    def __init__(
        self,
        planner: Planner,
        variant: str,
        recipe: Method,
        seed: int,
        fold: Fold,
        name: str,
        stops: Mapping[str, int],
    ) -> None:
        self.planner, self.recipe, self.seed, self.fold, self.stops = planner, recipe, seed, fold, stops
        self.variant = variant
        self.folder = planner.output_dir / variant / f"seed-{seed}" / name
        self.label = f"{variant} · seed {seed} · {name}"
        table = shuffle_labels(planner.table, fold, seed) if recipe.data.shuffle_labels else planner.table
        parts = select(table, fold)
        self.train, self.test = parts["train"], parts["test"]
        self.dev = parts["dev"] if len(parts["dev"]) else None
        self.untouched = fold.untouched(self.test)
        self.labels: list[str] = table.features["emotion"].names
        self.backbone = planner.backbones[variant]
        self.steps: dict[str, PlannedStep] = {}

    def make(self) -> PlannedFold:
        """Plan every step that the recipe performs."""
        if "scratch" in self.backbone:
            self._backbone_step()
        for stage in self.recipe.stages.performed:
            if stage == "retrain":
                self._label_step()
            self._training_step(stage)
        batch_size = stage_arguments(self.recipe, "finetune").get("per_device_eval_batch_size", 8)
        steps = tuple(self.steps.values())
        # Nobody knows yet which candidate is tested: with the cache only if all leave the front end as it is.
        caches = [self._front_end_cache("finetune", each) for each in self.recipe.candidates()]
        cache = None if None in caches else caches[0]
        return PlannedFold(
            self.variant,
            self.seed,
            self.fold,
            self.folder,
            steps,
            self.train,
            self.test,
            batch_size,
            self.untouched,
            cache,
        )

    # ---- where weights come from ---------------------------------------------------------------------------------

    def _source(self, start: str) -> Callable[[], str | Path]:
        """Checkpoint to start from, known once the step before is finished."""
        if start == "backbone" and "backbone" not in self.steps:
            return lambda: str(self.recipe.backbone)
        folder = self.steps[start].folder
        return lambda: folder.resolve()

    def _source_inputs(self, start: str) -> Mapping[str, Any]:
        if start == "backbone" and "backbone" not in self.steps:
            return self.backbone
        return {"step": start, "key": self.steps[start].folder.key}

    def _front_end_cache(self, start: str, recipe: Method) -> Path | None:
        """Folder of the front-end cache for a model whose front end is still the backbone's; None for any other.

        A front end that was trained is that of one stage of one fold and seed: nobody would find its features again.
        """
        wanted = recipe.data.front_end_cache
        if wanted is False or recipe.data.augment != "none":
            return None
        while start != "backbone":
            stage = next(each for each in STAGE_NAMES if each == start)
            arguments = stage_arguments(recipe, stage)
            if not (arguments.get("freeze_feature_encoder", True) or arguments.get("freeze_encoder", False)):
                return None
            start = recipe.stages.start_of(stage)
        return self.planner.output_dir / FRONT_END_FOLDER if wanted is True else Path(str(wanted))

    def _data_inputs(self) -> dict[str, Any]:
        ids = [*self.train["id"], *(self.dev["id"] if self.dev is not None else [])]
        inputs = {
            "train": list(self.fold.train),
            "dev": list(self.fold.dev),
            "rows": combine(self.planner.fingerprints, ids),
            "labels": self.labels,
        }
        if not self.fold.speaker_independent:
            # Speakers do not tell then which recordings are for development.
            inputs["dev_rows"] = combine(self.planner.fingerprints, self.dev["id"] if self.dev is not None else [])
        # The permutation follows from the run's seed.
        return {**inputs, "labels_dealt_with_seed": self.seed} if self.recipe.data.shuffle_labels else inputs

    def _add(
        self,
        name: str,
        path: Path,
        inputs: Mapping[str, Any],
        perform: Callable[[Path], None],
        manner: Mapping[str, Any] | None = None,
    ) -> None:
        self.steps[name] = self.planner.register(PlannedStep(StepFolder(path, inputs, manner or {}), perform))

    # ---- the steps -----------------------------------------------------------------------------------------------

    def _backbone_step(self) -> None:
        fields, seed = self.recipe.backbone, self.seed
        assert not isinstance(fields, str)
        path = self.planner.output_dir / "backbone"
        if fields != self.planner.common_backbone:
            path /= self.variant
        path /= f"seed-{seed}"
        inputs = {"step": "backbone", "config": self.backbone["scratch"], "seed": seed}
        self._add("backbone", path, inputs, lambda folder: save_scratch_backbone(fields, seed, folder))

    def _training_step(self, stage: StageName) -> None:
        path = self.folder / STEP_NAMES[stage]
        label = f"{self.label} · {path.name}"
        if stage == "finetune" and self.recipe.search:
            inputs, perform = self._searched_training(stage, label)
        else:
            inputs, perform = self._training(stage, self.recipe, label)
        # Each process has a batch of its own, so they decide which clips an update sees.
        self._add(stage, path, inputs, perform, {"processes": self.planner.processes})

    def _searched_training(self, stage: StageName, label: str) -> tuple[dict[str, Any], Callable[[Path], None]]:
        grid, candidates = self.recipe.grid, []
        tried: dict[str, Any] = {}  # by number: a changed field is then named by its path
        for number, (overrides, recipe) in enumerate(zip(grid, self.recipe.candidates(), strict=True)):
            inputs, perform = self._training(stage, recipe, f"{label} · {number + 1} of {len(grid)}")
            tried[str(number)] = inputs
            candidates.append(Candidate(overrides, perform))
        searched = {"step": STEP_NAMES[stage], "chosen_by": "development UAR", "candidates": tried}
        return searched, lambda folder: train_candidates(folder, candidates)

    def _training(
        self, stage: StageName, recipe: Method, description: str
    ) -> tuple[dict[str, Any], Callable[[Path], None]]:
        """All that a training depends on, and what performs it."""
        train_rows, dev_rows, seed, stop_at = self.train, self.dev, self.seed, self.stops.get(stage)
        untouched = self.untouched
        start = recipe.stages.start_of(stage)
        source, config_from = self._source(start), self._source("backbone")
        fields = stage_model_fields(recipe, stage, self.labels, self._scales() if stage == "retrain" else None)
        if stage == "multitask" and known_genders(self.train) < 2:
            fields["emotion_weight"] = 1.0  # of one gender there is nothing to learn
        arguments = self._arguments(stage, recipe)
        labels = self.steps["pseudo-labels"].folder if stage == "retrain" else None
        inputs: dict[str, Any] = {
            "step": STEP_NAMES[stage],
            "seed": seed,
            "data": self._data_inputs(),
            "backbone": self._source_inputs("backbone"),
            "start": self._source_inputs(start),
            "model": fields,
            "arguments": self._keyed_arguments(stage, recipe),
        }
        if labels is not None:
            inputs["pseudo_labels"] = labels.key
        if stop_at is not None:
            inputs["stop_at"] = stop_at
        cache = self._front_end_cache(stage, recipe)
        if cache is not None:
            inputs["front_end"] = PRECISION

        def perform(folder: Path) -> None:
            unlabelled: Labeller = _as_it_is
            with nullcontext(unlabelled) if labels is None else pseudo_labels_of(labels.resolve(), folder) as labelled:
                task = Training(
                    model_class=MODEL_CLASSES[stage],
                    start=source(),
                    config_from=config_from(),
                    fields=fields,
                    arguments=arguments,
                    train=labelled(train_rows),
                    dev=None if dev_rows is None else labelled(dev_rows),
                    seed=seed,
                    stop_at=stop_at,
                    description=description,
                    front_end_cache=cache,
                    codebooks=None if labels is None else labels.resolve(),
                    untouched=untouched,
                )
                train(folder, task)

        return inputs, perform

    def _label_step(self) -> None:
        spec = self.recipe.pseudo_labels
        source, train_rows, dev_rows, untouched = self._source(spec.source), self.train, self.dev, self.untouched
        model_class = MODEL_CLASSES["multitask"]
        self._refuse_too_few_frames()
        path = self.folder / STEP_NAMES["pseudo-labels"]
        description = f"{self.label} · {path.name}"
        inputs = {
            "step": path.name,
            "data": self._data_inputs(),
            "source": self._source_inputs(spec.source),
            "layers": list(spec.layers),
            "clusters": list(spec.clusters),
            "sample_frames": spec.sample_frames,
            "seed": spec.seed,
        }
        cache = self._front_end_cache(spec.source, self.recipe)
        if cache is not None:
            inputs["front_end"] = PRECISION

        def perform(folder: Path) -> None:
            make_pseudo_labels(folder, model_class, source(), spec, train_rows, dev_rows, description, untouched, cache)

        self._add("pseudo-labels", path, inputs, perform)

    def _config(self) -> GMPATLConfig:
        config: Mapping[str, Any] = self.backbone["scratch"] if "scratch" in self.backbone else self.backbone["config"]
        return GMPATLConfig(**{name: value for name, value in config.items() if name != "model_type"})

    def _scales(self) -> dict[str, int]:
        config, spec = self._config(), self.recipe.pseudo_labels
        return {column_name(config.resolve_layer(layer), k): k for layer in spec.layers for k in spec.clusters}

    def _refuse_too_few_frames(self) -> None:
        spec, config = self.recipe.pseudo_labels, self._config()
        clusters, sample = max(spec.clusters), spec.sample_frames
        counts = frames_of(self.train, config)
        frames = sum(counts)
        drawn = min(frames, sample)
        if drawn < clusters:
            what = f"sample_frames {sample}" if sample < frames else f"{frames} frames in the training rows"
            raise RequestError(
                f"{self.label}: {clusters} clusters are asked for, with {what}",
                "at least as many frames as clusters",
                "smaller pseudo_labels.clusters, more recordings, or a larger pseudo_labels.sample_frames",
            )

    def _arguments(self, stage: StageName, recipe: Method) -> dict[str, Any]:
        arguments = stage_arguments(recipe, stage)
        if stage == "finetune" and recipe.stages.finetune.same_updates_as_all:
            arguments["max_steps"] = sum(self._updates(stage_arguments(recipe, each)) for each in STAGE_NAMES)
        return arguments

    def _keyed_arguments(self, stage: StageName, recipe: Method) -> dict[str, Any]:
        """What a training's arguments follow from; they themselves may depend on the number of processes."""
        arguments = stage_arguments(recipe, stage)
        if stage == "finetune" and recipe.stages.finetune.same_updates_as_all:
            return {**arguments, "same_updates_as": {each: stage_arguments(recipe, each) for each in STAGE_NAMES}}
        return arguments

    def _updates(self, arguments: Mapping[str, Any]) -> int:
        if arguments.get("max_steps", -1) > 0:
            return int(arguments["max_steps"])
        samples = np.asarray(self.train["num_samples"])
        if arguments.get("max_seconds") is not None:
            samples = np.minimum(samples, int(arguments["max_seconds"] * SAMPLING_RATE))
        sampler = StepBatchSampler(
            samples.tolist(),
            arguments.get("per_device_train_batch_size", 16),
            arguments.get("gradient_accumulation_steps", 1),
            self.planner.processes,
            batch_seconds=arguments.get("batch_seconds"),
        )
        return math.ceil(sampler.steps * arguments["num_train_epochs"])


def _as_it_is(table: datasets.Dataset) -> datasets.Dataset:
    return table
