"""Which steps a run has, what each depends on, and which of them variants share; nothing is performed here."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..batching.conv_features import PRECISION
from ..batching.sampler import StepBatchSampler
from ..checkpoints import save_scratch_backbone
from ..data.audio import SAMPLING_RATE
from ..data.fingerprints import combine
from ..data.scale_names import ScaleName, column_name
from ..errors import RequestError, errors_of
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..protocols.fold import Fold, select
from ..protocols.leakage import HeldOut
from ..protocols.shuffled_labels import shuffle_labels
from ..pseudo_labels.classes import refuse_too_few_frames
from ..pseudo_labels.feature_stream import frames_of
from ..pseudo_labels.positions import removes_positions
from ..recipe.convert import to_plain
from ..recipe.method import Method
from ..recipe.sections import STAGE_NAMES, PseudoLabelSpec, StageName
from ..run_folder.layout import BACKBONE, STEP_NAMES, FoldFolder, RunFolder
from ..run_folder.step_folder import StepFolder
from .final_length import Stop
from .replay import Replay
from .search import Candidate, train_candidates
from .stages import (
    MODEL_CLASSES,
    backbone_fields,
    learns_frame_labels,
    model_class_of,
    stage_arguments,
    stage_model_fields,
)
from .steps import make_oracle_labels, make_pseudo_labels, train
from .training import Training, Weights


@dataclass(frozen=True)
class PlannedStep:
    """One step of one fold."""

    folder: StepFolder
    """Where it is, and all that it depends on."""

    perform: Callable[[Path], None]
    """Does the work in the folder given."""


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
        held_out: What of the test nothing may touch before.
        front_end_cache: That of the test; None computes the front end.
        replay: Rows of plain speech that the retraining hears as well; None without any.
    """

    variant: str
    seed: int
    fold: Fold
    folder: FoldFolder
    steps: tuple[PlannedStep, ...]
    train: datasets.Dataset
    test: datasets.Dataset
    batch_size: int
    held_out: HeldOut
    front_end_cache: Path | None = None
    replay: datasets.Dataset | None = None

    @property
    def label(self) -> str:
        """What it is called on the screen."""
        return f"{self.variant} · seed {self.seed} · {self.folder.path.name}"

    @property
    def finetune(self) -> StepFolder:
        """The step whose model is tested."""
        return self.steps[-1].folder

    def find(self, stage: str) -> StepFolder | None:
        """The step of a stage; None if that is skipped."""
        path = self.folder.step(stage)
        return next((step.folder for step in self.steps if step.folder.path == path), None)


@dataclass
class Planner:
    """Makes the plan of each fold.

    Args:
        run: The run's folder.
        table: All rows.
        fingerprints: id → hash of the row.
        backbones: Variant → what its backbone is, from `describe_backbone`.
        common_backbone: The recipe's own backbone, which variants have unless they set another.
        processes: Processes that share each training.
        replays: Variant → its plain speech, for those that have any.
        digests: id → hash of the samples, of the recordings that were decoded.
        shows_bars: Whether the steps show progress bars, which those of several jobs would draw over each other.
    """

    run: RunFolder
    table: datasets.Dataset
    fingerprints: Mapping[str, str]
    backbones: Mapping[str, Mapping[str, Any]]
    common_backbone: str | Mapping[str, Any]
    processes: int = 1
    shows_bars: bool = True
    replays: Mapping[str, Replay] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def describe(self, work: str) -> str | None:
        """What a progress bar says of some work; None for no bar."""
        return work if self.shows_bars else None

    def plan(
        self,
        variant: str,
        method: Method,
        seed: int,
        fold: Fold,
        name: str | None = None,
        stops: Mapping[str, Stop] | None = None,
    ) -> PlannedFold:
        """Plan one fold of a variant.

        Args:
            variant: Name of the variant.
            method: The variant's method.
            seed: Seed of the run.
            fold: Its speakers.
            name: In place of the fold's number, in the name of its folder.
            stops: Stage → where its training ends, for a model that has no development speakers.

        Raises:
            RequestError: The fold's training rows have fewer frames than clusters are asked for.
        """
        folder = self.run.fold(variant, seed, name or fold.number)
        return _FoldPlan(self, variant, method, seed, fold, folder, stops or {}).make()


def known_genders(rows: datasets.Dataset) -> int:
    """How many genders some rows have, unknown ones left aside."""
    return len({gender for gender in rows["gender"] if gender is not None})


class _FoldPlan:
    """The steps of one fold, made one after the other."""

    def __init__(
        self,
        planner: Planner,
        variant: str,
        method: Method,
        seed: int,
        fold: Fold,
        folder: FoldFolder,
        stops: Mapping[str, Stop],
    ) -> None:
        self.planner, self.method, self.seed, self.fold, self.stops = planner, method, seed, fold, stops
        self.variant, self.folder = variant, folder
        self.label = f"{variant} · seed {seed} · {folder.path.name}"
        table = shuffle_labels(planner.table, fold, seed) if method.data.shuffle_labels else planner.table
        parts = select(table, fold)
        self.train, self.test = parts["train"], parts["test"]
        self.dev = parts["dev"] if len(parts["dev"]) else None
        self.held_out = fold.held_out(self.test)
        self.labels: list[str] = table.features["emotion"].names
        self.backbone = planner.backbones[variant]
        speech = planner.replays.get(variant)
        self.replay = None if speech is None else speech.beside(self.train)
        self.replay_hash = None if speech is None or self.replay is None else speech.fingerprint(self.replay)
        # Plain speech of other variants may have the same ids.
        self.digests = ChainMap(planner.digests, {} if speech is None else speech.digests)
        self.steps: dict[str, PlannedStep] = {}

    def make(self) -> PlannedFold:
        """Plan every step that the recipe performs."""
        if "scratch" in self.backbone:
            self._backbone_step()
        for stage in self.method.stages.performed:
            # The first stage that may need them: they do not change from one to the next.
            if stage != "multitask" and self.method.needs_frame_labels and "pseudo-labels" not in self.steps:
                self._label_step()
            self._training_step(stage)
        # Nobody knows yet which candidate is tested: with the cache only if all leave the front end as it is.
        caches = [self._front_end_cache("finetune", each) for each in self.method.candidates()]
        return PlannedFold(
            variant=self.variant,
            seed=self.seed,
            fold=self.fold,
            folder=self.folder,
            steps=tuple(self.steps.values()),
            train=self.train,
            test=self.test,
            batch_size=stage_arguments(self.method, "finetune").get("per_device_eval_batch_size", 8),
            held_out=self.held_out,
            front_end_cache=None if None in caches else caches[0],
            replay=self._heard,
        )

    @property
    def _heard(self) -> datasets.Dataset | None:
        """Plain speech, where there is a retraining to hear it."""
        return None if self.method.stages.retrain.skip else self.replay

    # ---- where weights come from ---------------------------------------------------------------------------------

    def _weights(self, start: str) -> Weights:
        """The backbone, or what an earlier step makes."""
        if start in self.steps:
            step = self.steps[start].folder
            return Weights(step, {"step": start, "key": step.key})
        return Weights(str(self.method.backbone), self.backbone)

    def _front_end_cache(self, start: str, method: Method) -> Path | None:
        """Folder of the front-end cache for a model whose front end is still the backbone's; None for any other.

        A front end that was trained is that of one stage of one fold and seed: nobody would find its features again.
        """
        wanted = method.data.front_end_cache
        if wanted is False or method.data.augment != "none":
            return None
        while start != "backbone":
            stage = next(each for each in STAGE_NAMES if each == start)
            arguments = stage_arguments(method, stage)
            if not (arguments.get("freeze_feature_encoder", True) or arguments.get("freeze_encoder", False)):
                return None
            start = method.stages.start_of(stage)
        return self.planner.run.front_end if wanted is True else Path(str(wanted))

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
        return {**inputs, "labels_dealt_with_seed": self.seed} if self.method.data.shuffle_labels else inputs

    def _add(
        self,
        name: str,
        path: Path,
        inputs: Mapping[str, Any],
        perform: Callable[[Path], None],
        launch: Mapping[str, Any] | None = None,
    ) -> None:
        self.steps[name] = PlannedStep(StepFolder(path, inputs, launch or {}), perform)

    # ---- the steps -----------------------------------------------------------------------------------------------

    def _backbone_step(self) -> None:
        fields, seed = self.method.backbone, self.seed
        assert not isinstance(fields, str)
        path = self.planner.run.backbone(seed, None if fields == self.planner.common_backbone else self.variant)
        inputs = {"step": BACKBONE, "config": self.backbone["scratch"], "seed": seed}
        self._add("backbone", path, inputs, lambda folder: save_scratch_backbone(fields, seed, folder))

    def _training_step(self, stage: StageName) -> None:
        path = self.folder.step(stage)
        label = f"{self.label} · {path.name}"
        inputs: dict[str, Any]
        if stage == "finetune" and self.method.search:
            inputs, perform = self._searched_training(stage, label)
        else:
            task = self._training(stage, self.method, label)
            inputs, perform = task.inputs(), _performing(task)
        # Each process has a batch of its own, so they decide which clips an update sees.
        self._add(stage, path, inputs, perform, {"processes": self.planner.processes})

    def _searched_training(self, stage: StageName, label: str) -> tuple[dict[str, Any], Callable[[Path], None]]:
        grid, candidates = self.method.grid, []
        tried: dict[str, Any] = {}  # by number: a changed field is then named by its path
        for number, (overrides, method) in enumerate(zip(grid, self.method.candidates(), strict=True)):
            task = self._training(stage, method, f"{label} · {number + 1} of {len(grid)}")
            tried[str(number)] = task.inputs()
            candidates.append(Candidate(overrides, _performing(task)))
        searched = {"step": STEP_NAMES[stage], "chosen_by": "development UAR", "candidates": tried}
        return searched, lambda folder: train_candidates(folder, candidates)

    def _training(self, stage: StageName, method: Method, description: str) -> Training:
        labelled = learns_frame_labels(method, stage)
        fields = stage_model_fields(method, stage, self.labels, self._scales() if labelled else None)
        if stage == "multitask" and known_genders(self.train) < 2:
            fields["emotion_weight"] = 1.0  # of one gender there is nothing to learn
        arguments, max_steps = stage_arguments(method, stage), None
        weight: float = getattr(method.stages, stage).start_weight
        if stage == "finetune" and method.stages.finetune.same_updates_as_all:
            trainings: dict[str, Any] = {each: stage_arguments(method, each) for each in STAGE_NAMES}
            if self.replay_hash is not None:
                trainings["retrain"]["replay"] = self.replay_hash
            arguments["same_updates_as"] = trainings
            max_steps = sum(map(self._updates, trainings.values()))
        stop = self.stops.get(stage, Stop())
        return Training(
            step=STEP_NAMES[stage],
            model_class=model_class_of(method, stage),
            start=self._weights(method.stages.start_of(stage)),
            backbone=self._weights("backbone"),
            fields=fields,
            arguments=arguments,
            max_steps=max_steps,
            data=self._data_inputs(),
            train=self.train,
            dev=self.dev,
            seed=self.seed,
            start_weight=None if weight == 1 else weight,
            lora=to_plain(getattr(method.stages, stage).lora),
            stop_at=stop.step,
            stop_after=stop.epoch,
            labels=self.steps["pseudo-labels"].folder if labelled else None,
            front_end_cache=self._front_end_cache(stage, method),
            description=self.planner.describe(description),
            held_out=self.held_out,
            digests=self.digests,
            replay=self._heard if stage == "retrain" else None,
        )

    def _label_step(self) -> None:
        spec = self.method.pseudo_labels
        train_rows, dev_rows, replay_rows, held_out = self.train, self.dev, self._heard, self.held_out
        path = self.folder.step("pseudo-labels")
        description = self.planner.describe(f"{self.label} · {path.name}")
        inputs: dict[str, Any] = {"step": path.name, "data": self._data_inputs()}
        if spec.control == "oracle":
            config = self._config()
            # Nothing else of the settings matters, and of the model how many frames it makes.
            inputs |= {"control": spec.control, "frames": [list(config.conv_kernel), list(config.conv_stride)]}
            oracle = partial(make_oracle_labels, config=config, train=train_rows, dev=dev_rows, held_out=held_out)
            self._add("pseudo-labels", path, inputs, oracle)
            return
        self._refuse_too_few_frames()
        source = self._weights(spec.source)
        inputs["source"] = source.identity
        inputs |= {name: value for name, value in label_settings(spec).items() if name not in inputs}
        if removes_positions(spec.positions, self._config()):
            inputs["positions"] = "removed"
        if replay_rows is not None:
            inputs["replay"] = self.replay_hash
        cache = self._front_end_cache(spec.source, self.method)
        if cache is not None:
            inputs["front_end"] = PRECISION

        def perform(folder: Path) -> None:
            checkpoint, model_class = source.locate(), MODEL_CLASSES["multitask"]
            make_pseudo_labels(
                folder, model_class, checkpoint, spec, train_rows, dev_rows, description, held_out, cache, replay_rows
            )

        self._add("pseudo-labels", path, inputs, perform)

    def _config(self) -> GMPATLConfig:
        return GMPATLConfig(**backbone_fields(self.backbone))

    def _scales(self) -> dict[str, int]:
        config, spec = self._config(), self.method.pseudo_labels
        if spec.control == "oracle":
            return {str(ScaleName(None, len(self.labels))): len(self.labels)}
        layers = [config.resolve_layer(layer) for layer in spec.layers]
        return {column_name(at, k, window): k for at in layers for window in spec.windows for k in spec.clusters}

    def _refuse_too_few_frames(self) -> None:
        spec, config = self.method.pseudo_labels, self._config()
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
        if spec.per != "none":
            with errors_of(self.label):
                refuse_too_few_frames(self.train, counts, spec.per, spec.clusters, sample, spec.seed)

    def _updates(self, arguments: Mapping[str, Any]) -> int:
        if arguments.get("max_steps", -1) > 0:
            return int(arguments["max_steps"])
        heard = [self.train, *([self.replay] if self.replay is not None and "replay" in arguments else [])]
        samples = np.concatenate([np.asarray(rows["num_samples"]) for rows in heard])
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


LATER_SETTINGS = ("windows", "normalize", "per", "control")
"""Settings that came after the first steps were made: at their defaults they are in no key, which stays what it was."""


def label_settings(spec: PseudoLabelSpec) -> dict[str, Any]:
    """What frame labels depend on, as far as it is set."""
    usual = asdict(PseudoLabelSpec())
    settings = asdict(spec)
    del settings["positions"]  # what it comes to depends on the encoder
    return {name: value for name, value in settings.items() if name not in LATER_SETTINGS or value != usual[name]}


def _performing(task: Training) -> Callable[[Path], None]:
    return lambda folder: train(folder, task)
