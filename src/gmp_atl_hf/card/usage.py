"""The example of a card, executed once on a recording of the corpus, with what it printed kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import soundfile

from ..data.audio import SAMPLING_RATE, read_clip
from ..files import json_of, write_known
from ..hub.example import CODE, run_example
from ..run_folder.layout import USAGE_FILE


def write_usage(model: Path, row: Mapping[str, Any], emotion: str, trained_on: bool) -> None:
    """Execute the example on a row of the table, and keep what it printed in the model's `usage.json`."""
    # In memory: a killed run must not leave a recording of somebody in the temporary folder.
    audio = io.BytesIO()
    soundfile.write(audio, read_clip(row["audio"]), SAMPLING_RATE, subtype="FLOAT", format="WAV")
    audio.seek(0)
    output = run_example(CODE, model, audio)
    written = {"code": CODE, "output": output, "file": row["file"], "emotion": emotion, "trained_on": trained_on}
    write_known(model, {USAGE_FILE: json_of(written)})
