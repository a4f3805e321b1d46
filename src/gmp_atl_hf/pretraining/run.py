"""A pre-training run: each iteration is two steps of the method, frame labels and retraining on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from tqdm.auto import tqdm
from transformers import HubertConfig, HubertModel

from ..batching.feature_store import FeatureStore, refuse_no_folder
from ..checkpoints import (
    describe_backbone,
    load_feature_extractor,
    load_model,
    quiet_transformers,
    save_scratch_backbone,
)
from ..data.fingerprints import Recordings, combine
from ..data.table import Corpus, read_corpora
from ..environment import describe_environment
from ..errors import RequestError, errors_of, read_only_is_fine
from ..files import check_files, json_of, read_json, remove_half_written, write_json, write_known
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.families_gmp_atl import HUBERT
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel, HubertForGMPATLFrameClassification
from ..pseudo_labels.cluster import cluster_and_label
from ..pseudo_labels.feature_stream import FeatureExtraction
from ..pseudo_labels.kmeans import MultiScaleKMeans, column_name
from ..recipe.sections import PseudoLabelSpec
from ..report.figures import NO_MATPLOTLIB, can_draw
from ..run.changed_recordings import refuse_changed
from ..run.processes import join_processes
from ..run.stages import MODEL_CLASSES, backbone_fields, encoder_shapes, make_arguments, without_trackers
from ..run.steps import make_pseudo_labels, pseudo_labels_of, train, write_left_out
from ..run.training import Training, Weights
from ..run_folder.layout import TRAINING_FILE
from ..run_folder.lock import only_run_in
from ..run_folder.occupied import refuse_occupied
from ..run_folder.step_folder import StepFolder
from ..training.checks import check_training_arguments
from ..training.optimizer_checks import refuse_unusable_optimizer
from .curves import describe_labels, draw_curves, label_agreement, masked_accuracy, summarise
from .distillation import START_FOLDER, Distillation
from .filters import begin_with_mel_filters
from .mfcc import LAYER, mfcc_extraction
from .recipe import IterationSpec, PretrainRecipe, check_pretraining_names
from .speech import divide_speech
from .teacher_states import TeacherStates, add_paths

DEFAULT_ARGUMENTS: Mapping[str, Any] = {
    "freeze_feature_encoder": False,
    "learning_rate": 5e-4,
    "num_train_epochs": 10,
    "warmup_steps": 0.08,
    "weight_decay": 0.01,
    "batch_seconds": 60.0,
}
"""Rate, warm-up share and decay of HuBERT base (fairseq); the length and the batch are for two CPU cores."""

REPORT_FILE = "report.json"
CURVES_FILE = "curves.png"
MASKED_FILE = "masked_frames.json"
MODEL_FOLDER = "model"
STATES_FOLDER = "_teacher-states"


def run_pretraining(
    recipe: PretrainRecipe | str | os.PathLike[str],
    output_dir: str | os.PathLike[str] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Pre-train as a recipe says, or do whatever of it is not finished yet.

    Args:
        recipe: The recipe, its file, or the name of a packaged one.
        output_dir: Folder of the run; `runs/<name>` by default. `model/` in it is the finished encoder.
        command: What to name in the report as the command behind its numbers.

    Returns:
        The report, as in `report.json`.

    Raises:
        RequestError: The request is wrong; nothing has been trained.
    """
    if not isinstance(recipe, PretrainRecipe):
        recipe = PretrainRecipe.from_yaml(recipe)
    folder = Path(output_dir or Path("runs", recipe.name))
    refuse_occupied(folder, "pre-training", [corpus.root for corpus in recipe.corpus])
    with only_run_in(folder, join_processes()):
        return _Pretraining(recipe, folder, command or f"run_pretraining({recipe.name})").perform()


@dataclass(frozen=True)
class _Iteration:
    """The two steps of one iteration."""

    number: int
    spec: IterationSpec
    labels: StepFolder
    training: StepFolder
    fields: Mapping[str, Any]
    arguments: Mapping[str, Any]
    distillation: Distillation | None

    @property
    def model_class(self) -> type[GMPATLPreTrainedModel]:
        """Class of the model."""
        return HubertForGMPATLFrameClassification if self.distillation is None else self.distillation.model_class

    @property
    def regression(self) -> bool:
        """Whether the teacher's states are learned, in place of clusters."""
        return self.distillation is not None and self.distillation.regression


class _Pretraining:
    """One call of `run_pretraining`: checked and planned on construction."""

    def __init__(self, recipe: PretrainRecipe, output_dir: Path, command: str) -> None:
        self.recipe, self.output_dir, self.command = recipe, output_dir, command
        self.state = join_processes()
        self.backbone = describe_backbone(recipe.backbone)
        self.base = backbone_fields(self.backbone)
        if (kind := self.base.get("encoder_type", HUBERT)) != HUBERT:
            raise RequestError(f"backbone {recipe.backbone} is a {kind} encoder", "a HuBERT to go on with",
                               "another encoder can be the `teacher`")  # fmt: skip
        self._check_settings()
        self.distillations = [
            self._distillation(number, spec) for number, spec in enumerate(recipe.iterations, start=1)
        ]
        self.corpus = self._read()
        self.speech = divide_speech(self.corpus.table, recipe.data, recipe.seed)
        self.recordings = Recordings(self.corpus.table, self.corpus.digests)
        self.ids = [*self.speech.train["id"], *self.speech.dev["id"]]
        self.iterations = self._plan()
        self._stores: dict[int, Mapping[int, FeatureStore]] = {}  # iteration → where its teacher's states are
        for step in (*self.steps, self.model):
            step.refuse_contradiction()
        made = any(step.finished or step.begun for one in self.iterations for step in (one.labels, one.training))
        self.notes = refuse_changed(self.corpus.index.changes(self.corpus.table), self.ids if made else (), output_dir)

    # ---- the request ---------------------------------------------------------------------------------------

    def _check_settings(self) -> None:
        check_pretraining_names(self.recipe)
        if self.recipe.teacher_states is not None:
            fix = "leave it out: the run's folder keeps them"
            refuse_no_folder(Path(self.recipe.teacher_states), "teacher_states", fix)
        shapes = encoder_shapes(GMPATLConfig(**self.base))
        for number, spec in enumerate(self.recipe.iterations, start=1):
            try:
                config = GMPATLConfig(**{**self.base, **self._fields({})})
                # Whichever frames are learned, those that are masked are what the report counts.
                regression = spec.objective == "regression"
                if not config.masks_time and not (regression and config.frame_targets == "all"):
                    raise ValueError("no frame would be masked, so there would be nothing to predict")
                if encoder_shapes(config) != shapes:
                    raise ValueError("fields under `model` change the shape of the encoder; they belong to `backbone`")
                for layer in spec.layers if spec.features == "hidden-states" else ():
                    config.resolve_layer(layer)
                arguments = make_arguments(Path("unused"), 0, self._arguments(spec), evaluate=True)
                check_training_arguments(arguments, frame_labels=True, emotions=config.num_emotions)
                refuse_unusable_optimizer(arguments)
            except RequestError as error:
                raise RequestError(f"iteration {number}: {error.found}", error.expected, error.fix) from error
            except (ValueError, TypeError) as error:
                raise RequestError(
                    f"iteration {number}: {error}", "settings that fit the backbone", "see `model` and `iterations`"
                ) from error

    def _distillation(self, number: int, spec: IterationSpec) -> Distillation | None:
        if spec.features != "teacher":
            return None
        with errors_of(f"iteration {number}"):
            return Distillation.of(spec, GMPATLConfig(**self.base), bool(self._arguments(spec).get("bf16")))

    def _read(self) -> Corpus:
        entries = [
            {"name": spec.name, "root": spec.root, "short_clips": self.recipe.data.short_clips, **spec.options}
            for spec in self.recipe.corpus
        ]
        with self.state.main_process_first():
            return read_corpora(entries, index=self.output_dir)

    def _fields(self, scales: Mapping[str, int], layers: int | None = None) -> dict[str, Any]:
        """`GMPATLConfig` fields of an iteration, with as many layers as the student has in it."""
        fields = {**MODEL_CLASSES["retrain"].method_defaults, **self.recipe.model, "frame_scales": dict(scales)}
        return fields if layers is None else {**fields, "num_hidden_layers": layers}

    def _arguments(self, spec: IterationSpec) -> dict[str, Any]:
        length = {"max_seconds": self.recipe.data.max_seconds}
        return {**DEFAULT_ARGUMENTS, **length, **self.recipe.arguments, **spec.arguments}

    # ---- the plan ------------------------------------------------------------------------------------------------

    @property
    def steps(self) -> list[StepFolder]:
        """Every step, in order."""
        pairs = [step for one in self.iterations for step in (one.labels, one.training)]
        return [self.start, *pairs] if "scratch" in self.backbone else pairs

    @property
    def start(self) -> StepFolder:
        """The untrained backbone."""
        inputs = {"step": "backbone", "config": self.base, "seed": self.recipe.seed}
        inputs |= {} if self.recipe.filters == "random" else {"filters": self.recipe.filters}
        return StepFolder(self.output_dir / "backbone", inputs)

    @property
    def model(self) -> StepFolder:
        """The finished encoder."""
        weights = self.iterations[-1].training.key
        inputs = {"step": MODEL_FOLDER, "weights": weights, "precision": self.recipe.precision}
        return StepFolder(self.output_dir / MODEL_FOLDER, inputs)

    @property
    def begin(self) -> str | Path:
        """Folder or Hub id of the weights that the first iteration starts from."""
        return self.start.path if "scratch" in self.backbone else str(self.recipe.backbone)

    def _plan(self) -> list[_Iteration]:
        recipe = self.recipe
        config = GMPATLConfig(**self.base)
        data = {"rows": combine(self.recordings.fingerprints, self.ids), "dev_rows": len(self.speech.dev)}
        before: Mapping[str, Any] = {"key": self.start.key} if "scratch" in self.backbone else self.backbone
        backbone, planned = before, []
        for number, spec in enumerate(recipe.iterations, start=1):
            folder = self.output_dir / f"iteration-{number}"
            distillation = self.distillations[number - 1]
            if distillation is not None:
                layers = list(distillation.layers)
            else:
                layers = [LAYER] if spec.features == "mfcc" else [config.resolve_layer(each) for each in spec.layers]
            scales = {column_name(layer, k): k for layer in layers for k in spec.clusters}
            regression = distillation is not None and distillation.regression
            if distillation is not None and regression:
                scales = distillation.widths
            fields = self._fields(scales, spec.student_layers)
            start = backbone if spec.start == "scratch" else before
            inputs: dict[str, Any] = {
                "step": "frame-labels",
                "data": data,
                "features": spec.features,
                "source": None if spec.features == "mfcc" else before if distillation is None else distillation.inputs,
                "frames": [list(config.conv_kernel), list(config.conv_stride)],
                "scales": scales,
                "sample_frames": recipe.sample_frames,
                "seed": recipe.seed,
            }
            if distillation is not None:
                inputs |= {"start": start, "model": fields}
            labels = StepFolder(folder / ("1-teacher-states" if regression else "1-frame-labels"), inputs)
            arguments = self._arguments(spec)
            training = StepFolder(
                folder / "2-training",
                {
                    "step": "training",
                    "labels": labels.key,
                    "start": start,
                    "model": fields,
                    "arguments": without_trackers(arguments),
                    "seed": recipe.seed,
                    **({"copied_rate": spec.copied_rate} if spec.start == "teacher" else {}),
                },
                {"processes": self.state.num_processes},
            )
            planned.append(_Iteration(number, spec, labels, training, fields, arguments, distillation))
            before = {"key": training.key}
        return planned

    # ---- the work ------------------------------------------------------------------------------------------------

    def perform(self) -> dict[str, Any]:
        """Do every step that is not finished, then write the encoder and the report."""
        left = [step for step in [*self.steps, self.model] if not step.finished]
        if self.state.is_main_process:
            tqdm.write("".join(f"Note: {note}\n" for note in self.notes), end="")
            with read_only_is_fine(not left):
                remove_half_written(self.output_dir)
                write_known(self.output_dir, {"recipe.yaml": self.recipe.to_yaml()})
                write_left_out(self.output_dir, [*self.corpus.left_out, *self.speech.left_out])
                self.corpus.index.save()
        if "scratch" in self.backbone and not self.start.finished:
            with self.start.work(self.state) as folder:
                save_scratch_backbone(self.base, self.recipe.seed, folder)
                if self.recipe.filters == "mel":
                    begin_with_mel_filters(folder)
        for iteration in self.iterations:
            self._label(iteration)
            self._train(iteration)
        if self.model.finished:
            check_files(self.model.path)  # it is what people take away
        else:
            with self.model.work(self.state) as folder:
                if self.state.is_main_process:
                    self._save_encoder(folder)
        place = self.output_dir / REPORT_FILE
        # A report made again may be made on another machine than the trainings.
        environment = describe_environment() if left or not place.is_file() else read_json(place)["environment"]
        report = self._report(environment)
        if self.state.is_main_process:
            with read_only_is_fine(not left):
                write_known(self.output_dir, {REPORT_FILE: json_of(report)})
                if can_draw():
                    write_known(self.output_dir, {CURVES_FILE: draw_curves(report)})
                else:
                    tqdm.write(NO_MATPLOTLIB)
            tqdm.write(summarise(report) if left else "All steps were finished before; nothing was left to do.")
            tqdm.write(f"Encoder: {self.output_dir / MODEL_FOLDER}, report: {self.output_dir / REPORT_FILE}")
        self.state.wait_for_everyone()
        return report

    def _label(self, iteration: _Iteration) -> None:
        if iteration.labels.finished:
            return
        spec, recipe = iteration.spec, self.recipe
        description = f"iteration {iteration.number}"
        train, dev = self.speech.train, self.speech.dev
        distillation = iteration.distillation
        with iteration.labels.work(self.state) as folder, self.recordings.unchanged(folder), errors_of(description):
            if distillation is not None:
                states = self._compute_states(iteration)
                self._stores[iteration.number] = states.stores
                if not distillation.regression:
                    self._cluster(folder, states.extraction(distillation.student), spec, description)
                start = self._start(iteration)
                distillation.make_start(folder, states, train, start, self.begin, iteration.fields, recipe.seed)
            elif spec.features == "mfcc":
                self._cluster(folder, mfcc_extraction(GMPATLConfig(**self.base)), spec, description)
            else:
                how = PseudoLabelSpec(spec.layers, spec.clusters, "backbone", recipe.sample_frames, recipe.seed)
                source = self._before(iteration)
                model_class = HubertForGMPATLFrameClassification
                make_pseudo_labels(folder, model_class, source, how, train, dev, description)

    def _cluster(self, folder: Path, extraction: FeatureExtraction, spec: IterationSpec, description: str) -> None:
        """Cluster features of another kind as step 2 of the method clusters hidden states."""
        kmeans, frames = MultiScaleKMeans(spec.clusters, self.recipe.seed), self.recipe.sample_frames
        cluster_and_label(folder, extraction, kmeans, frames, self.speech.train, self.speech.dev, description)

    def _train(self, iteration: _Iteration) -> None:
        if iteration.training.finished:
            return
        labels, distillation = iteration.labels.path, iteration.distillation
        with ExitStack() as stack:
            folder = stack.enter_context(iteration.training.work(self.state))
            stack.enter_context(self.recordings.unchanged(folder))
            labelled: Callable[[datasets.Dataset], datasets.Dataset]
            if iteration.regression:
                # Where the labels were made by an earlier call, the teacher has to say once more where its states are.
                stores = self._stores.get(iteration.number) or self._compute_states(iteration).stores
                labelled = partial(add_paths, stores)
            else:
                labelled = stack.enter_context(pseudo_labels_of(labels, folder))
            task = Training(
                step="training",
                model_class=iteration.model_class,
                start=Weights(labels / START_FOLDER if distillation is not None else self._start(iteration)),
                backbone=Weights(self.begin),
                fields=iteration.fields,
                arguments=iteration.arguments,
                data={},  # the key is that of the iteration
                train=labelled(self.speech.train),
                dev=labelled(self.speech.dev),
                seed=self.recipe.seed,
                description=f"iteration {iteration.number}",
                also_seen=() if distillation is None else distillation.facts.seen_speakers,
                trainer=None if distillation is None else distillation.trainer,
            )
            train(folder, task)
            if iteration.regression:
                return
            # Kept in the step, so that a later report need not evaluate again.
            right = masked_accuracy(folder, labelled(self.speech.dev), self.recipe.seed)
            if self.state.is_main_process:
                write_json(folder / MASKED_FILE, right)

    def _compute_states(self, iteration: _Iteration) -> TeacherStates:
        assert iteration.distillation is not None
        folder = Path(self.recipe.teacher_states or self.output_dir / STATES_FOLDER)
        name = f"iteration {iteration.number}"
        tables = {name: self.speech.train, f"{name}, development": self.speech.dev}
        return iteration.distillation.compute_states(folder, tables)

    def _start(self, iteration: _Iteration) -> str | Path:
        return self.begin if iteration.spec.start == "scratch" else self._before(iteration)

    def _before(self, iteration: _Iteration) -> str | Path:
        return self.begin if iteration.number == 1 else self.iterations[iteration.number - 2].training.path

    # ---- what comes of it ----------------------------------------------------------------------------------------

    def _save_encoder(self, folder: Path) -> None:
        """Write the bare HuBERT, without the frame heads, as any HuBERT checkpoint is stored."""
        last = self.iterations[-1]
        model = load_model(last.model_class, last.training.path, self.recipe.seed)
        # The speakers it was trained on keep the names that its corpus gave them.
        config = HubertConfig(**{**self.base, "seen_speakers": model.config.seen_speakers})
        encoder = HubertModel(config)
        encoder.load_state_dict(model.hubert.state_dict(), strict=False)
        with quiet_transformers():
            encoder.to(getattr(torch, self.recipe.precision)).save_pretrained(folder)
        load_feature_extractor(self.begin).save_pretrained(folder)

    def _report(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        table, info, speech = self.corpus.table, self.corpus.info, self.speech
        iterations, previous = [], None
        for iteration in self.iterations:
            training = read_json(iteration.training.path / TRAINING_FILE)
            entry = {
                "iteration": iteration.number,
                "features": iteration.spec.features,
                "start": iteration.spec.start,
                "updates": training["updates"],
                "log": training["log"],
            }
            scales, distillation = iteration.fields["frame_scales"], iteration.distillation
            if distillation is not None:
                entry["teacher"] = {
                    "name": distillation.facts.name,
                    **distillation.inputs,
                    "copied_layers": distillation.copied,
                }
            if iteration.regression:
                evaluations = [row for row in training["log"] if "eval_loss" in row]
                entry["cosines"] = {name: evaluations[-1][f"eval_accuracy_{name}"] for name in scales if evaluations}
                iterations.append(entry)
                previous = None
                continue
            entry["masked_frames_right"] = read_json(iteration.training.path / MASKED_FILE)
            entry["labels"] = describe_labels(iteration.labels.path, scales)
            if previous is not None:
                entry["agreement_with_labels_before"] = label_agreement(previous.labels.path, iteration.labels.path)
            iterations.append(entry)
            previous = iteration
        return {
            "name": self.recipe.name,
            "command": self.command,
            "seed": self.recipe.seed,
            "frame_targets": GMPATLConfig(**self._fields({})).frame_targets,
            "processes": self.state.num_processes,
            "seconds": sum(read_json(step.path / "step.json")["seconds_since_last_start"] for step in self.steps),
            "environment": environment,
            "corpus": {"name": info.name, "licence": info.licence, "recordings": len(table)},
            "speech": speech.sizes(),
            "left_out": len(self.corpus.left_out) + len(speech.left_out),
            "iterations": iterations,
        }
