"""Emotion of recordings with an exported model: needs numpy, soundfile and onnxruntime only.

gmp-atl export runs/demo/model demo.onnx
python classify_onnx.py demo.onnx speech.wav more.flac
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

if len(sys.argv) < 3:
    sys.exit(__doc__)
model, *files = sys.argv[1:]
settings = json.loads(Path(model).with_suffix(".json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
for file in files:
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    wave = samples.mean(axis=1)
    if rate != settings["sampling_rate"]:
        sys.exit(f"{file} has {rate} Hz; this example does not resample: ffmpeg -i {file} -ar 16000 out.wav")
    wave = np.pad(wave, (0, max(0, settings["shortest_samples"] - len(wave))))
    if settings["normalise"]:
        wave = (wave - wave.mean()) / np.sqrt(wave.var() + settings["normalise_epsilon"])
    inputs = {"input_values": wave[None], "attention_mask": np.ones((1, len(wave)), np.int64)}
    logits = session.run(["logits"], inputs)[0][0]
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(file, *(f"{label} {score:.4f}" for label, score in zip(settings["labels"], scores, strict=True)))
