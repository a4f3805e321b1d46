"""A finished model, ours or anybody's, tested on a corpus whose recordings are made worse in several ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm

from ..data.audio import SAMPLING_RATE, FloatArray, read_audio
from ..environment import describe_environment
from ..errors import RequestError, counted
from ..evaluation.statistics import MIN_SPEAKERS
from ..evaluation.unknown import is_unknown
from ..files import json_of, write_known
from ..numerics import deterministic
from ..run.evaluate import PreparedTest, prepare_test
from ..run.evaluation_folder import SETTINGS, refuse_other_results, settings_of_test
from ..run.tested_model import WaveformScorer
from ..threads import prefetch
from .conditions import Condition, choose_conditions
from .figures import figures_of_conditions, worst_of
from .pages import render_stress

STRESS_FILE, STRESS_PAGE = "stress.json", "stress.md"

SYNTHETIC = (
    "The conditions are synthetic, and their settings are our choice: they say what this model does with such changes, "
    "not how it fares with real noise, rooms and telephones."
)

_CHANGED_AHEAD = 2
"""Conditions of a batch that are made while another one is scored."""


def stress_model(
    model: str | Path,
    corpus: Mapping[str, Any],
    *,
    conditions: Sequence[str | Condition] | None = None,
    seed: int = 0,
    labels: Mapping[str, str | None] | None = None,
    dimensions: Mapping[str, Mapping[str, float]] | None = None,
    unseen_only: bool = False,
    split: str | None = None,
    batch_size: int = 8,
    output_dir: str | Path | None = None,
    command: str = "stress_model(…)",
) -> dict[str, Any]:
    """Test a fine-tuned model on recordings as they are, and on the same ones made worse.

    Each recording is decoded once; no more than some batches are in memory. What is random about a change comes from
    the recording's id and the seed, so neither batches nor the order of recordings matter.

    Args:
        model: As for `evaluate_model`.
        corpus: As for `evaluate_model`.
        conditions: Names of conditions, or conditions of one's own; None for all in `CONDITIONS`. `clean` is always
            among them.
        seed: Seed of noise and rooms.
        labels: As for `evaluate_model`.
        dimensions: As for `evaluate_model`.
        unseen_only: As for `evaluate_model`.
        split: As for `evaluate_model`.
        batch_size: Clips per batch; it does not change the scores.
        output_dir: Where to write `stress.json` and `stress.md`; None for nowhere. The same test replaces itself.
        command: The command behind the numbers.

    Returns:
        `conditions`: for each its `name`, `what` it does and what `figures_of_conditions` gives; `worst`, the name of
        the one with the lowest UAR, or None; `skipped`, the `name` and `reason` of each that cannot be made; the
        protocol and the rest. JSON types.

    Raises:
        RequestError: As `evaluate_model`; or there is no such condition, or none but `clean` can be made.
    """
    chosen = choose_conditions(conditions)
    if seed < 0:
        raise RequestError(f"the seed is {seed}", "a whole number, 0 or above", "--seed 0")
    how: dict[str, Any] = {"labels": labels, "dimensions": dimensions, "unseen_only": unseen_only, "split": split}
    named = [f"{condition.name}: {condition.what}" for condition in chosen]
    settings = settings_of_test(model, corpus, **how, conditions=named, seed=seed)
    if output_dir is not None:
        refuse_other_results(Path(output_dir), settings, Path(output_dir) / STRESS_FILE)
    skipped = {condition.name: reason for condition in chosen if (reason := condition.missing()) is not None}
    _refuse_nothing(chosen, skipped)  # before a model and a corpus are read
    ready = prepare_test(model, corpus, **how)
    table, scorer = ready.fitted.table, ready.tested.scorer(ready.fitted)
    skipped |= _too_long([one for one in chosen if one.name not in skipped], table, scorer.most)
    _refuse_nothing(chosen, skipped)
    made = [condition for condition in chosen if condition.name not in skipped]
    outputs = score_conditions(table, scorer, made, batch_size, seed)
    rows = [ready.tested.rows(ready.fitted, each) for each in outputs]
    figures = figures_of_conditions(rows, ready.fitted.names)
    worst = worst_of(figures)
    report: dict[str, Any] = {
        "name": ready.name,
        "model": str(model),
        "command": command,
        "seed": seed,
        "corpus": ready.corpus,
        "labels": ready.fitted.names,
        "protocol": ready.protocol,
        "stamps": ready.stamps,
        "notes": [SYNTHETIC, *_notes(ready, scorer, made), *ready.tested.notes(ready.fitted, rows[0])],
        "left_out": [{"file": one.file, "reason": one.reason} for one in ready.left_out],
        "unknown_utterances": sum(map(is_unknown, table["speaker"])),
        "conditions": [
            {"name": condition.name, "what": condition.what, **one}
            for condition, one in zip(made, figures, strict=True)
        ],
        "worst": None if worst is None else made[worst].name,
        "skipped": [{"name": name, "reason": reason} for name, reason in skipped.items()],
        "environment": describe_environment(),
        SETTINGS: settings,
    }
    if output_dir is not None and PartialState().is_main_process:
        write_known(Path(output_dir), {STRESS_FILE: json_of(report), STRESS_PAGE: render_stress(report)})
    PartialState().wait_for_everyone()
    return report


def score_conditions(
    table: Dataset, scorer: WaveformScorer, conditions: Sequence[Condition], batch_size: int, seed: int
) -> list[FloatArray]:
    """Score recordings under each condition; the processes of several share the work.

    Args:
        table: The recordings.
        scorer: The model.
        conditions: What becomes of them.
        batch_size: Recordings that are scored together, under one condition at a time.
        seed: Of the changes.

    Returns:
        For each condition the model's outputs, (rows, outputs) float32 in the table's order.
    """
    state, cells, ids = PartialState(), table["audio"], table["id"]

    def read(rows: list[int]) -> tuple[list[int], list[FloatArray]]:
        return rows, [read_audio(cells[row]) for row in rows]

    def change(names: list[str], waveforms: list[FloatArray], number: int) -> tuple[int, Any]:
        pairs = zip(waveforms, names, strict=True)
        return number, scorer.prepare([conditions[number].apply(waveform, name, seed) for waveform, name in pairs])

    own = scorer.batches(table["num_samples"], max(1, batch_size))[state.process_index :: state.num_processes]
    found: list[tuple[int, list[int], FloatArray]] = []
    total = sum(map(len, own)) * len(conditions)
    with (
        deterministic(state.device),
        tqdm(total=total, desc="stress", unit="clip", disable=None) as bar,
        closing(prefetch(read, own)) as decoded,
    ):
        for rows, waveforms in decoded:
            names = [ids[row] for row in rows]
            each = partial(change, names, waveforms)
            with closing(prefetch(each, range(len(conditions)), threads=_CHANGED_AHEAD)) as changed:
                for number, batch in changed:
                    found.append((number, rows, scorer.outputs(batch, names)))
                    bar.update(len(rows))
    every = gather_object(found) if state.num_processes > 1 else found
    outputs = np.empty((len(conditions), len(table), every[0][2].shape[1]), dtype=np.float32)
    for number, rows, said in every:
        outputs[number, rows] = said
    return list(outputs)


def _too_long(conditions: Sequence[Condition], table: Dataset, most: int | None) -> dict[str, str]:
    """Conditions that make a recording longer than the model takes, with the reason."""
    found = {}
    longest = int(np.argmax(table["num_samples"]))
    for condition in conditions if most is not None else ():
        samples = condition.samples(int(table["num_samples"][longest]))
        if most is not None and samples > most:
            seconds = [f"{each / SAMPLING_RATE:g} s" for each in (samples, most)]
            found[condition.name] = (
                f"it makes {table['id'][longest]} {seconds[0]} long, and the model takes {seconds[1]}"
            )
    return found


def _refuse_nothing(chosen: Sequence[Condition], skipped: Mapping[str, str]) -> None:
    """Refuse a test in which nothing is left but clean recordings."""
    if len(chosen) - len(skipped) < 2:
        listed = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise RequestError(f"no condition can be tested ({listed})", "one besides clean", "choose other --conditions")


def _notes(ready: PreparedTest, scorer: WaveformScorer, made: Sequence[Condition]) -> list[str]:
    """What a reader of the numbers should know of this model and these speakers."""
    notes = []
    if scorer.normalizes and any(condition.name == "quiet" for condition in made):
        notes.append(
            "The model's feature extractor brings each recording to one level, so that `quiet` changes next to nothing."
        )
    speakers = set(ready.fitted.table["speaker"])
    known = sum(not is_unknown(speaker) for speaker in speakers)
    if known < MIN_SPEAKERS:
        notes.append(
            f"Intervals need {MIN_SPEAKERS} speakers that are known by name; here {counted(known, 'is', 'are')}."
        )
    elif known < len(speakers):
        notes.append("Intervals leave out the recordings of unknown speakers.")
    if scorer.sampling_rate != SAMPLING_RATE:
        notes.append(
            f"The model takes {scorer.sampling_rate:,} Hz, and all recordings came to it through {SAMPLING_RATE:,} Hz, "
            "clean ones too: their figures may differ from those of `gmp-atl evaluate`."
        )
    return notes
