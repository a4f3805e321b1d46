"""Fine-tuning with several settings in one fold, of which the fold's development speakers choose one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..errors import RequestError
from ..files import read_json, write_json
from ..run_folder.layout import DEV_LOGITS_FILE, TRAINING_FILE
from ..run_folder.step_folder import StepFolder
from .final_length import best_epoch

CANDIDATES = "candidates"
SEARCH_FILE = "search.json"

EVALUATIONS = (
    "num_train_epochs",
    "max_steps",
    "average_epochs",
    "load_best_model_at_end",
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "early_stopping_patience",
)
"""Settings of a training that change how often it is evaluated, or of how many evaluations the best is kept."""


@dataclass(frozen=True)
class Candidate:
    """One combination of settings."""

    overrides: Mapping[str, Any]
    """Dotted path to value, what sets it apart from the others."""

    train: Callable[[Path], None]
    """Trains with it into the folder given, and goes on where it was cut off."""


def train_candidates(folder: Path, candidates: Sequence[Candidate]) -> None:
    """Fine-tune with each combination, keep the model with the highest development UAR, the first among equals.

    Written: what a training writes, of the one that was chosen, and `search.json` (chosen, counted from 0, and for each
    candidate its overrides, best step and epoch, and development UAR). Of the others their development logits alone are
    kept.

    Args:
        folder: The step's folder, unfinished.
        candidates: At least two.
    """
    state = PartialState()
    places = [folder / CANDIDATES / str(number) for number in range(len(candidates))]
    # Written once all are trained; with it there, only moving may have been cut off.
    chosen_before = (folder / SEARCH_FILE).is_file()
    state.wait_for_everyone()
    if not chosen_before:
        for place, candidate in zip(places, candidates, strict=True):
            if state.is_main_process:
                place.mkdir(parents=True, exist_ok=True)
            state.wait_for_everyone()
            candidate.train(place)
    if state.is_main_process:
        if not chosen_before:
            write_json(folder / SEARCH_FILE, _choice(places, candidates))
        chosen = read_json(folder / SEARCH_FILE)["chosen"]
        for number, place in enumerate(places):
            if number != chosen and (place / DEV_LOGITS_FILE).is_file():
                (place / DEV_LOGITS_FILE).replace(folder / _other_logits(number))
        _keep(places[chosen], folder)
        shutil.rmtree(folder / CANDIDATES, ignore_errors=True)
    state.wait_for_everyone()


def _other_logits(number: int) -> str:
    return f"candidate-{number}-{DEV_LOGITS_FILE}"


def dev_logits_of(folder: Path, overrides: Mapping[str, Any]) -> Path:
    """The file with the development logits of one candidate, chosen or not, of a finished fine-tuning."""
    found = read_json(folder / SEARCH_FILE)
    number = [each["overrides"] for each in found["candidates"]].index(dict(overrides))
    return folder / (DEV_LOGITS_FILE if number == found["chosen"] else _other_logits(number))


def _choice(places: Sequence[Path], candidates: Sequence[Candidate]) -> dict[str, Any]:
    tried = []
    for place, candidate in zip(places, candidates, strict=True):
        training = read_json(place / TRAINING_FILE)
        facts = {
            "best_dev_uar": training["best_dev_uar"],
            "best_step": training["best_step"],
            "best_epoch": best_epoch(training),
        }
        tried.append({"overrides": dict(candidate.overrides), **facts})
    if all(each["best_dev_uar"] is None for each in tried):
        raise RequestError(
            "no candidate of `search` was ever evaluated on development speakers",
            "an evaluation, by which one is chosen",
            "leave `eval_delay` and `eval_strategy` out of stages.finetune",
        )
    best = max(range(len(tried)), key=lambda number: _uar(tried[number]))
    return {"chosen": best, "candidates": tried}


def _uar(candidate: Mapping[str, Any]) -> float:
    """Its development UAR; less than any for one whose training ended before the first evaluation."""
    return -1.0 if candidate["best_dev_uar"] is None else float(candidate["best_dev_uar"])


def _keep(chosen: Path, folder: Path) -> None:
    """Move what the chosen training wrote into the step's own folder; what was moved before stays there."""
    for file in sorted(chosen.iterdir()) if chosen.is_dir() else ():
        file.replace(folder / file.name)


def choose_for_all(folders: Sequence[Path]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Choose the settings of a model that has no development speakers: the best on average over the folds'.

    Args:
        folders: The finished fine-tunings of all folds of one variant and seed that has searched.

    Returns:
        The overrides with the highest mean development UAR, and what is noted of them in each fold.
    """
    found = [read_json(folder / SEARCH_FILE)["candidates"] for folder in folders]
    per_candidate = list(zip(*found, strict=True))
    best = max(per_candidate, key=lambda fold_by_fold: sum(map(_uar, fold_by_fold)))
    return best[0]["overrides"], list(best)


def refuse_nobody_to_choose(search: Mapping[str, Sequence[Any]], without: Sequence[int]) -> None:
    """Refuse a search if there are folds without development speakers, given by their numbers."""
    if search and without:
        raise RequestError(
            f"`search` has {', '.join(search)}, and fold {without[0]} has no development speakers",
            "development speakers, who choose among the values",
            "protocol: {dev_speakers: 2}, or remove `search`",
        )


def describe_choices(variant: str, finetunes: Sequence[StepFolder]) -> str | None:
    """Say how often each combination was chosen in the finished folds of a variant; None before the first."""
    files = [step.resolve() / SEARCH_FILE for step in finetunes if step.finished]
    found = [read_json(file) for file in files if file.is_file()]
    if not found:
        return None
    counts = Counter(each["chosen"] for each in found)
    names = [_name(each["overrides"]) for each in found[0]["candidates"]]
    listed = ", ".join(f"{name} in {counts[number]}" for number, name in enumerate(names))
    chosen = f"{variant}: development speakers chose {listed} of {len(found)} fine-tunings."
    if unlike := _uneven([each["overrides"] for each in found[0]["candidates"]]):
        chosen += (
            f" With {' and '.join(unlike)} the number of evaluations changes: the best of many is higher by chance, "
            "which favours values with more of them."
        )
    return chosen


def _uneven(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that candidates differ in, of those that say how many evaluations the best is taken of."""
    each = [dict(_settings(overrides)) for overrides in candidates]
    return [name for name in EVALUATIONS if any(one.get(name) != each[0].get(name) for one in each)]


def _settings(overrides: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of each setting, also of several at once."""
    for dotted, value in overrides.items():
        yield from value.items() if isinstance(value, Mapping) else [(dotted.rpartition(".")[2], value)]


def _name(overrides: Mapping[str, Any]) -> str:
    return " and ".join(f"{dotted.rsplit('.', 1)[-1]} {_shown(value)}" for dotted, value in overrides.items())


def _shown(value: Any) -> str:
    """A value in words: several settings at once as `name value` each."""
    if not isinstance(value, Mapping):
        return str(value)
    return f"({', '.join(f'{name} {inner}' for name, inner in value.items())})"
