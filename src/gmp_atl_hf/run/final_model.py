"""The model to ship: the fold's own, or one trained on every speaker after cross-validation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..card.card import write_model_card
from ..card.usage import write_usage
from ..checkpoints import (
    heard_recordings,
    load_feature_extractor,
    load_model,
    quiet_transformers,
    write_heard_recordings,
)
from ..errors import RequestError, counted
from ..files import STEP_FILE, check_files, read_json, remember
from ..modeling.adapters_gmp_atl import ADAPTER_MODEL_CONFIG
from ..modeling.modeling_gmp_atl import HubertForGMPATL
from ..protocols.fold import Fold
from ..run_folder.layout import ADAPTER, ALL_SPEAKERS, MODEL, TRAINING_FILE, USAGE_FILE
from ..run_folder.step_folder import StepFolder
from .final_length import best_epoch, stop_at_step, stop_like
from .fold_plan import PlannedFold, PlannedStep
from .perform import Worker
from .plan import RunPlan
from .search import choose_for_all
from .temperature import development_temperature, shared_settings


def ship_final_model(worker: Worker) -> str:
    """Make `model/` from the first variant and seed, once all its folds are done.

    With a single fold it is that fold's model. After cross-validation the method is applied once more to every speaker,
    each training for the median best epoch of the folds, or its whole length if its last step is kept; that very model
    has no test speakers left, and its card says so. The temperature is the one that minimises the log loss over the
    folds' development logits, each scored by its own fold's model.

    Returns:
        What to tell the user.
    """
    plan = worker.plan
    variant, seed, folds = _folds(plan)
    if missing := _untested(worker):
        return (
            f"No final model yet: it needs all {counted(len(folds), 'fold')} of {variant}, seed {seed}; "
            f"{counted(len(missing), 'is', 'are')} left."
        )
    chosen = folds[0]
    if len(folds) > 1:
        chosen = _plan_all_speakers(plan, variant, seed, folds)
        for step in chosen.steps:
            step.folder.refuse_contradiction()
        worker.perform_fold(chosen, test=False)
    settings = {"settings": shared_settings(plan, folds)} if plan.recipe.search else {}
    folder = StepFolder(plan.folder.model, {**_known_inputs(plan), "weights": chosen.finetune.key, **settings})
    folder.refuse_contradiction()
    if folder.finished:
        check_files(folder.path)  # it is what people take away
        worker.found.add(folder.path)
    else:
        worker.record_environment()
        with folder.work(worker.processes) as working:
            if worker.processes.is_main_process:
                _write_model(plan, working, chosen, folds)
        worker.made.add(folder.path)
    return f"Model: {folder.path}"


def is_final_model_due(worker: Worker) -> bool:
    """Whether all is there that a final model needs, and it has not been made."""
    return not _untested(worker) and not (worker.plan.folder.model / STEP_FILE).is_file()


def _untested(worker: Worker) -> list[PlannedFold]:
    """The folds that have to be tested before there can be a model."""
    return [planned for planned in _folds(worker.plan)[2] if not worker.tested(planned)]


def describe_final_model(plan: RunPlan) -> None:
    """Write the card of a finished model, or bring it up to date with the report; without a model do nothing.

    The card's example is executed once for each model. The rest costs no computing, so every run may do it.
    """
    model = plan.folder.model
    if not (model / STEP_FILE).is_file():
        return
    try:
        read_json(model / USAGE_FILE)
    except RequestError:  # not there yet, or damaged
        _, _, folds = _folds(plan)
        row = folds[0].test[0]
        write_usage(model, row, plan.labels[row["emotion"]], trained_on=len(folds) > 1)
    write_model_card(plan.folder.path)


def refuse_other_model(plan: RunPlan) -> None:
    """Refuse, before anything is trained, a finished model of another variant or seed, or of other folds."""
    finished = plan.folder.model / STEP_FILE
    # The weights' key is known only once the folds are done; it follows from the rest.
    before, now = read_json(finished)["inputs"] if finished.is_file() else {}, _known_inputs(plan)
    if any(before.get(name, now[name]) != now[name] for name in ("variant", "seed")):
        raise RequestError(
            f"{finished.parent} is the model of {before['variant']}, seed {before['seed']}; the first variant of this "
            f"recipe is {now['variant']}, its first seed {now['seed']}",
            "a model of the first variant and the first seed, which is the one to ship",
            f"list the variant {before['variant']} and the seed {before['seed']} first, add --set final=false, "
            "or choose another --output-dir",
        )
    StepFolder(finished.parent, {**before, **now}).refuse_contradiction()


def _folds(plan: RunPlan) -> tuple[str, int, list[PlannedFold]]:
    """First variant, first seed, and their folds."""
    variant, seed = plan.recipe.variant_names[0], plan.recipe.seeds[0]
    return variant, seed, plan.of(variant, seed)


def _known_inputs(plan: RunPlan) -> dict[str, Any]:
    variant, seed, folds = _folds(plan)
    keys = [planned.finetune.key for planned in folds]
    return {"step": MODEL, "variant": variant, "seed": seed, "temperature_from": keys}


def _plan_all_speakers(plan: RunPlan, variant: str, seed: int, folds: Sequence[PlannedFold]) -> PlannedFold:
    recipe = plan.variants[variant]
    found = {
        stage: [_best(planned, stage) for planned in folds]
        for stage in recipe.stages.performed
        if stage != "retrain" and not getattr(recipe.stages, stage).keeps_last_step
    }
    if recipe.search:
        overrides, of_these = choose_for_all([planned.finetune.resolve() for planned in folds])
        recipe = recipe.candidate(overrides)
        found.pop("finetune", None)
        if not recipe.stages.finetune.keeps_last_step:
            found["finetune"] = of_these
    everyone = tuple(dict.fromkeys(plan.corpus.table["speaker"]))
    fold = Fold(number=0, train=everyone, dev=(), test=())
    by_epochs, by_steps = (
        plan.planner.plan(
            variant, recipe, seed, fold, ALL_SPEAKERS, {stage: length(best) for stage, best in found.items()}
        )
        for length in (stop_like, stop_at_step)
    )
    # What an older version has made stays as it is, and its next steps follow from it.
    return by_steps if found and any(map(_is_made, by_steps.steps)) else by_epochs


def _is_made(step: PlannedStep) -> bool:
    """Whether a training of a given number of steps is finished."""
    folder = step.folder
    return "stop_at" in folder.inputs and folder.finished and read_json(folder.path / STEP_FILE)["key"] == folder.key


def _best(planned: PlannedFold, stage: str) -> dict[str, Any]:
    step = planned.find(stage)
    assert step is not None
    training = read_json(step.resolve() / TRAINING_FILE)
    return {"best_step": training["best_step"], "best_epoch": best_epoch(training)}


def _write_model(plan: RunPlan, folder: Path, chosen: PlannedFold, folds: Sequence[PlannedFold]) -> None:
    source = chosen.finetune.resolve()
    model = load_model(HubertForGMPATL, source, seed=0, whole=True)
    model.config.logit_temperature = development_temperature(plan, folds) or 1.0
    with quiet_transformers():
        model.save_pretrained(folder)
    load_feature_extractor(source).save_pretrained(folder)
    write_heard_recordings(folder, heard_recordings(source))
    if (source / ADAPTER).is_dir():
        shutil.copytree(source / ADAPTER, folder / ADAPTER, dirs_exist_ok=True)
        model.config.to_json_file(folder / ADAPTER / ADAPTER_MODEL_CONFIG)  # with its temperature
        remember(folder / ADAPTER, (folder / ADAPTER).iterdir())
