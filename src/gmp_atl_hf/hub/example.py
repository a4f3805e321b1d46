"""The example that a card shows, and a way to execute it."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from ..checkpoints import quiet_transformers

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

ADAPTER_CODE = f"""\
from gmp_atl_hf import SpeechEmotionClassifier

classifier = SpeechEmotionClassifier.from_pretrained("{MODEL_ID}")
print(classifier("{AUDIO_FILE}"))
"""


def run_example(code: str, model: Path, audio: io.BytesIO) -> str:
    """Execute `code` with a model and a WAV file (one channel, 16 kHz) in place of its names, and return its output."""
    # The names stand inside quotes, where a Windows path or a quote would end the text.
    code = code.replace(f'"{MODEL_ID}"', "MODEL").replace(f'"{AUDIO_FILE}"', "AUDIO")
    printed = io.StringIO()
    with quiet_transformers(), contextlib.redirect_stdout(printed):
        exec(
            compile(code, "<example of the model card>", "exec"),
            {"__name__": "example", "MODEL": str(model), "AUDIO": audio},
        )
    return printed.getvalue()
