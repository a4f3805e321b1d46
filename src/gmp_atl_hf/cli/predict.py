"""`gmp-atl predict`: emotions of files and folders, as a table for people, JSONL or CSV."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError, counted
from ..files import write_whole
from .arguments import add_model, writable_output
from .console import DONE, FAILED, PROGRAM, complain, printable, say

if TYPE_CHECKING:
    from ..inference.predictions import Prediction
    from ..inference.sources import Item

FORMATS = ("table", "jsonl", "csv")
_OTHER_FORMATS = (".json", ".ndjson", ".parquet", ".tsv", ".xls", ".xlsx", ".yaml")
TABLES = (".csv", ".tsv")
PARENT = "parent"
"""In place of the name of a column."""

_TABLE_FIX = (
    "give the folder of the recordings in its place; or, to adapt to the speakers that it names, add --speakers "
    "COLUMN, the column with the speaker of each recording in the column file"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_model(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a recording, or a folder with all below it")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="table for people; jsonl: an object per recording; csv: a row per recording, or per window with --window "
        "(default: by the ending of --output, otherwise table)",
    )
    parser.add_argument("--window", metavar="S", type=float, help="score windows of S seconds, and their mean")
    parser.add_argument("--hop", metavar="S", type=float, help="seconds from window to window (default: --window)")
    parser.add_argument("--batch-seconds", metavar="N", type=float, help="most seconds of audio per batch")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 … (default: the accelerator if there is one)")
    parser.add_argument(
        "--precision",
        default="float32",
        metavar="P",
        help="float32 (exact, the default); int8 (CPUs with VNNI or AMX) or bfloat16: quicker for wide models, scores "
        "change by 0.02 at most where we measured it; auto: bfloat16 on GPUs that have it",
    )
    parser.add_argument(
        "--speakers",
        metavar="parent|COLUMN",
        help="adapt the model to each speaker by all of their recordings given, without labels. parent: the recordings "
        "in one folder are one speaker's; COLUMN: each PATH is a csv table with the columns file (from the table's own "
        "folder), this one and, for parts of files, start and end in seconds. Rows then say whose they are and how "
        "many recordings were used",
    )
    parser.add_argument("--output", metavar="FILE", help="write there instead of to the terminal")


def perform(arguments: argparse.Namespace) -> int:
    """Score the emotions of recordings; status 1 if some could not be read; the others are scored all the same."""
    from ..inference.windows import SlidingWindow

    SlidingWindow.from_seconds(arguments.window, arguments.hop)  # refused before anything is read or loaded
    output = None
    if arguments.output is not None:
        instead = "leave --output out and use > or |"
        output = writable_output(Path(arguments.output), "predictions.jsonl", instead, arguments.paths)
    form = arguments.format or _format_of(output)
    by = arguments.speakers
    if by in (None, PARENT):
        items = find_recordings(arguments.paths, _TABLE_FIX)
        owners = _folders_of(items)
        tables: list[str] | None = None
        if by == PARENT:
            _note_shared_names(owners)
    else:
        items, owners, tables = find_by_column(arguments.paths, by)
        _note_shared_people(owners, tables)
    from ..evaluation.adaptation import ADAPTED
    from ..evaluation.unknown import is_unknown
    from ..inference.classifier import SpeechEmotionClassifier

    classifier = SpeechEmotionClassifier.from_pretrained(
        arguments.model, arguments.device, arguments.batch_seconds, arguments.precision
    )
    windows = (arguments.window, arguments.hop)
    if by is None:
        predictions = classifier.predict(items, *windows, progress=True)
    else:
        predictions = classifier.predict_by_speaker(items, owners, *windows, progress=True, apart=tables)
        how = "the folders that they are in" if by == PARENT else f"the column {by}"
        places = zip(owners, tables or owners, predictions, strict=True)
        # Nobody is adapted to a speaker none of whose recordings could be read.
        known = len({(owner, table) for owner, table, found in places if found.speaker_clips is not None})
        if known:
            complain(f"{PROGRAM}: scores are {ADAPTED}: {counted(known, 'speaker')}, by {how}")
        if nameless := sum(map(is_unknown, owners)):
            complain(f"{PROGRAM}: {counted(nameless, 'recording')} of unknown speakers: adapted to nobody")
    text = format_predictions(predictions, classifier.labels, form, arguments.window is not None)
    if output is None:
        say(text.removesuffix("\n"))
    else:
        write_whole(output, printable(text))
    failed = [one for one in predictions if one.error is not None]
    for one in failed:
        complain(f"{PROGRAM}: not scored: {one.error}")
    if failed:
        complain(f"{PROGRAM}: {len(failed)} of {counted(len(predictions), 'recording')} could not be scored")
    return FAILED if failed else DONE


def find_recordings(paths: Sequence[str], table_fix: str) -> list[Item]:
    """List the recordings at some paths, those of a folder sorted, and say what in the folders is passed over.

    Args:
        paths: Recordings and folders.
        table_fix: What to type in place of a table.

    Raises:
        RequestError: A path does not exist or is a table, or a folder holds no recordings.
    """
    from ..data.audio import AUDIO_SUFFIXES
    from ..inference.sources import expand_inputs, list_folder

    missing = [path for path in paths if not os.path.lexists(path)]
    if missing:
        fix = _fix_of_missing(missing[0])
        raise RequestError(f"there is nothing at {', '.join(missing)}", "recordings or folders", fix)
    if tables := [path for path in paths if _is_table(path)]:
        what = "is a table, no recording" if len(tables) == 1 else "are tables, no recordings"
        raise RequestError(f"{', '.join(tables)} {what}", "recordings or folders", table_fix)
    others: list[Path] = []
    for path in filter(os.path.isdir, paths):
        found = list_folder(path)
        if not found.recordings and not found.problems:
            there = f" ({counted(len(found.others), 'other file')})" if found.others else ""
            raise RequestError(
                f"the folder {path} holds no recordings{there}",
                f"files ending in {', '.join(sorted(AUDIO_SUFFIXES))}",
                "give another folder, or the files themselves if they end otherwise",
            )
        others += found.others
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        names = ", ".join(map(str, others[:3]))
        complain(f"{PROGRAM}: no recordings by their names, passed over: {names}{more}")
    return expand_inputs(paths)[0]


def _fix_of_missing(path: str) -> str:
    """Say what to type in place of a path at which there is nothing."""
    if path == "-":
        return "use /dev/stdin with < FILE; what comes through a pipe is saved to a file first"
    if "*" in path or "?" in path:
        return "give the folder, or let the shell expand the pattern (without quotes)"
    return "correct the path"


def _is_table(path: str | Path) -> bool:
    return Path(path).suffix.lower() in TABLES and Path(path).is_file()


def _folders_of(items: Sequence[Item]) -> list[str]:
    """The folder of each recording: under one name, the first that it is given by, however its path is written."""
    named: dict[str, str] = {}
    folders = [str(Path(item.name).parent) for item in items]
    return [named.setdefault(os.path.realpath(folder), folder) for folder in folders]


def _note_shared_names(folders: Sequence[str]) -> None:
    """Say which folders have the same last name: below folders of emotions, one person has several."""
    from ..data.spelling import first_few

    named: dict[str, list[str]] = {}
    for folder in dict.fromkeys(folders):
        named.setdefault(Path(folder).resolve().name, []).append(folder)
    shared = {name: held for name, held in named.items() if len(held) > 1}
    if not shared:
        return
    held = [folder for each in shared.values() for folder in each]
    are = "is the name" if len(shared) == 1 else "are the names"
    complain(
        f"{PROGRAM}: {first_few(list(shared))} {are} of {len(held)} folders, which are taken as different people: "
        f"{first_few(held)}; where those of one name are one person, name them in a csv table and use --speakers COLUMN"
    )


def _note_shared_people(owners: Sequence[str], tables: Sequence[str]) -> None:
    """Say which names are in several tables: one person may be meant, or two."""
    from ..data.spelling import first_few
    from ..evaluation.unknown import is_unknown

    of_name: dict[str, set[str]] = {}
    for owner, table in zip(owners, tables, strict=True):
        of_name.setdefault(owner, set()).add(table)
    shared = [name for name, held in of_name.items() if len(held) > 1 and not is_unknown(name)]
    if shared:
        complain(
            f"{PROGRAM}: {first_few(shared)}, named in several tables, {'is' if len(shared) == 1 else 'are'} taken as "
            "different people in each; put the recordings of one person in one table"
        )


def find_by_column(tables: Sequence[str], column: str) -> tuple[list[Item], list[str], list[str]]:
    """List the recordings that tables name, what a column says of each, and the table that says so.

    Rows that say where in the file a segment begins or ends, in seconds, stand for the segment alone.

    Raises:
        RequestError: A path is no table, a column is missing, or a row names no recording, no speaker or no time.
    """
    from ..data.corpora.segment_columns import find_segment_columns, read_segment
    from ..data.corpora.tables import read_table
    from ..data.segments import name_of_segment
    from ..data.spelling import first_few, is_missing, spelling
    from ..evaluation.unknown import is_unknown
    from ..inference.sources import Item

    items, owners, places = [], [], []
    for table in map(Path, tables):
        if not _is_table(table):
            raise RequestError(
                f"--speakers is {column}, and {table} is no table",
                f"a file ending in {', '.join(TABLES)}, with the columns file and {column}",
                "--speakers parent where each folder is one speaker's",
            )
        names, rows = read_table(table, ("file", column), options={column: "--speakers"})
        others = [name for name in names if name not in ("file", column)]
        segments = find_segment_columns(None, others, table)
        if twice := next((name for name in segments.values() if name and others.count(name) > 1), None):
            raise RequestError(f"{table} has two columns {twice}", "every heading once", "rename one of them")
        first, whole, merged = dict[str, str](), dict[str, str](), dict[str, str]()
        for line, row in rows:
            if not row["file"] or is_missing(row[column]):
                raise RequestError(
                    f"line {line} of {table} names no {'speaker' if row['file'] else 'file'}",
                    f"file and {column} in every row",
                    "fill it or remove the line; a speaker whom nobody knows is called unknown",
                )
            owner = row[column] if is_unknown(row[column]) else first.setdefault(spelling(row[column]), row[column])
            if owner != row[column]:
                merged[row[column]] = owner
            file, times = table.parent / row["file"], {name: row[there] for name, there in segments.items() if there}
            start, end = read_segment(times, f"line {line} of {table}")
            part = None if (start, end) == (None, None) else (start or 0.0, end)
            backwards = f"line {line} of {table}: its segment ends before it begins"
            wrong = backwards if end is not None and end <= (start or 0) else None
            if part is None and (other := whole.setdefault(os.path.realpath(file), owner)) != owner:
                raise RequestError(
                    f"line {line} of {table}: all of {row['file']} is {owner}'s, and in another row {other}'s",
                    "one speaker for a file, or columns start and end (seconds) that say who speaks when",
                    "correct the speaker, or add the columns",
                )
            items.append(Item(name_of_segment(str(file), start, end), file, wrong, part))
            owners.append(owner)
            places.append(os.path.realpath(table))
        if merged:
            pairs = first_few([f"{ascii(name)} as {ascii(owner)}" for name, owner in merged.items()])
            complain(f"{PROGRAM}: names in {table} that are spelt in two ways are one speaker's: {pairs}")
    return items, owners, places


def format_predictions(predictions: Sequence[Prediction], labels: Sequence[str], format: str, windowed: bool) -> str:
    """Write predictions out.

    Args:
        predictions: What to write, in this order.
        labels: The model's labels; one column each.
        format: One of `FORMATS`.
        windowed: Whether windows were asked for: csv then has a row for each of them instead of for each recording.
    """
    if format == "jsonl":
        return "".join(json.dumps(one.to_dict(), ensure_ascii=False, allow_nan=False) + "\n" for one in predictions)
    return _csv(predictions, labels, windowed) if format == "csv" else _table(predictions, labels)


def _csv(predictions: Sequence[Prediction], labels: Sequence[str], windowed: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    times = ["start", "end"] if windowed else ["seconds"]
    adapted = any(one.speaker is not None for one in predictions)
    writer.writerow(["file", *times, "label", *labels, *(["speaker", "speaker_clips"] if adapted else []), "error"])
    for one in predictions:
        whose = [one.speaker, one.speaker_clips] if adapted else []
        if one.error is not None:
            writer.writerow([one.file, *[""] * (len(times) + 1 + len(labels)), *whose, one.error])
        elif windowed:
            for part in one.windows or []:
                scores = [part.scores[label] for label in labels]
                writer.writerow([one.file, part.start, part.end, part.label, *scores, *whose, ""])
        else:
            scores = [one.scores[label] for label in labels]
            writer.writerow([one.file, one.seconds, one.label, *scores, *whose, ""])
    return text.getvalue()


def _table(predictions: Sequence[Prediction], labels: Sequence[str]) -> str:
    from ..report.markdown import aligned

    adapted = any(one.speaker is not None for one in predictions)
    rows = [["file", "seconds", "label", *labels, *(["adapted to"] if adapted else [])]]
    for one in predictions:
        clips = "-" if one.speaker_clips is None else f"{one.speaker_clips} of the speaker"
        whose = [clips] if adapted else []
        if one.error is not None:
            rows.append([_on_one_line(one.file), "-", "not scored", *["-"] * len(labels), *whose])
            continue
        scores = [f"{one.scores[name]:.3f}" for name in labels]
        rows.append([_on_one_line(one.file), f"{one.seconds:.2f}", str(one.label), *scores, *whose])
        for part in one.windows or []:
            when = f"  {part.start:.2f} to {part.end:.2f}"
            scores = [f"{part.scores[name]:.3f}" for name in labels]
            rows.append([when, f"{part.end - part.start:.2f}", part.label, *scores, *whose])
    return "".join(f"{line}\n" for line in aligned(rows, words=(0, 2)))


def _on_one_line(name: str) -> str:
    """The name of a file with what a terminal would obey, such as a new line, as a code."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def _format_of(output: Path | None) -> str:
    """The format that the ending of a file asks for; a `RequestError` where programs would read it as another one."""
    if output is not None and output.suffix.lower() in _OTHER_FORMATS:
        raise RequestError(
            f"--output {output} would be a file in a format that is not written, {output.suffix}",
            "a name that ends in .jsonl or .csv, or another one for a table to read",
            f"--output {output.with_suffix('.jsonl')}, or say what to write with --format",
        )
    ending = "" if output is None else output.suffix[1:].lower()
    return ending if ending in FORMATS else "table"
