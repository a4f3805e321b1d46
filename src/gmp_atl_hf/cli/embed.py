"""`gmp-atl embed`: embeddings of a corpus or of recordings, by a layer of any speech encoder, into a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import RequestError, counted
from .arguments import add_corpus, corpus_of, label_map, writable_output
from .console import DONE, FAILED, PROGRAM, complain, say
from .predict import find_recordings

_TABLE_FIX = "give the folder of the recordings in its place, or the table as a corpus: --corpus csv --root TABLE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a speech encoder: folder, id on the Hub, mini or small")
    parser.add_argument("paths", metavar="PATH", nargs="*", help="a recording, or a folder with all below it")
    add_corpus(parser, labels_help="merge labels; null drops one", required=False)
    parser.add_argument("--layer", metavar="N", type=int, default=-1, help="0 is what enters the first (default: last)")
    parser.add_argument(
        "--pooling",
        metavar="P",
        default="mean",
        help="mean (default), statistics (mean and deviation), max, or none: every frame, in parquet",
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 … (default: the accelerator if there is one)")
    parser.add_argument("--output", metavar="FILE", required=True, help="file ending in .parquet or .npz")


def perform(arguments: argparse.Namespace) -> int:
    """Write embeddings; status 1 if some recordings could not be read; the others are embedded all the same."""
    output = writable_output(Path(arguments.output), "embeddings.parquet", inputs=arguments.paths)
    if bool(arguments.paths) == (arguments.corpus is not None):
        what = "recordings and a corpus" if arguments.paths else "neither recordings nor a corpus"
        raise RequestError(f"{what} to embed", "one of the two", "give a folder, or --corpus NAME --root ROOT")
    if arguments.paths and (arguments.root or arguments.options or arguments.labels):
        raise RequestError("--root, --options or --labels without a corpus", "--corpus NAME", "leave them out")
    items = find_recordings(arguments.paths, _TABLE_FIX) if arguments.paths else []
    from ..embeddings.embed import check_request, embed_corpus, embed_files

    check_request(output, arguments.pooling)
    settings: dict[str, Any] = {
        "layer": arguments.layer,
        "pooling": arguments.pooling,
        "device": arguments.device,
        "progress": True,
    }
    if arguments.corpus is None:
        report = embed_files(arguments.model, [item.source for item in items], output, **settings)
    else:
        labels = label_map(arguments.labels) or None
        report = embed_corpus(arguments.model, corpus_of(arguments), output, labels=labels, **settings)
    for problem in report.problems:
        complain(f"{PROGRAM}: not embedded: {problem}")
    for one in report.left_out:
        complain(f"{PROGRAM}: left out: {one.file}: {one.reason}")
    if report.problems:
        every = counted(report.recordings, "recording")
        complain(f"{PROGRAM}: {len(report.problems)} of {every} could not be embedded")
    done = report.recordings - len(report.problems)
    say(f"{output}: {counted(done, 'recording')}, {report.width} numbers each" + _per_frame(arguments.pooling))
    return FAILED if report.problems else DONE


def _per_frame(pooling: str) -> str:
    return " and frame" if pooling == "none" else ""
