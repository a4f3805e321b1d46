"""A finished model, ours or anybody's, tested on a corpus; speakers and recordings that it knows are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset

from ..data.columns import split_word
from ..data.corpora import LeftOut
from ..data.spelling import spelling
from ..data.table import Corpus, read_corpora
from ..environment import describe_environment
from ..errors import RequestError, counted
from ..files import json_of, jsonl_of, write_known
from ..inference.audio_classifiers import is_ours
from ..protocols.leakage import MAYBE_SEEN_STAMP, HeldOut, maybe_seen
from ..protocols.speakers import people
from ..report.build import FoldResult, build_report, write_report
from ..run_folder.layout import METRICS_FILE, MODEL, PREDICTIONS_FILE
from .any_model import AnyModel
from .evaluation_folder import SETTINGS, place_of_test, refuse_other_results, settings_of_test
from .own_model import OwnModel
from .processes import join_processes
from .same_recordings import KnownRecordings
from .steps import write_left_out
from .tested_model import Fitted, TestedModel, keep


def evaluate_model(
    model: str | Path,
    corpus: Mapping[str, Any],
    *,
    labels: Mapping[str, str | None] | None = None,
    dimensions: Mapping[str, Mapping[str, float]] | None = None,
    unseen_only: bool = False,
    split: str | None = None,
    batch_size: int = 8,
    output_dir: str | Path | None = None,
    command: str = "evaluate_model(…)",
) -> dict[str, Any]:
    """Test a fine-tuned model on a corpus that it was not trained on.

    Args:
        model: Folder or Hub id of a model of this package, or of any audio classifier that transformers loads.
        corpus: As in a recipe: `name`, `root` and the reader's options.
        labels: For a model of this package, emotion in the corpus → emotion of the model, or None to drop it. For any
            other, label of the model → emotion of the corpus, or None where it means none of them.
        dimensions: For a model that gives values on scales such as arousal: emotion → scale → where its centre lies,
            in the model's units; a recording has the emotion whose centre is nearest.
        unseen_only: Leave out speakers that the model has seen, under any name, instead of refusing them.
        split: Only this part of the corpus' own split.
        batch_size: Clips per device and batch; it does not change the scores.
        output_dir: Where to write the report and the predictions; None for nowhere. The same test replaces itself.
        command: The command behind the numbers.

    Returns:
        The report, as that of a run with one variant, one seed and one fold. UAR is the mean recall over the emotions
        that occur among the tested recordings; those that the model has no answer for are left out, listed and stamped.

    Raises:
        RequestError: The model cannot be tested, its labels and the corpus' do not fit, or it has seen a speaker or
            heard a recording; or in `output_dir` there is a run, a model, the corpus, or a test made from something
            else.
    """
    chosen: dict[str, Any] = {"labels": labels, "dimensions": dimensions, "unseen_only": unseen_only, "split": split}
    settings = settings_of_test(model, corpus, **chosen)
    if output_dir is not None:
        refuse_other_results(Path(output_dir), settings)
    ready = prepare_test(model, corpus, **chosen)
    tested, fitted = ready.tested, ready.fitted
    rows = tested.predict(fitted, batch_size, ready.held_out)
    report = build_report(
        name=ready.name,
        variants={"model": [FoldResult(0, 1, rows)]},
        labels=fitted.names,
        protocol=ready.protocol,
        folds_total=1,
        seeds=[0],
        command=command,
        stamps=ready.stamps,
        notes=tested.notes(fitted, rows),
        left_out=Counter(one.reason for one in ready.left_out),
        corpus=ready.corpus,
        environment=describe_environment(),
    )
    if output_dir is not None and PartialState().is_main_process:
        folder = Path(output_dir)
        metrics = {"model": str(model), "command": command, "temperature": None, SETTINGS: settings}
        write_known(place_of_test(folder).path, {PREDICTIONS_FILE: jsonl_of(rows), METRICS_FILE: json_of(metrics)})
        write_left_out(folder, ready.left_out)
        write_report(report, folder)
    PartialState().wait_for_everyone()
    return report


@dataclass(frozen=True)
class PreparedTest:
    """A model and the recordings that it may be tested on: it is not known to have heard them, or their speakers.

    Args:
        name: What is tested on what.
        tested: The model.
        fitted: The recordings, with the answers that the model may give.
        held_out: Their ids and speakers, for the prediction to guard.
        left_out: Recordings of the corpus that are not tested, with the reason.
        protocol: How a report says who was tested, and on what.
        stamps: What has to stand beside every number.
        corpus: What a report says of the corpus.
    """

    name: str
    tested: TestedModel
    fitted: Fitted
    held_out: HeldOut
    left_out: list[LeftOut]
    protocol: dict[str, Any]
    stamps: list[str]
    corpus: dict[str, Any]


def prepare_test(
    model: str | Path,
    corpus: Mapping[str, Any],
    *,
    labels: Mapping[str, str | None] | None,
    dimensions: Mapping[str, Mapping[str, float]] | None,
    unseen_only: bool,
    split: str | None,
) -> PreparedTest:
    """Load a model and a corpus, and refuse what the model cannot be tested on.

    Arguments and errors are those of `evaluate_model`.
    """
    join_processes()
    tested = _open(model, labels, dimensions)
    with PartialState().main_process_first():
        found = read_corpora([dict(corpus)], labels=tested.corpus_labels)
    table, left_out = found.table, list(found.left_out)
    known = KnownRecordings.of(str(model), tested.heard, table, found.digests)
    if split is not None:
        table, others = _of_split(table, split)
        left_out += others
    if unseen_only:
        table, others = _unseen(table, tested.seen, model)
        left_out += others
        table, others = known.left_out_of(table)
        left_out += others
    fitted = tested.fit(table)
    table, left_out = fitted.table, left_out + fitted.left_out
    held_out = _refuse_seen(table, tested.seen, model)
    known.refuse(table, "--unseen-only tests on the other speakers; or give another corpus")
    return PreparedTest(
        name=f"{_called(model)} on {found.info.name}",
        tested=tested,
        fitted=fitted,
        held_out=held_out,
        left_out=left_out,
        protocol={**_protocol(model, found, table, split, tested.seen), **fitted.facts},
        stamps=([MAYBE_SEEN_STAMP] if maybe_seen(tested.seen, set(table["speaker"])) else []) + fitted.stamps,
        corpus={**found.info.reported, "recordings": len(table), "problems": found.problems},
    )


def _open(
    model: str | Path,
    labels: Mapping[str, str | None] | None,
    dimensions: Mapping[str, Mapping[str, float]] | None,
) -> TestedModel:
    """Load a model, ours or anybody's; what is wrong with it or with the maps is told before a corpus is read."""
    if not is_ours(str(model)):
        return AnyModel(model, labels, dimensions)
    if dimensions is not None:
        raise RequestError(
            f"{model} tells emotions, and centres on scales are given", "no such map", "leave out --dimensions"
        )
    return OwnModel(model, labels)


def _unseen(table: Dataset, seen: Sequence[str], model: str | Path) -> tuple[Dataset, list[LeftOut]]:
    """The rows of speakers whom the model has not seen, and the others as left out."""
    spelt = {spelling(speaker) for speaker in seen}
    kept = [row for row, speaker in enumerate(table["speaker"]) if spelling(speaker) not in spelt]
    if not kept:
        raise RequestError(
            f"{model} has seen every speaker of this corpus", "somebody it has not seen", "another corpus"
        )
    return keep(table, kept, "the model has seen the speaker")


def _refuse_seen(table: Dataset, seen: Sequence[str], model: str | Path) -> HeldOut:
    """Refuse speakers whom the model has seen; the test rows, for the prediction to guard."""
    held_out = HeldOut(frozenset(table["speaker"]), frozenset(table["id"]))
    try:
        held_out.refuse_speakers(seen, f"{model} has seen")
    except RequestError as error:
        fix = "--unseen-only tests on the others; or give another corpus"
        raise RequestError(error.found, error.expected, fix) from error
    return held_out


def _of_split(table: Dataset, split: str) -> tuple[Dataset, list[LeftOut]]:
    rows = [row for row, value in enumerate(table["split"]) if value is not None and split_word(value) == split]
    if not rows:
        raise RequestError(
            f"the corpus has no recordings of the split {split}", "a part that exists", "leave out --split"
        )
    return keep(table, rows, f"not in the split {split}")


def _called(model: str | Path) -> str:
    """The model's name, with that of its run where it lies in one: there every model is called `model`."""
    path = Path(model)
    name = path.resolve().name if path.is_dir() else path.name
    return f"{path.resolve().parent.name}/{name}" if name == MODEL else name


def _protocol(
    model: str | Path, found: Corpus, table: Dataset, split: str | None, seen: Sequence[str]
) -> dict[str, Any]:
    speakers = len(people(set(table["speaker"])))
    nobody = "unknown speakers, none of whom it is"
    who = counted(speakers, "speaker, whom it is not", "speakers, none of whom it is") if speakers else nobody
    part = "" if split is None else f", its {split} part"
    named = set(people(seen)) - set(table["speaker"])
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
            f"{who} known to have been trained on."
        )
        + (" All recordings are of one emotion, so UAR is the recall of it." if len(set(table["emotion"])) < 2 else ""),
    }
