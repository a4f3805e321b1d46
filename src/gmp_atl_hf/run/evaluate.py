"""A finished model tested on a corpus that it was not trained on; speakers that it has seen are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import ClassLabel, Dataset

from ..checkpoints import load_emotion_model, load_feature_extractor, seen_speakers
from ..data.columns import replace_column, split_word
from ..data.corpora import LeftOut
from ..data.spelling import spelling
from ..data.table import Corpus, read_corpora
from ..environment import describe_environment
from ..errors import RequestError, nearest
from ..files import json_of, jsonl_of, write_known
from ..protocols.leakage import MAYBE_SEEN_STAMP, HeldOut, maybe_seen
from ..protocols.speakers import is_unknown
from ..report.blocks import counted
from ..report.build import FoldResult, build_report, write_report
from ..run_folder.layout import METRICS_FILE, MODEL, PREDICTIONS_FILE, RunFolder
from ..run_folder.lock import refuse_file
from .steps import predict, write_left_out


def evaluate_model(
    model: str | Path,
    corpus: Mapping[str, Any],
    *,
    labels: Mapping[str, str | None] | None = None,
    unseen_only: bool = False,
    split: str | None = None,
    batch_size: int = 8,
    output_dir: str | Path | None = None,
    command: str = "evaluate_model(…)",
) -> dict[str, Any]:
    """Test a fine-tuned model on a corpus that it was not trained on.

    Args:
        model: Folder or Hub id.
        corpus: As in a recipe: `name`, `root` and the reader's options.
        labels: Emotion in the corpus → emotion of the model, or None to drop it.
        unseen_only: Leave out speakers that the model has seen instead of refusing them.
        split: Only this part of the corpus' own split.
        batch_size: Clips per device and batch.
        output_dir: Where to write the report and the predictions; None for nowhere.
        command: The command behind the numbers.

    Returns:
        The report, as that of a run with one variant, one seed and one fold.

    Raises:
        RequestError: The corpus has labels that the model does not tell, or speakers that it has seen.
    """
    if output_dir is not None:
        refuse_file(Path(output_dir))
    names = load_emotion_model(str(model)).config.emotions
    load_feature_extractor(model)  # all of the model is read here: a damaged one is refused before the corpus is read
    seen = seen_speakers(model)
    with PartialState().main_process_first():
        found = read_corpora([dict(corpus)], labels=labels)
    table = _with_labels_of(found.table, names, labels)
    left_out = list(found.left_out)
    if split is not None:
        table, others = _of_split(table, split)
        left_out += others
    if unseen_only:
        table, others = _unseen(table, seen, model)
        left_out += others
    rows = predict(model, table, batch_size, _refuse_seen(table, seen, model))
    report = build_report(
        name=f"{_called(model)} on {found.info.name}",
        variants={"model": [FoldResult(0, 1, rows)]},
        labels=names,
        protocol=_protocol(model, found, table, split, seen),
        folds_total=1,
        seeds=[0],
        command=command,
        stamps=[MAYBE_SEEN_STAMP] if maybe_seen(seen, set(table["speaker"])) else [],
        notes=[f"Labels: {', '.join(f'{a} → {b or chr(8211)}' for a, b in labels.items())}."] if labels else [],
        left_out=Counter(one.reason for one in left_out),
        corpus={**found.info.reported, "recordings": len(table), "problems": found.problems},
        environment=describe_environment(),
    )
    if output_dir is not None and PartialState().is_main_process:
        folder = Path(output_dir)
        # As in a run, so that `gmp-atl compare` reads it too.
        place = RunFolder(folder).fold("model", 0, 1)
        metrics = {"model": str(model), "command": command, "temperature": None}
        write_known(place.path, {PREDICTIONS_FILE: jsonl_of(rows), METRICS_FILE: json_of(metrics)})
        write_left_out(folder, left_out)
        write_report(report, folder)
    PartialState().wait_for_everyone()
    return report


def _unseen(table: Dataset, seen: Sequence[str], model: str | Path) -> tuple[Dataset, list[LeftOut]]:
    """The rows of speakers whom the model has not seen, and the others as left out."""
    spelt = {spelling(speaker) for speaker in seen}
    kept = [row for row, speaker in enumerate(table["speaker"]) if spelling(speaker) not in spelt]
    if not kept:
        raise RequestError(
            f"{model} has seen every speaker of this corpus", "somebody it has not seen", "another corpus"
        )
    return _keep(table, kept, "the model has seen the speaker")


def _refuse_seen(table: Dataset, seen: Sequence[str], model: str | Path) -> HeldOut:
    """Refuse speakers whom the model has seen; the test rows, for the prediction to guard."""
    held_out = HeldOut(frozenset(table["speaker"]), frozenset(table["id"]))
    try:
        held_out.refuse_speakers(seen, f"{model} has seen")
    except RequestError as error:
        fix = "--unseen-only tests on the others; or give another corpus"
        raise RequestError(error.found, error.expected, fix) from error
    return held_out


def _with_labels_of(table: Dataset, names: Sequence[str], labels: Mapping[str, str | None] | None) -> Dataset:
    """Number the emotions as the model does, and refuse those that it does not tell."""
    own: list[str] = table.features["emotion"].names
    strange = [name for name in own if name not in names]
    if strange:
        count = Counter(own[number] for number in table["emotion"])
        # `--labels` takes the corpus' own word, which an earlier mapping may have turned into this one.
        word = next((before for before, after in (labels or {}).items() if after == strange[0]), strange[0])
        raise RequestError(
            f"the corpus has {', '.join(f'{name} ({count[name]})' for name in strange)}, which the model does not tell",
            f"the model's labels: {', '.join(names)}",
            f"--labels {word}={near}, or {word}=null to drop it"
            if (near := nearest(strange[0], names))
            else f"--labels {word}=null, or {word}={names[0]} if it is the same, and so on",
        )
    numbers = [names.index(own[number]) for number in table["emotion"]]
    return replace_column(table, "emotion", numbers, feature=ClassLabel(names=list(names)))


def _keep(table: Dataset, rows: Sequence[int], reason: str) -> tuple[Dataset, list[LeftOut]]:
    """Some rows of a table, and the others as left out."""
    kept = set(rows)
    return table.select(rows), [LeftOut(one, reason) for row, one in enumerate(table["id"]) if row not in kept]


def _of_split(table: Dataset, split: str) -> tuple[Dataset, list[LeftOut]]:
    rows = [row for row, value in enumerate(table["split"]) if value is not None and split_word(value) == split]
    if not rows:
        raise RequestError(
            f"the corpus has no recordings of the split {split}", "a part that exists", "leave out --split"
        )
    return _keep(table, rows, f"not in the split {split}")


def _called(model: str | Path) -> str:
    """The model's name, with that of its run where it lies in one: there every model is called `model`."""
    path = Path(model)
    name = path.resolve().name if path.is_dir() else path.name
    return f"{path.resolve().parent.name}/{name}" if name == MODEL else name


def _protocol(
    model: str | Path, found: Corpus, table: Dataset, split: str | None, seen: Sequence[str]
) -> dict[str, Any]:
    speakers = len(set(table["speaker"]))
    part = "" if split is None else f", its {split} part"
    named = {speaker for speaker in seen if not is_unknown(speaker)} - set(table["speaker"])
    # By corpus: the voices that an encoder was pre-trained on are none of the corpus that the model was trained on.
    counts = Counter(speaker.rpartition("/")[0] for speaker in sorted(named))
    groups = [f"{counted(number, 'speaker')} of {corpus}" for corpus, number in counts.items()]
    if named and len(named) < len(seen):
        groups.append("people whom nobody has named")
    trained = f"trained on {' and '.join(groups) or 'speakers that are not known'}"
    return {
        "kind": "evaluate",
        "model": str(model),
        "sentence": (
            f"the finished model {_called(model)}, {trained}, tested once on {found.info.name}{part}: "
            f"{speakers} speakers, none of whom it is known to have been trained on."
        )
        + (" All recordings are of one emotion, so UAR is the recall of it." if len(set(table["emotion"])) < 2 else ""),
    }
