"""Anybody's audio classifier or dimensional model, to be tested on a corpus."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import ClassLabel, Dataset
from torch import Tensor
from tqdm.auto import tqdm

from ..data.audio import SAMPLING_RATE, FloatArray
from ..data.columns import replace_column
from ..data.corpora import LeftOut
from ..data.spelling import spelling
from ..errors import RequestError, counted
from ..inference.audio_classifiers import AudioClassifier
from ..numerics import deterministic
from ..protocols.leakage import HeldOut
from ..protocols.speakers import UNKNOWN
from ..threads import prefetch
from .centres import Centres, centres_needed
from .label_match import LabelMatch, check_given, match_labels
from .steps import tested_rows
from .tested_model import Fitted, Row

NO_NEIGHBOURS = (
    "Recordings were scored one by one, or together only where their inputs have exactly the same length: nothing is "
    "padded for another one."
)


class AnyModel:
    """A checkpoint that transformers loads; whom it was trained on is not known.

    Args:
        checkpoint: Folder or Hub id.
        labels: Label of the model → emotion of the corpus, or None; not needed where names agree.
        dimensions: For a dimensional model: emotion → scale → where its centre lies.

    Raises:
        RequestError: It cannot be loaded or is no audio classifier, or a map is missing, wrong or superfluous.
    """

    corpus_labels = None
    heard = frozenset[str]()

    def __init__(
        self,
        checkpoint: str | Path,
        labels: Mapping[str, str | None] | None,
        dimensions: Mapping[str, Mapping[str, float]] | None,
    ) -> None:
        self.name = str(checkpoint)
        self.classifier = AudioClassifier.load(self.name, PartialState().device)
        own = self.classifier.labels
        self.seen = [*self.classifier.seen_speakers, UNKNOWN]
        self.centres: Centres | None = None
        if self.classifier.dimensional:
            if dimensions is None:
                raise centres_needed(own, self.name)
            if labels:
                raise RequestError(
                    f"{self.name} gives values on scales, and labels are mapped", "--dimensions", "leave out --labels"
                )
            self.centres = Centres.of(dimensions, own, self.name)
        elif dimensions is not None:
            raise RequestError(
                f"{self.name} tells labels ({', '.join(own)}), and centres on scales are given",
                "--labels",
                "leave out --dimensions",
            )
        self.given = check_given(own, labels or {}, self.name)
        self.match: LabelMatch | None = None

    def fit(self, table: Dataset) -> Fitted:
        """Leave out the recordings of emotions that the model cannot say; what it can say are the answers.

        Raises:
            RequestError: A label has no meaning given, or no recording is left.
        """
        names: list[str] = table.features["emotion"].names
        said = [names[number] for number in table["emotion"]]
        found = Counter(said)
        counts = {name: found[name] for name in names if found[name]}
        if self.centres is None:
            self.match = match_labels(self.classifier.labels, names, counts, self.given, self.name)
        else:
            own = {spelling(name): name for name in counts}
            meaning = {emotion: own.get(spelling(emotion)) for emotion in self.centres.emotions}
            self.match = LabelMatch(meaning, list(counts))
        told, answers = self.match.told, self.match.answers
        if not told:
            raise RequestError(
                f"no centre is that of an emotion of the corpus: {', '.join(self.match.meaning)}",
                f"emotions of the corpus: {', '.join(counts)}",
                "name the centres as the corpus does",
            )
        kept = table.select([row for row, emotion in enumerate(said) if emotion in told])
        left_out = [
            LeftOut(one, f"the model has no answer for {emotion}")
            for one, emotion in zip(table["id"], said, strict=True)
            if emotion not in told
        ]
        numbers = [answers.index(emotion) for emotion in said if emotion in told]
        missing = {emotion: counts[emotion] for emotion in self.match.untold}
        return Fitted(
            replace_column(kept, "emotion", numbers, feature=ClassLabel(names=answers)),
            answers,
            left_out,
            _stamps(told, missing),
            {
                "label_map": dict(self.match.meaning),
                "labels_without_emotion": list(self.match.strangers),
                "emotions_without_label": missing,
                "centres": None if self.centres is None else self.centres.describe(),
            },
        )

    def predict(self, fitted: Fitted, batch_size: int, held_out: HeldOut) -> list[Row]:
        """Answer for every row, in the table's order; the processes of several share the work."""
        held_out.refuse_speakers(self.classifier.seen_speakers, f"the model {self.name} has seen")
        return self.rows(fitted, self._outputs(fitted.table, batch_size))

    def scorer(self, fitted: Fitted) -> AnyScorer:
        """Scores waveforms by the model that is loaded."""
        return AnyScorer(self.classifier)

    def rows(self, fitted: Fitted, outputs: FloatArray) -> list[Row]:
        """Rows of predictions, from logits or values (rows, labels)."""
        assert self.match is not None
        rows = tested_rows(fitted.table)
        if self.centres is None:
            scores = self.match.scores(outputs)
            guesses = [fitted.names[int(score.argmax())] for score in scores]
            said: list[dict[str, Any]] = [
                {"scores": dict(zip(fitted.names, score, strict=True))} for score in scores.tolist()
            ]
        else:
            called = {**self.match.meaning, **self.match.strangers}
            guesses = [str(called[self.centres.emotions[one]]) for one in self.centres.nearest(outputs)]
            said = [{"values": dict(zip(self.classifier.labels, one, strict=True))} for one in outputs.tolist()]
        return [{**row, "predicted": guess, **more} for row, guess, more in zip(rows, guesses, said, strict=True)]

    def notes(self, fitted: Fitted, rows: Sequence[Row]) -> list[str]:
        """How labels or scales were read, what the model said that is no emotion here, and what it did not hear."""
        assert self.match is not None
        if self.centres is None:
            pairs = ", ".join(f"{label} → {emotion or chr(8211)}" for label, emotion in self.match.meaning.items())
            notes = [f"Labels of the model: {pairs}."]
        else:
            unused = [label for label in self.classifier.labels if label not in self.centres.scales]
            notes = [
                f"Nearest centre by Euclidean distance: {self.centres.describe()}."
                + (f" Not used: {', '.join(unused)}." if unused else "")
            ]
        if self.match.strangers:
            said = Counter(row["predicted"] for row in rows)
            listed = ", ".join(f"{label} ({said[called]})" for label, called in self.match.strangers.items())
            notes.append(
                f"Answers of the model that mean no emotion of the corpus, with how often it gave them: {listed}. Each "
                "counts as an error."
            )
        window = self.classifier.window
        samples = fitted.table["num_samples"]
        if window is not None and (long := sum(number > window * SAMPLING_RATE for number in samples)):
            notes.append(
                f"The model takes {window:g} s: of {counted(long, 'longer recording')} it got only the beginning."
            )
        return [*notes, NO_NEIGHBOURS]

    def _outputs(self, table: Dataset, batch_size: int) -> Any:
        """What the model gives for each row, (rows, labels)."""
        state, classifier = PartialState(), self.classifier
        cells, ids = table["audio"], table["id"]

        def prepare(group: list[int]) -> tuple[list[int], list[dict[str, Any]]]:
            return group, [classifier.prepare(cells[row]) for row in group]

        groups = _groups(table["num_samples"], batch_size, alike=classifier.window is not None)
        own = groups[state.process_index :: state.num_processes]
        found: list[tuple[int, Any]] = []
        total = sum(map(len, own))
        with deterministic(state.device), tqdm(total=total, desc="evaluate", unit="clip", disable=None) as bar:
            for group, clips in prefetch(prepare, own):
                found += zip(group, classifier.outputs(clips, [ids[row] for row in group]), strict=True)
                bar.update(len(group))
        gathered = dict(gather_object(found) if state.num_processes > 1 else found)
        return np.stack([gathered[row] for row in range(len(table))])


class AnyScorer:
    """Outputs of waveforms, by anybody's model.

    Args:
        classifier: The model.
    """

    most = None

    def __init__(self, classifier: AudioClassifier) -> None:
        self.classifier, self.sampling_rate = classifier, classifier.sampling_rate
        self.normalizes = bool(getattr(classifier.extractor, "do_normalize", False)) and classifier.window is None

    def batches(self, lengths: Sequence[int], batch_size: int) -> list[list[int]]:
        """Rows of one length, or any where the extractor makes all alike."""
        return _groups(lengths, batch_size, alike=self.classifier.window is not None)

    def prepare(self, waveforms: Sequence[FloatArray]) -> list[dict[str, Tensor]]:
        """Make the model's inputs of each waveform alone."""
        return [self.classifier.prepare((SAMPLING_RATE, waveform)) for waveform in waveforms]

    def outputs(self, batch: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> FloatArray:
        """Logits or values of a batch, (clips, labels) float32."""
        return self.classifier.outputs(batch, names)


def _groups(lengths: Sequence[int], batch_size: int, alike: bool) -> list[list[int]]:
    """Rows that may be scored together: of exactly one length, or any where the extractor makes all `alike`."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        by_length[0 if alike else length].append(row)
    size = max(1, batch_size)
    return [rows[start : start + size] for rows in by_length.values() for start in range(0, len(rows), size)]


def _stamps(told: Sequence[str], missing: Mapping[str, int]) -> list[str]:
    """Say beside every number that it is one over fewer emotions than the corpus has."""
    if not missing:
        return []
    listed = ", ".join(f"{emotion} ({count})" for emotion, count in missing.items())
    every = len(told) + len(missing)
    return [
        f"Tested on {len(told)} of the corpus' {every} emotions: the model has no answer for {listed}. UAR is the mean "
        f"recall over the {len(told)}."
    ]
