"""A fine-tuned model of this package, to be tested on a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import ClassLabel, Dataset
from torch import Tensor

from ..batching.collator import GMPATLDataCollator
from ..checkpoints import heard_recordings, load_emotion_model, load_feature_extractor, seen_speakers
from ..data.audio import SAMPLING_RATE, FloatArray, read_clip
from ..data.columns import replace_column
from ..errors import RequestError, counted, nearest
from ..inference.audio_classifiers import refuse_no_numbers
from ..inference.classifier import LONGEST_SECONDS
from ..modeling.families_gmp_atl import longest_samples
from ..numerics import no_tf32
from ..protocols.leakage import HeldOut
from ..training.checks import refuse_long_clips
from .steps import predict, predicted_rows
from .tested_model import Fitted, Row


class OwnModel:
    """One of this package, which knows its emotions and its speakers.

    Args:
        checkpoint: Folder or Hub id.
        labels: Emotion in the corpus → emotion of the model, or None to drop it.

    Raises:
        RequestError: There is no such model, it is damaged or of another kind.
    """

    def __init__(self, checkpoint: str | Path, labels: Mapping[str, str | None] | None) -> None:
        self.checkpoint, self.corpus_labels = checkpoint, labels
        self.emotions = load_emotion_model(str(checkpoint)).config.emotions
        load_feature_extractor(checkpoint)  # all of the model is read here: a damaged one is refused before the corpus
        self.seen, self.heard = seen_speakers(checkpoint), heard_recordings(checkpoint)

    def fit(self, table: Dataset) -> Fitted:
        """Number the emotions as the model does, and refuse those that it does not tell."""
        names = self.emotions
        own: list[str] = table.features["emotion"].names
        count = Counter(own[number] for number in table["emotion"])
        if strange := [name for name in own if name not in names and count[name]]:
            # `--labels` takes the corpus' own word, which an earlier mapping may have turned into this one.
            turned = (self.corpus_labels or {}).items()
            word = next((before for before, after in turned if after == strange[0]), strange[0])
            listed = ", ".join(f"{name} ({count[name]})" for name in strange)
            raise RequestError(
                f"the corpus has {listed}, which the model does not tell",
                f"the model's labels: {', '.join(names)}",
                f"--labels {word}={near}, or {word}=null to drop it"
                if (near := nearest(strange[0], names))
                else f"--labels {word}=null, or {word}={names[0]} if it is the same, and so on",
            )
        numbers = [names.index(own[number]) for number in table["emotion"]]
        return Fitted(replace_column(table, "emotion", numbers, feature=ClassLabel(names=list(names))), list(names))

    def predict(self, fitted: Fitted, batch_size: int, held_out: HeldOut) -> list[Row]:
        """Answer for every row, in the table's order."""
        return predict(self.checkpoint, fitted.table, batch_size, held_out).rows

    def scorer(self, fitted: Fitted) -> OwnScorer:
        """Load the model once more, on the device.

        Raises:
            RequestError: A recording is too long for the encoder.
        """
        scorer = OwnScorer(str(self.checkpoint))
        refuse_long_clips(fitted.table, scorer.model.config)
        return scorer

    def rows(self, fitted: Fitted, outputs: FloatArray) -> list[Row]:
        """Rows of predictions, from logits (rows, emotions)."""
        return predicted_rows(fitted.table, outputs.astype(np.float64))

    def notes(self, fitted: Fitted, rows: Sequence[Row]) -> list[str]:
        """The label map, and how many recordings are heard in one piece that are windows elsewhere."""
        pairs: Mapping[str, Any] = self.corpus_labels or {}
        notes = [f"Labels: {', '.join(f'{a} → {b or chr(8211)}' for a, b in pairs.items())}."] if pairs else []
        longer = sum(samples > LONGEST_SECONDS * SAMPLING_RATE for samples in fitted.table["num_samples"])
        if longer:
            notes.append(
                f"{counted(longer, 'recording')} longer than {LONGEST_SECONDS:g} s: tested in one piece each, as in a "
                "run. SpeechEmotionClassifier and `gmp-atl predict` score such recordings in windows."
            )
        return notes


class OwnScorer:
    """Logits of waveforms, to the bit those of the trainer's evaluation for the same recordings.

    Args:
        checkpoint: Folder or Hub id.
    """

    def __init__(self, checkpoint: str) -> None:
        self.name, self.device = checkpoint, PartialState().device
        self.model: Any = load_emotion_model(checkpoint).to(self.device).eval()
        extractor = load_feature_extractor(checkpoint)
        self.collator = GMPATLDataCollator(extractor, self.model.config, self.model.target_names, training=False)
        self.sampling_rate = SAMPLING_RATE
        self.most, self.normalizes = longest_samples(self.model.config), bool(extractor.do_normalize)

    def batches(self, lengths: Sequence[int], batch_size: int) -> list[list[int]]:
        """Neighbours in the order of length, as the trainer's evaluation puts them together."""
        order = np.argsort(np.asarray(lengths), kind="stable").tolist()
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def prepare(self, waveforms: Sequence[FloatArray]) -> dict[str, Tensor]:
        """Pad waveforms to a batch of model inputs."""
        return self.collator([{"waveform": read_clip((SAMPLING_RATE, waveform))} for waveform in waveforms])

    def outputs(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> FloatArray:
        """Logits of a batch, (clips, emotions) float32."""
        with torch.inference_mode(), no_tf32(self.device):
            logits = self.model(**{name: values.to(self.device) for name, values in batch.items()}).logits
        found: FloatArray = logits.float().cpu().numpy()
        refuse_no_numbers(self.name, found, names)
        return found
