"""Arguments that several verbs take, and what they mean."""

from __future__ import annotations

import argparse
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ..errors import RequestError
from ..recipe.overrides import parse_override
from ..recipe.yaml12 import load_yaml

MAP_SUFFIXES = (".yaml", ".yml", ".json")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declare `MODEL`, a fine-tuned one."""
    parser.add_argument("model", metavar="MODEL", help="folder of a fine-tuned model, or its id on the Hub")


def add_recipe(parser: argparse.ArgumentParser, packaged: str, setting: str) -> None:
    """Declare `RECIPE`, `--output-dir` and `--set`, with the name of a packaged recipe and a setting as examples."""
    parser.add_argument("recipe", metavar="RECIPE", help=f"a YAML file, or a packaged recipe such as {packaged}")
    parser.add_argument("--output-dir", metavar="DIR", help="the run's folder (default: runs/NAME)")
    shown = f"change one setting, such as {setting}; every setting has a --set of its own"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=shown)


def add_corpus(parser: argparse.ArgumentParser, labels_help: str, required: bool = True) -> None:
    """Declare `--corpus`, `--root`, `--options` and `--labels`."""
    parser.add_argument(
        "--corpus", metavar="NAME", required=required, help="a corpus reader, such as emodb, folder, csv"
    )
    parser.add_argument("--root", metavar="ROOT", help="the corpus folder or file")
    add_pairs(parser, "--options", "KEY=VALUE", "what a recipe gives under corpus, such as speaker=parent")
    add_pairs(parser, "--labels", "WORD=EMOTION", f"{labels_help}; or a YAML or JSON file of such pairs")


def add_test(parser: argparse.ArgumentParser) -> None:
    """Declare a finished model, the corpus that it is tested on, and what `test_of` reads."""
    add_model(parser)
    add_corpus(
        parser,
        labels_help="emotion in the corpus = emotion of the model; null drops it (needed where the words differ). For "
        "a model that is not of this package, label of the model = emotion of the corpus, or null if it means none",
    )
    parser.add_argument(
        "--dimensions",
        metavar="FILE",
        help="for a model of values on scales: YAML or JSON with a centre for each emotion, such as "
        "anger: {arousal: 0.8, valence: 0.2}; a recording has the emotion whose centre is nearest",
    )
    parser.add_argument(
        *("--unseen-only", "--unheard-only"),  # the second is its former name
        action="store_true",
        help="leave out the speakers that the model was trained on, known by name or by a recording, and list them",
    )
    parser.add_argument("--split", choices=("train", "dev", "test"), help="only this part of the corpus' own split")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=8, help="clips per batch; the scores stay the same"
    )


def test_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """How a finished model is to be tested, as `evaluate_model` takes it: maps, what is left out, and batches."""
    dimensions = None
    if arguments.dimensions is not None:
        dimensions = read_map(Path(arguments.dimensions), "--dimensions", "anger: {arousal: 0.8, valence: 0.2}")
    return {
        "labels": label_map(arguments.labels) or None,
        "dimensions": dimensions,
        "unseen_only": arguments.unseen_only,
        "split": arguments.split,
        "batch_size": arguments.batch_size,
    }


def add_pairs(parser: argparse.ArgumentParser, name: str, metavar: str, help: str) -> None:
    """Declare an option of one or more `KEY=VALUE`, which may be repeated."""
    parser.add_argument(name, metavar=metavar, nargs="+", action="extend", default=[], help=help)


def pairs(texts: list[str]) -> dict[str, Any]:
    """Read the `KEY=VALUE` of `--options` as a recipe reads them."""
    return dict(parse_override(text, "speaker=parent") for text in texts)


def label_map(texts: list[str]) -> dict[str, Any]:
    """Read `--labels`: pairs, also several in one text with commas between them, and YAML or JSON files of pairs.

    Raises:
        RequestError: A text is no pair, a file holds none, or a word is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        is_file = "=" not in text and Path(text).suffix.lower() in MAP_SUFFIXES
        given = read_map(Path(text), "--labels", "WORD: EMOTION").items() if is_file else _pairs_in(text)
        for word, emotion in given:
            if word in found:
                raise RequestError(f"--labels gives {word!r} twice", "every word once", "take one of them out")
            found[word] = emotion
    return found


def _pairs_in(text: str) -> list[tuple[str, Any]]:
    """The pairs of one text; a comma belongs to a word where no other pair follows it."""
    return [parse_override(pair, "joy=happiness") for pair in re.split(r",(?=[^,=]+=)", text)]


def read_map(file: Path, option: str, line: str) -> dict[str, Any]:
    """Read a mapping from a YAML or JSON file that an option names; `line` is an example of what it may hold."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise RequestError(f"{option} {file} cannot be read ({reason})", "a YAML or JSON file", "correct it") from error
    content = load_yaml(text, str(file))
    if not isinstance(content, dict) or not content:
        raise RequestError(f"{option} {file} holds no mapping", "a YAML or JSON file of one", f"lines such as {line}")
    return content


def corpus_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The corpus as in a recipe."""
    return {"name": arguments.corpus, "root": arguments.root, **pairs(arguments.options)}


def picture_of(arguments: argparse.Namespace) -> Path | None:
    """Where `--picture` is to be; refused before any work where it cannot be drawn: no PNG file, or no matplotlib."""
    if arguments.picture is None:
        return None
    path = Path(arguments.picture)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise RequestError(f"the picture is to be {path}", "a file that ends in .png", "--picture corpus.png")
    if importlib.util.find_spec("matplotlib") is None:
        raise RequestError(
            "matplotlib is not installed", "matplotlib, to draw a picture", 'pip install "gmp-atl-hf[plots]"'
        )
    return path


def refuse_unwritable(file: Path, option: str = "") -> None:
    """Refuse a file that cannot be written before hours of work, not after."""
    if not file.parent.is_dir():
        raise RequestError(
            f"{option}{file} cannot be written", f"a folder {file.parent} to write to", f"mkdir -p {file.parent}"
        )
    try:
        with TemporaryFile(dir=file.parent):  # rights alone do not tell: root has them in places that take no files
            pass
    except OSError as error:
        found = f"{option}{file} cannot be written ({error.strerror})"
        fix = "choose another place, or change what is allowed there"
        raise RequestError(found, "a folder that may be written to", fix) from error


def writable_output(
    output: Path, example: str, instead: str = "give the name of a file", inputs: Sequence[str] = ()
) -> Path:
    """Refuse an `--output` that cannot be written before hours of work, not after, or would destroy what is read.

    Args:
        output: What was given.
        example: Name of a file that would do in a folder.
        instead: What to do where it is a device or pipe.
        inputs: The paths that are read.
    """
    if output.is_file() and any(Path(one).exists() and output.samefile(one) for one in inputs):
        raise RequestError(f"--output {output} is what is read", "another file", f"--output {example}")
    from ..data.audio import AUDIO_SUFFIXES

    if output.suffix.lower() in AUDIO_SUFFIXES:
        raise RequestError(
            f"--output {output} has the name of a recording", "the name of another file", f"--output {example}"
        )
    if output.is_dir():
        raise RequestError(f"--output {output} is a folder", "a file", f"--output {output / example}")
    if output.exists() and not output.is_file():
        raise RequestError(f"--output {output} is a device or pipe", "a file", instead)
    refuse_unwritable(output, "--output ")
    return output
