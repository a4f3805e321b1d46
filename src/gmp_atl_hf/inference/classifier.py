"""Emotion of recordings of any kind, number and length."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..checkpoints import load_emotion_model, load_feature_extractor
from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE
from ..errors import RequestError
from ..evaluation.unknown import is_unknown
from ..modeling.families_gmp_atl import longest_samples
from ..modeling.frames_gmp_atl import receptive_field
from ..modeling.modeling_gmp_atl import HubertForGMPATL
from ..threads import prefetch, torch_threads
from .copies import Copies
from .devices import default_batch_seconds, resolve_device, resolve_precision
from .emotion_stream import EmotionStream
from .eval_mode import in_eval_mode
from .predictions import Prediction, WindowScores, prediction_of
from .reader import Reader, ReadState, Segment
from .scorers import Scorer, make_scorer
from .sources import Inputs, Item, expand_inputs, identity_of
from .speakers import (
    SpeakerStatistics,
    fingerprint,
    refuse_no_statistics,
    refuse_without_statistics,
    statistics_of,
    warn_without_emotions,
    weights_fingerprint,
)
from .weights_state import WeightsState
from .windows import SlidingWindow, refuse_no_seconds

LONGEST_SECONDS = 60.0
"""Recordings longer than this are scored in windows of it unless other windows are given. Our choice: one emotion
of a whole hour means little, and attention over an hour needs more memory than there is."""

BATCHES_PER_THREAD = 4
"""Batches that a thread of the CPU gets at least, if there is a second of audio for each."""


class SpeechEmotionClassifier(Copies):
    """Scores emotions of recordings.

    Recordings are read in background threads while the model works, batched with others of similar length, and longer
    ones are cut into windows while they are read, so that memory hardly depends on the number or the length of
    recordings: what is kept of each is a row of scores per window or, while speakers are got to know (`adapt`,
    `predict_by_speaker`), the vector that its frames are pooled to (12 kB with the defaults and HuBERT base). A
    recording's scores do not depend on the recordings beside it, in float32 and int8 to 1e-4.

    Args:
        model: The emotion model; it may be trained on, or given other weights, between two calls: each call scores with
            those that it has then, in eval mode, and leaves it in the mode that it was in.
        feature_extractor: The checkpoint's `Wav2Vec2FeatureExtractor`.
        device: Where to compute; None for where the model is.
        batch_seconds: Most seconds of audio per batch, padding included; None for what suits the device,
            see `default_batch_seconds`.
        precision: `"float32"` is exact. `"int8"` (CPUs with VNNI or AMX) and `"bfloat16"` are quicker for wide models
            and change scores, by 0.0006 in the mean and 0.02 at most where we measured it (benchmarks/README.md);
            norms, attention in int8, cosines and probabilities stay float32. `"auto"` is bfloat16 on CUDA devices that
            have it and float32 elsewhere. Not the default: the scores of a recording would depend on the device, and
            in bfloat16 on its neighbours beyond 1e-4.
        longest_seconds: Recordings longer than this are scored in windows of it when no windows are given; None
            scores them in one piece, which takes memory and time that grow with the square of the length. Encoders
            that can hear no more than some seconds (Whisper's: 30) are given no more.

    Raises:
        RequestError: There is no such device, or no such precision on it, or a number of seconds is not above 0.

    Example:
        >>> classifier = SpeechEmotionClassifier.from_pretrained("runs/demo/model")  # doctest: +SKIP
        >>> classifier("interview.mp3", window=10, hop=5).label  # doctest: +SKIP
        'neutral'
    """

    def __init__(
        self,
        model: HubertForGMPATL,
        feature_extractor: Any,
        device: str | torch.device | None = None,
        batch_seconds: float | None = None,
        precision: str = "float32",
        longest_seconds: float | None = LONGEST_SECONDS,
    ) -> None:
        self.device = model.device if device is None else resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        if batch_seconds is None:
            batch_seconds = default_batch_seconds(model.config, self.device)
        refuse_no_seconds("batch_seconds", batch_seconds, endless=True)
        self.batch_seconds = batch_seconds
        # A clip needs one frame; 400 samples at least, as in training, see `read_clip`.
        self.shortest = max(MINIMUM_SAMPLES, receptive_field(model.config.conv_kernel, model.config.conv_stride))
        self.most = longest_samples(model.config)
        if longest_seconds is not None:
            refuse_no_seconds("longest_seconds", longest_seconds, self.shortest)
        if self.most is not None:
            longest_seconds = min(longest_seconds or math.inf, self.most / SAMPLING_RATE)
        self.longest = SlidingWindow.from_seconds(longest_seconds, shortest=self.shortest)
        self.model: HubertForGMPATL = model.to(self.device)  # type: ignore[arg-type]
        self.feature_extractor = feature_extractor
        self._make_ready()

    @classmethod
    def from_pretrained(
        cls,
        model_id_or_folder: str | os.PathLike[str],
        device: str | torch.device | None = None,
        batch_seconds: float | None = None,
        precision: str = "float32",
        longest_seconds: float | None = LONGEST_SECONDS,
    ) -> SpeechEmotionClassifier:
        """Load a fine-tuned model.

        Args:
            model_id_or_folder: Hub id, or a folder such as `runs/demo/model`; a folder needs no network.
            device: Where to compute, such as `"cpu"` or `"cuda:1"`; None for the accelerator if there is one.
            batch_seconds: See the class.
            precision: See the class.
            longest_seconds: See the class.

        Returns:
            The classifier.

        Raises:
            RequestError: There is no such model, it has no trained emotion head, or an argument is wrong.
        """
        chosen = resolve_device(device)
        resolve_precision(precision, chosen)  # a wrong one is refused before the model is loaded
        model = load_emotion_model(os.fspath(model_id_or_folder))
        extractor = load_feature_extractor(os.fspath(model_id_or_folder))
        return cls(model, extractor, chosen, batch_seconds, precision, longest_seconds)

    def _make_ready(self) -> None:
        """Make what scores with the weights that the model has now, and where it is now."""
        weights = WeightsState(self.model)
        self.device = self.model.device
        self._ready = make_scorer(self.model, self.feature_extractor, resolve_precision(self.precision, self.device))
        self._fingerprints: dict[tuple[Any, ...], str] = {}
        self._weights = weights  # last: another thread may ask whether they are still the same

    @property
    def _scorer(self) -> Scorer:
        """What scores with the model as it is now; asked for once in a call, since looking costs something."""
        if not self._weights.is_of(self.model):
            self._make_ready()
        return self._ready

    @property
    def labels(self) -> list[str]:
        """The emotions, in the order of the model's logits."""
        return self.model.config.emotions

    def __call__(
        self,
        inputs: Inputs,
        window: float | None = None,
        hop: float | None = None,
        progress: bool = False,
        speaker: SpeakerStatistics | None = None,
    ) -> Prediction | list[Prediction]:
        """Score one recording, or many.

        Args:
            inputs: A path, a folder (with all below it), the bytes of a file, an open file, `(sampling_rate, array)`,
                `{"array" or "raw", "sampling_rate"}`, `{"path", "bytes"}`, torchcodec's `AudioDecoder`, or many of
                these in a list, a column of a table or anything else that can be gone through.
            window: Seconds of each window; None for none, unless a recording is longer than `longest_seconds`. The
                last window is shifted back to full length. Each is normalised by itself, as a clip would be.
            hop: Seconds from window to window; None for `window`.
            progress: Show a bar on stderr.
            speaker: What `adapt` has given of the one speaker of all these recordings; None for a plain score.

        Returns:
            A prediction for a single recording; for many, or a folder, a list of them in the order of the inputs. A
            recording that cannot be read has an `error` in place of scores and keeps the others from nothing.

        Raises:
            RequestError: The windows make no sense, numbers come without a sampling rate, or the speaker's statistics
                are of another model.
        """
        items, single = expand_inputs(inputs)
        predictions = self.predict(items, window, hop, progress, speaker)
        return predictions[0] if single else predictions

    def predict(
        self,
        inputs: Sequence[Item],
        window: float | None = None,
        hop: float | None = None,
        progress: bool = False,
        speaker: SpeakerStatistics | None = None,
    ) -> list[Prediction]:
        """Score recordings that are already listed, see `expand_inputs`; otherwise as calling the classifier."""
        states = self._work(self._score_of(speaker), inputs, window, hop, progress)
        found = [prediction_of(item.name, state, self.labels) for item, state in zip(inputs, states, strict=True)]
        clips = None if speaker is None else speaker.clips
        return [one if one.error else replace(one, speaker_clips=clips) for one in found]

    @overload
    def stream(
        self,
        chunks: None = None,
        sampling_rate: int | None = None,
        window: float = 5.0,
        hop: float | None = None,
        speaker: SpeakerStatistics | None = None,
    ) -> EmotionStream: ...

    @overload
    def stream(
        self,
        chunks: Iterable[Any],
        sampling_rate: int | None = None,
        window: float = 5.0,
        hop: float | None = None,
        speaker: SpeakerStatistics | None = None,
    ) -> Iterator[WindowScores]: ...

    def stream(
        self,
        chunks: Iterable[Any] | None = None,
        sampling_rate: int | None = None,
        window: float = 5.0,
        hop: float | None = None,
        speaker: SpeakerStatistics | None = None,
    ) -> EmotionStream | Iterator[WindowScores]:
        """Score live audio, window by window, each as soon as it is complete.

        Args:
            chunks: Arrays or tensors of one recording as they come, see `EmotionStream.feed`; None to feed them.
            sampling_rate: Samples per second of the chunks, in Hz; it has to be given.
            window: Seconds of each window; windows and scores are those of calling the classifier on the whole.
            hop: Seconds from window to window; None for `window`.
            speaker: As for calling the classifier.

        Returns:
            An iterator over the scores of the windows; without chunks, an object with `feed(chunk)` and `finish()`.

        Raises:
            RequestError: An argument is wrong; of a chunk, when it comes.

        Example:
            >>> for one in classifier.stream(microphone, 44_100, window=5, hop=1):  # doctest: +SKIP
            ...     print(f"{one.end:.1f} s: {one.label}")
        """
        windowing = SlidingWindow.from_seconds(window, hop, self.shortest, self.most)
        self._score_of(speaker)  # statistics of another model are refused before anything comes
        live = EmotionStream(
            lambda waveforms: self._score_of(speaker)(self._ready.prepare(waveforms)),  # with the weights as they are
            self.labels,
            sampling_rate,
            windowing,
            self.shortest,
            self.batch_seconds,
        )
        return live if chunks is None else live.over(chunks)

    def _score_of(self, speaker: SpeakerStatistics | None) -> Callable[[Any], Tensor]:
        """What scores a batch, adapted to a speaker if there is one."""
        if speaker is None:
            return self._scorer.score
        refuse_no_statistics(speaker)
        refuse_without_statistics(self.model)
        speaker.refuse_other_model(self.fingerprint, self._weights_fingerprint())
        return partial(self._scorer.score, speaker_statistics=speaker.tensor().to(self.device))

    def adapt(
        self, recordings: Inputs, window: float | None = None, hop: float | None = None, progress: bool = False
    ) -> SpeakerStatistics:
        """Get to know a speaker by some of their recordings, of any emotions; no label is needed.

        What the recordings seem to express is taken out, see `Standardization.of_speakers`. Ten of them are much better
        than one, with which scores hardly change.

        Args:
            recordings: Of this one speaker, as for calling the classifier. A file that is given twice counts once.
            window: As for calling the classifier; each window counts as a recording.
            hop: As for calling the classifier.
            progress: Show a bar on stderr.

        Returns:
            What to give as `speaker` when recordings of the same speaker are scored, or to `save`.

        Raises:
            RequestError: A recording cannot be read, there is none, or the model has `standardize: false`.

        Example:
            >>> caller = classifier.adapt(["monday.wav", "tuesday.wav"])  # doctest: +SKIP
            >>> classifier("wednesday.wav", speaker=caller).speaker_clips  # doctest: +SKIP
            2
        """
        refuse_without_statistics(self.model)
        warn_without_emotions(self.model)
        items = {identity_of(item): item for item in expand_inputs(recordings)[0]}
        states = self._work(self._scorer.pool, list(items.values()), window, hop, progress)
        for state in states:
            if state.problem is not None:
                raise RequestError(state.problem, "recordings of one speaker that can be read", "leave it out")
        vectors = [vector for state in states for vector in state.scores]
        if not vectors:
            raise RequestError("there is no recording to adapt to", "one or more of the speaker's", "give some")
        everything = torch.ones(1, len(vectors), dtype=torch.bool)
        mean, deviation = statistics_of(self.model, self._on_device(np.stack(vectors)), everything)[0].cpu().numpy()
        return SpeakerStatistics(len(vectors), mean, deviation, self.fingerprint)

    def predict_by_speaker(
        self,
        inputs: Sequence[Item],
        speakers: Sequence[str],
        window: float | None = None,
        hop: float | None = None,
        progress: bool = False,
        apart: Sequence[Hashable] | None = None,
    ) -> list[Prediction]:
        """Score listed recordings of several speakers, adapted to all of each speaker's that can be read.

        A file that is listed twice, also under another path, has two predictions and counts once for its speaker.

        Args:
            inputs: See `expand_inputs`.
            speakers: Whose each of them is. Those whose name is `unknown`, or ends in `/unknown`, may be of many
                people: they are scored by the usual statistics.
            window: As for calling the classifier; each window counts as a recording.
            hop: As for calling the classifier.
            progress: Show a bar on stderr.
            apart: What each name comes from, such as its table: speakers of one name from two of them are two people.

        Returns:
            Predictions in the order of the inputs, with `speaker` and, where they were adapted, `speaker_clips`.

        Raises:
            RequestError: The windows make no sense, or the model has `standardize: false`.
        """
        refuse_without_statistics(self.model)
        warn_without_emotions(self.model)
        people = list(zip(apart or [None] * len(speakers), speakers, strict=True))
        keys = [(person, identity_of(item)) for person, item in zip(people, inputs, strict=True)]
        once = dict(zip(keys, inputs, strict=True))
        states = dict(zip(once, self._work(self._scorer.pool, list(once.values()), window, hop, progress), strict=True))
        of_person: dict[tuple[Hashable, str], list[ReadState]] = defaultdict(list)
        for (person, _), state in states.items():
            of_person[person].append(state)
        clips = {person: self._score_by_themselves(own, is_unknown(person[1])) for person, own in of_person.items()}
        found = []
        for item, person, key in zip(inputs, people, keys, strict=True):
            one = prediction_of(item.name, states[key], self.labels)
            found.append(replace(one, speaker=person[1], speaker_clips=None if one.error else clips[person]))
        return found

    def _score_by_themselves(self, states: Sequence[ReadState], unknown: bool) -> int | None:
        """Put scores in place of the pooled vectors of one speaker, adapted to all of them; how many they are.

        Those of nobody who is known are scored by the usual statistics, and their number says nothing: None.
        """
        vectors = [vector for state in states for vector in state.scores]
        if vectors:
            pooled, statistics = self._on_device(np.stack(vectors)), None
            if not unknown:
                statistics = statistics_of(self.model, pooled, torch.ones(1, len(vectors), dtype=torch.bool))[0]
            with torch.inference_mode(), in_eval_mode(self.model):
                logits = self.model.score(pooled, speaker_statistics=statistics)[0]["logits"]
            scores = iter(torch.softmax(logits.float(), dim=-1).cpu().numpy().astype(np.float64))
            for state in states:
                state.scores = list(islice(scores, len(state.scores)))
        return None if unknown else len(vectors)

    @property
    def fingerprint(self) -> str:
        """What statistics of a speaker say whose they are by; that of the model as it is now."""
        return fingerprint(self.model, self.feature_extractor, self._weights_fingerprint())

    def _weights_fingerprint(self) -> str:
        """Hashing all weights takes time: once until they change."""
        if not self._weights.is_of(self.model):
            self._make_ready()
        about = (*self.labels, self.model.config.logit_temperature)
        if about not in self._fingerprints:
            self._fingerprints[about] = weights_fingerprint(self.model)
        return self._fingerprints[about]

    def _on_device(self, pooled: npt.NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(pooled).to(self.device, torch.float32)

    def _work(
        self,
        compute: Callable[[Any], Tensor],
        inputs: Sequence[Item],
        window: float | None,
        hop: float | None,
        progress: bool,
    ) -> list[ReadState]:
        """Recordings as far as they could be read, with a row of what is computed for each of their windows."""
        windowing = SlidingWindow.from_seconds(window, hop, self.shortest, self.most)
        reader = Reader(inputs, windowing, self.longest, self.shortest)
        total = sum(map(reader.work, range(len(inputs)))) / SAMPLING_RATE
        with tqdm(
            total=total,
            desc="predict",
            unit=" s of audio",
            disable=not progress,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]",
        ) as bar:
            self._compute_all(compute, reader, bar)
            bar.total = bar.n  # the headers were an estimate, and bad files are done with too
        return reader.states

    def _compute_all(self, compute: Callable[[Any], Tensor], reader: Reader, bar: Any) -> None:
        """Batches are read while others are computed; on a CPU several at once, if there are several."""
        scorer, seconds, total = self._ready, self.batch_seconds, bar.total
        if scorer.side_by_side and (threads := torch_threads()) > 1:
            # In fewer batches than that, one thread would end long before another.
            seconds = min(seconds, max(1.0, total / (BATCHES_PER_THREAD * threads)))

        def prepare(segments: list[Segment]) -> tuple[list[Segment], Any]:
            return segments, scorer.prepare([segment.waveform for segment in segments])

        def work(batch: tuple[list[Segment], Any]) -> tuple[list[Segment], Tensor]:
            segments, prepared = batch
            return segments, compute(prepared)

        side_by_side = scorer.side_by_side and total > seconds
        with (
            closing(prefetch(prepare, reader.batches(seconds, scorer.padded), threads=1)) as prepared,
            closing(prefetch(work, prepared, torch_threads() if side_by_side else 1, side_by_side)) as computed,
        ):
            for segments, rows in computed:
                for seconds in reader.keep(segments, rows.cpu().numpy().astype(np.float64)):
                    bar.total = max(bar.total, bar.n + seconds)
                    bar.update(seconds)
