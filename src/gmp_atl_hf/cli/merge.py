"""`gmp-atl merge`: an adapter and the model that it belongs to, as one plain model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import RequestError
from .console import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("adapter", metavar="ADAPTER", help="folder of an adapter, or its id on the Hub")
    parser.add_argument("output", metavar="FOLDER", help="folder to write the model to, new or empty")


def perform(arguments: argparse.Namespace) -> int:
    """Merge an adapter; labels, temperature, speakers and recordings heard are those that it was saved with."""
    output = Path(arguments.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RequestError(f"{output} is there already", "a folder that is new or empty", "choose another one")
    from ..checkpoints import (
        Adapter,
        heard_recordings,
        load_emotion_model,
        load_feature_extractor,
        locate,
        quiet_transformers,
        read_config,
        write_heard_recordings,
    )

    adapter, fix = locate(arguments.adapter), "a run whose fine-tuning has lora leaves one in runs/<name>/model/adapter"
    read_config(adapter, "the adapter", "an adapter: its folder or its id on the Hub", fix)  # that it is there
    if Adapter.find(adapter) is None:
        raise RequestError(f"{adapter} is a whole model", "an adapter", "there is nothing to merge: use it as it is")
    model, extractor = load_emotion_model(adapter), load_feature_extractor(adapter)
    heard = heard_recordings(adapter)
    with quiet_transformers():
        model.save_pretrained(output)
    extractor.save_pretrained(output)
    write_heard_recordings(output, heard)
    say(f"Model: {output}")
    return DONE
