"""The model to ship: the fold's own, or one trained on every speaker after cross-validation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..card.card import write_model_card
from ..card.facts import MODEL, USAGE_FILE
from ..card.usage import write_usage
from ..checkpoints import load_feature_extractor, load_model, quiet_transformers
from ..errors import RequestError
from ..evaluation.calibration import fit_temperature
from ..files import check_files, read_jsonl
from ..modeling.modeling_gmp_atl import HubertForGMPATL
from ..protocols.fold import Fold
from ..protocols.leakage import NOTHING_TESTED, Untouched
from ..run_folder.step_folder import STEP_FILE, StepFolder, read_json
from .fold_plan import PlannedFold
from .search import choose_for_all, dev_logits_of
from .stages import STEP_NAMES
from .steps import DEV_LOGITS_FILE, TRAINING_FILE

if TYPE_CHECKING:
    from .run import Run

ALL_SPEAKERS = "all-speakers"


def ship_final_model(run: Run) -> str:
    """Make `model/` from the first variant and seed, once all its folds are done.

    With a single fold it is that fold's model. After cross-validation the method is applied once more to every speaker,
    each training for the median best step of the folds; that very model has no test speakers left, and its card says
    so. The temperature is the one that minimises the log loss over the folds' development logits, each scored by its
    own fold's model.

    Args:
        run: The run, its folds performed.

    Returns:
        What to tell the user.
    """
    variant, seed, folds = _folds(run)
    missing = [planned.fold.number for planned in folds if not run.tested(planned)]
    if missing:
        return (
            f"No final model yet: it needs all {len(folds)} folds of {variant}, seed {seed}; {len(missing)} are left."
        )
    chosen = folds[0]
    if len(folds) > 1:
        chosen = _plan_all_speakers(run, variant, seed, folds)
        for step in chosen.steps:
            step.folder.refuse_contradiction()
        run.perform_fold(chosen, test=False)
    searched = {"settings": _settings(run, folds)} if run.recipe.search else {}
    folder = StepFolder(run.output_dir / MODEL, {**_known_inputs(run), "weights": chosen.finetune.key, **searched})
    folder.refuse_contradiction()
    if folder.finished:
        check_files(folder.path)  # it is what people take away
        run.found.add(folder.path)
    else:
        run.begin_work()
        with folder.work(run.state) as working:
            if run.state.is_main_process:
                _write_model(run, working, chosen, folds)
        run.made.add(folder.path)
    return f"Model: {folder.path}"


def describe_final_model(run: Run) -> None:
    """Write the card of a finished model, or bring it up to date with the report; without a model do nothing.

    The card's example is executed once for each model. The rest costs no computing, so every run may do it.

    Args:
        run: The run, its report written.
    """
    model = run.output_dir / MODEL
    if not (model / STEP_FILE).is_file():
        return
    try:
        read_json(model / USAGE_FILE)
    except RequestError:  # not there yet, or damaged
        variant, seed, folds = _folds(run)
        row = folds[0].test[0]
        write_usage(model, row, run.labels[row["emotion"]], trained_on=len(folds) > 1)
    write_model_card(run.output_dir)


def refuse_other_model(run: Run) -> None:
    """Refuse, before anything is trained, a finished model of another variant or seed, or of other folds.

    Args:
        run: The run, its folds planned.

    Raises:
        RequestError: Names what has changed.
    """
    finished = run.output_dir / MODEL / STEP_FILE
    # The weights' key is known only once the folds are done; it follows from the rest.
    before = read_json(finished)["inputs"] if finished.is_file() else {}
    StepFolder(finished.parent, {**before, **_known_inputs(run)}).refuse_contradiction()


def _folds(run: Run) -> tuple[str, int, list[PlannedFold]]:
    """First variant, first seed, and their folds."""
    variant, seed = run.recipe.variant_names[0], run.recipe.seeds[0]
    return variant, seed, [each for each in run.planned if each.variant == variant and each.seed == seed]


def _known_inputs(run: Run) -> dict[str, Any]:
    variant, seed, folds = _folds(run)
    keys = [planned.finetune.key for planned in folds]
    return {"step": MODEL, "variant": variant, "seed": seed, "temperature_from": keys}


def _plan_all_speakers(run: Run, variant: str, seed: int, folds: Sequence[PlannedFold]) -> PlannedFold:
    everyone = tuple(dict.fromkeys(run.corpus.table["speaker"]))
    stops: dict[str, int] = {
        stage: round(statistics.median(_best_step(planned, STEP_NAMES[stage]) for planned in folds))
        for stage in run.variants[variant].stages.performed
        if stage != "retrain"
    }
    recipe = run.variants[variant]
    if recipe.search:
        overrides, best_steps = choose_for_all(_finetuned(folds))
        recipe, stops["finetune"] = recipe.candidate(overrides), round(statistics.median(best_steps))
    fold = Fold(number=0, train=everyone, dev=(), test=())
    return run.planner.plan(variant, recipe, seed, fold, ALL_SPEAKERS, stops)


def _finetuned(folds: Sequence[PlannedFold]) -> list[Path]:
    return [planned.finetune.resolve() for planned in folds]


def _settings(run: Run, folds: Sequence[PlannedFold]) -> dict[str, Any] | None:
    """What the folds' searches were best with, together; with one fold that is its own choice."""
    return choose_for_all(_finetuned(folds))[0] if run.recipe.search else None


def _best_step(planned: PlannedFold, step: str) -> int:
    best: int = read_json(planned.step(step).resolve() / TRAINING_FILE)["best_step"]
    return best


def _write_model(run: Run, folder: Path, chosen: PlannedFold, folds: Sequence[PlannedFold]) -> None:
    source = chosen.finetune.resolve()
    model = load_model(HubertForGMPATL, source, seed=0, whole=True)
    model.config.logit_temperature = development_temperature(run, folds) or 1.0
    with quiet_transformers():
        model.save_pretrained(folder)
    load_feature_extractor(source).save_pretrained(folder)


def development_temperature(
    run: Run, folds: Sequence[PlannedFold], untouched: Untouched = NOTHING_TESTED
) -> float | None:
    """Fit the temperature on development logits, each scored by its own fold's model.

    Args:
        run: The run.
        folds: One fold or several, their fine-tuning done.
        untouched: What will be scored at this temperature; development speakers of one fold are the test of another.

    Returns:
        The temperature; None without development speakers: there is nothing honest to calibrate on.

    Raises:
        RequestError: A test speaker is among those that the temperature would be fitted on.
    """
    number = {label: index for index, label in enumerate(run.labels)}
    speaker_of = dict(zip(run.corpus.table["id"], run.corpus.table["speaker"], strict=True))
    rows = []
    # One fold is scored by the model that it chose, all together by a model of the settings that were best on average.
    shared = _settings(run, folds) if len(folds) > 1 else None
    for planned, folder in zip(folds, _finetuned(folds), strict=True):
        file = folder / DEV_LOGITS_FILE if shared is None else dev_logits_of(folder, shared)
        check_files(folder, file.name)
        own = read_jsonl(file) if file.is_file() else []
        for tested in (planned.untouched, untouched):
            tested.refuse_recordings((row["id"] for row in own), "calibration")
            tested.refuse_speakers((speaker_of[row["id"]] for row in own), "calibration would hear")
        rows += own
    if not rows:
        return None
    logits = np.asarray([row["logits"] for row in rows])
    return fit_temperature(logits, [number[row["emotion"]] for row in rows])
