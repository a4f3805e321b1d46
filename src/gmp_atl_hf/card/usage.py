"""The example that a card shows: executed once, on a recording of the corpus, with what it printed kept."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import soundfile

from ..checkpoints import quiet_transformers
from ..data.audio import SAMPLING_RATE, read_clip
from ..files import json_of, write_known
from ..run_folder.layout import USAGE_FILE

MODEL_ID = "<model>"
AUDIO_FILE = "speech.wav"
CODE = f"""\
import soundfile
from transformers import pipeline

classifier = pipeline("audio-classification", model="{MODEL_ID}", trust_remote_code=True)
waveform, rate = soundfile.read("{AUDIO_FILE}", dtype="float32")  # one channel, 16 kHz
for score in classifier({{"raw": waveform, "sampling_rate": rate}}, top_k=None):
    print(f"{{score['label']:<12}} {{score['score']:.3f}}")
"""


def write_usage(model: Path, row: Mapping[str, Any], emotion: str, trained_on: bool) -> None:
    """Execute the example and keep what it printed in `usage.json`.

    Args:
        model: Folder of the model.
        row: A row of the table: `file` and `audio`.
        emotion: Name of its emotion.
        trained_on: Whether the model was trained on this recording.
    """
    # In memory: a killed run must not leave a recording of somebody in the temporary folder.
    audio = io.BytesIO()
    soundfile.write(audio, read_clip(row["audio"]), SAMPLING_RATE, subtype="FLOAT", format="WAV")
    audio.seek(0)
    output = run_example(CODE, model, audio)
    written = {"code": CODE, "output": output, "file": row["file"], "emotion": emotion, "trained_on": trained_on}
    write_known(model, {USAGE_FILE: json_of(written)})


def run_example(code: str, model: Path, audio: io.BytesIO) -> str:
    """Execute the example with a model and a recording in place of the names it shows.

    Args:
        code: `CODE`.
        model: Folder of a model.
        audio: A recording with one channel and 16 kHz, as a WAV file.

    Returns:
        What it printed.
    """
    # The names stand inside quotes, where a Windows path or a quote would end the text.
    code = code.replace(f'"{MODEL_ID}"', "MODEL").replace(f'"{AUDIO_FILE}"', "AUDIO")
    printed = io.StringIO()
    with quiet_transformers(), contextlib.redirect_stdout(printed):
        exec(
            compile(code, "<example of the model card>", "exec"),
            {"__name__": "example", "MODEL": str(model), "AUDIO": audio},
        )
    return printed.getvalue()
