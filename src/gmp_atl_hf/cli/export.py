"""`gmp-atl export`: a model as ONNX."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

from ..errors import RequestError
from .arguments import add_model, refuse_unwritable
from .console import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_model(parser)
    parser.add_argument("output", metavar="OUT.onnx", help="file to write; OUT.json with labels and settings beside it")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="weights in 8 bits: smaller, scores a little different (how much is printed)",
    )
    parser.add_argument(
        "--speakers",
        action="store_true",
        help="let the file take a speaker's statistics (speaker_mean and speaker_deviation, which may be left out)",
    )


def perform(arguments: argparse.Namespace) -> int:
    """Export a model, and leave nothing behind that does not score like it."""
    output = _writable(Path(arguments.output))
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise RequestError(f"{', '.join(missing)} not installed", "the extra `onnx`", 'pip install -e ".[onnx]"')
    from ..checkpoints import load_emotion_model, load_feature_extractor
    from ..inference.onnx_export import describe_export, export_onnx

    model = load_emotion_model(arguments.model)
    report = export_onnx(model, load_feature_extractor(arguments.model), output, arguments.int8, arguments.speakers)
    say(describe_export(report))
    return DONE


def _writable(output: Path) -> Path:
    """Refuse a place that cannot be written to before the work, not after."""
    if output.suffix != ".onnx" or output.is_dir():
        raise RequestError(f"the output is {output}", "a file that ends in .onnx", f"{output.with_suffix('.onnx')}")
    refuse_unwritable(output)
    beside = output.with_suffix(".json")
    if beside.exists() and not _is_export(beside):
        raise RequestError(
            f"{beside} is there, where labels and settings of {output.name} go",
            "a name that is free, or an earlier export",
            f"{output.with_name(output.stem + '-model.onnx')}",
        )
    return output


def _is_export(settings: Path) -> bool:
    """Whether a file holds the settings of an exported model; looked at before its packages are known to be there."""
    try:
        found = json.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "largest_logit_differences" in found
