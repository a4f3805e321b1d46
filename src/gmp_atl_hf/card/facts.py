"""What a run's folder tells about the model it ships: nothing here needs the corpus or a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ..checkpoints import load_emotion_model, load_feature_extractor
from ..errors import RequestError
from ..evaluation.results import is_speaker_independent
from ..files import STEP_FILE, check_files, read_json
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..recipe.method import Method
from ..recipe.recipe import Recipe
from ..run_folder.layout import MODEL, REPORT_FILE, USAGE_FILE, RunFolder, refuse_pretraining
from ..run_folder.step_folder import UNFINISHED, StepFolder


@dataclass(frozen=True)
class RunFacts:
    """A finished run, as far as its model's card needs it.

    Args:
        folder: The run's folder.
        report: Contents of `report.json`.
        recipe: The run's recipe.
        method: The method of the model's variant.
        variant: The variant that the model comes from.
        seed: The seed that the model comes from.
        cross_validated: Whether the model was trained on all speakers after cross-validation, and so is untested.
        config: The model's configuration.
        parameters: Number of the model's weights.
        temperatures: That of each fold, fitted on its development speakers; none without such speakers.
        usage: What the executed example showed; None where it was not executed.
        seconds: Computing time of the trainings and clusterings of this variant, as their steps noted it.
        steps: Number of these steps.
    """

    folder: Path
    report: Mapping[str, Any]
    recipe: Recipe
    method: Method
    variant: str
    seed: int
    cross_validated: bool
    config: GMPATLConfig
    parameters: int
    temperatures: tuple[float, ...]
    usage: Mapping[str, Any] | None
    seconds: float
    steps: int

    @property
    def summary(self) -> Mapping[str, Any]:
        """The variant's figures in the report."""
        summary: Mapping[str, Any] = self.report["variants"][self.variant]
        return summary

    @property
    def chosen(self) -> Method:
        """The method with what the model's fine-tuning was set to where values were searched."""
        if not self.method.search:
            return self.method
        return self.method.candidate(read_json(self.model / STEP_FILE)["inputs"]["settings"])

    @property
    def speaker_independent(self) -> bool:
        """Whether the figures are of speakers who were not trained on."""
        return is_speaker_independent(self.report["protocol"])

    @property
    def units(self) -> str:
        """What the parts of a fold do not share."""
        return "speakers" if self.speaker_independent else "recordings"

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return RunFolder(self.folder).model


def read_run(folder: Path) -> RunFacts:
    """Read what a run has left; a `RequestError` where it is no run's folder, or has no final model yet."""
    run = RunFolder(folder)
    model = run.model
    refuse_without_model(folder)
    check_files(model)
    check_files(folder, run.recipe.name)
    step = read_json(model / STEP_FILE)["inputs"]
    report = read_json(run.report)
    recipe = Recipe.from_yaml(run.recipe)
    usage = model / USAGE_FILE
    config = load_emotion_model(str(model)).config  # the whole model, so that no damaged one is described or sent
    load_feature_extractor(model)
    times = list(_step_seconds(run, step["variant"]))
    return RunFacts(
        folder=folder,
        report=report,
        recipe=recipe,
        method=recipe.method(step["variant"]),
        variant=step["variant"],
        seed=step["seed"],
        cross_validated=len(step["temperature_from"]) > 1,
        config=config,
        parameters=_count_parameters(model),
        temperatures=tuple(_temperatures(run, step["variant"], report["variants"][step["variant"]])),
        usage=read_json(usage) if usage.is_file() else None,
        seconds=sum(times),
        steps=len(times),
    )


def refuse_without_model(folder: Path) -> None:
    """Refuse a folder that is not that of a run with a final model: what is missing, and how to get it."""
    fix = "gmp-atl run RECIPE makes one"
    if not folder.is_dir():
        raise RequestError(f"there is no folder {folder}", "the folder of a run, such as runs/demo", fix)
    refuse_pretraining(folder)
    if not RunFolder(folder).recipe.is_file():
        above = folder.resolve().parent
        if RunFolder(above).recipe.is_file():
            fix = f"give {above}"
        raise RequestError(f"{folder} is not the folder of a run: it has no recipe.yaml", "such as runs/demo", fix)
    missing = [name for name in (f"{MODEL}/{STEP_FILE}", REPORT_FILE) if not (folder / name).is_file()]
    if missing:
        raise RequestError(
            f"the run in {folder} has no final model yet: {' and '.join(missing)} missing",
            "a run that is finished, with `final: true` and all folds of its first variant and seed",
            f"gmp-atl run {RunFolder(folder).recipe} --output-dir {folder}",
        )


def _temperatures(run: RunFolder, variant: str, summary: Mapping[str, Any]) -> Iterator[float]:
    """Temperatures of the folds that the report's figures are made of."""
    for seed, fold in ((seed, one["fold"]) for seed in summary["seeds"] for one in summary["per_fold"]):
        temperature = read_json(run.fold(variant, seed, fold).metrics).get("temperature")
        if temperature is not None:
            yield temperature


def _step_seconds(run: RunFolder, variant: str) -> Iterator[float]:
    """Seconds of each step of a variant; one that another variant has performed counts too, once."""
    seen = set()
    for folder in run.steps(variant):
        if folder.suffix == UNFINISHED:
            continue
        step = StepFolder(folder, {}).resolve()
        if not (step / STEP_FILE).is_file():
            raise RequestError(
                f"the step {step} has no {STEP_FILE}, which says how long it took",
                "every step of the variant as the run wrote it",
                "put the file back, or delete that folder and run the recipe again, which repeats the step",
            )
        if step not in seen:
            seen.add(step)
            yield float(read_json(step / STEP_FILE)["seconds_since_last_start"])


def _count_parameters(model: Path) -> int:
    count = 0
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, "np") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                count += int(np.prod(weights.get_slice(name).get_shape(), dtype=np.int64))
    return count
