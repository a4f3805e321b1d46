"""A fine-tuned model of this package, to be tested on a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset

from ..checkpoints import heard_recordings, load_emotion_model, load_feature_extractor, seen_speakers
from ..data.columns import replace_column
from ..errors import RequestError, nearest
from ..protocols.leakage import HeldOut
from .steps import predict
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

    def notes(self, fitted: Fitted, rows: Sequence[Row]) -> list[str]:
        """The label map."""
        pairs: Mapping[str, Any] = self.corpus_labels or {}
        return [f"Labels: {', '.join(f'{a} → {b or chr(8211)}' for a, b in pairs.items())}."] if pairs else []
