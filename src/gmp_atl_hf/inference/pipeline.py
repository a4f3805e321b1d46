"""The pipeline task `speech-emotion-recognition`: `audio-classification` that takes recordings as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import GeneratorType
from typing import Any, cast

import numpy as np
from huggingface_hub import get_session
from torch import Tensor
from torch.utils.data import Dataset
from transformers.pipelines.audio_classification import AudioClassificationPipeline
from transformers.pipelines.base import ChunkPipeline

from ..data.arrays import is_numbers, refuse_rate_last
from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE, FloatArray
from ..data.audio_stream import read_blocks
from ..errors import RequestError, did_you_mean
from ..modeling.families_gmp_atl import longest_samples
from ..modeling.frames_gmp_atl import receptive_field
from .classifier import LONGEST_SECONDS
from .predictions import NO_NUMBERS
from .sources import is_one
from .windows import SlidingWindow, coverage_weights, cut_windows

_OF_CALLS = frozenset({"top_k", "function_to_apply"})
"""The stock task's own arguments, beside those that every pipeline takes."""


class SpeechEmotionRecognitionPipeline(ChunkPipeline, AudioClassificationPipeline):
    """A drop-in for `pipeline("audio-classification")`: the same arguments, the same results.

    What the stock task cannot do works here: a path or bytes without ffmpeg, another sampling rate without torchaudio,
    stereo, clips below one frame, and recordings of any length, read piece by piece and scored in windows whose
    probabilities are averaged by the samples they cover. Works for every model of raw 16 kHz audio, not only for ours.

    Besides the stock arguments, a call or the pipeline itself takes `window` and `hop` in seconds, see
    `SpeechEmotionClassifier`.

    Example:
        >>> import gmp_atl_hf  # registers the task
        >>> from transformers import pipeline
        >>> pipe = pipeline("speech-emotion-recognition", model="runs/demo/model")  # doctest: +SKIP
        >>> pipe("interview.mp3", top_k=1)  # doctest: +SKIP
        [{'score': 0.93, 'label': 'neutral'}]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.extractor = cast(Any, self.feature_extractor)
        if self.extractor.sampling_rate != SAMPLING_RATE:
            raise RequestError(
                f"the model takes {self.extractor.sampling_rate} Hz",
                f"a model of {SAMPLING_RATE} Hz, as HuBERT and its relatives are",
                'pipeline("audio-classification")',
            )

    @property
    def shortest(self) -> int:
        """Fewest samples that the model can score."""
        config = self.model.config
        kernels, strides = getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ())
        return max(MINIMUM_SAMPLES, receptive_field(kernels, strides))

    @property
    def most(self) -> int | None:
        """Most samples that the model can score at once; None for no limit."""
        return longest_samples(self.model.config)

    def _sanitize_parameters(  # type: ignore[override]
        self, window: float | None = None, hop: float | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        kwargs.pop("framework", None)  # of transformers 4, which the stock task ignores as well
        if unknown := sorted(kwargs.keys() - _OF_CALLS):
            known = sorted({*_OF_CALLS, "window", "hop", "batch_size", "num_workers"})
            raise RequestError(
                f"the pipeline has no argument {unknown[0]}",
                f"one of {', '.join(known)}",
                did_you_mean(unknown[0], known, "leave it out"),
            )
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)  # type: ignore[no-untyped-call]
        if window is not None or hop is not None:
            preprocess["windowing"] = SlidingWindow.from_seconds(window, hop, self.shortest, self.most)
        return preprocess, forward, postprocess

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Score one recording, or many; a dataset of torch or a generator gives its results one by one, as stock.

        Args:
            inputs: Everything `read_audio` takes, an address, or an array of samples at the model's rate; or many of
                these in a list, a column of a table, or anything else that can be gone through.
            **kwargs: The stock task's arguments, `window` and `hop`.

        Returns:
            The best labels of the recording, a list of `{"score", "label"}`; for many recordings a list of such lists.

        Raises:
            RequestError: A recording cannot be read, the windows make no sense, or there is no such argument.
        """
        refuse_rate_last(inputs)
        lazily = isinstance(inputs, (GeneratorType, Dataset))
        if lazily or is_one(inputs) or (not isinstance(inputs, list) and is_numbers(inputs)):
            return super().__call__(inputs, **kwargs)
        return list(super().__call__((one for one in inputs), **kwargs))  # type: ignore[arg-type]

    def preprocess(  # type: ignore[override]
        self, inputs: Any, windowing: SlidingWindow | None = None
    ) -> Iterator[dict[str, Any]]:
        """Read a recording and give its windows, of which a short recording has one."""
        longest = LONGEST_SECONDS if self.most is None else min(LONGEST_SECONDS, self.most / SAMPLING_RATE)
        windows = windowing or SlidingWindow.from_seconds(longest)
        assert windows is not None
        pieces = (
            (span, chunk.waveform(span))
            for chunk in cut_windows(read_blocks(_as_source(inputs)), windows)
            for span in chunk.spans
        )
        span, waveform = next(pieces)
        for following in pieces:
            yield self._piece(span, waveform, False)
            span, waveform = following
        yield self._piece(span, waveform, True)

    def _piece(self, span: tuple[int, int], waveform: FloatArray, is_last: bool) -> dict[str, Any]:
        waveform = np.pad(waveform, (0, max(0, self.shortest - len(waveform))))
        inputs = self.extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        if self.dtype is not None:
            inputs = inputs.to(dtype=self.dtype)
        return {"span": span, "is_last": is_last, **inputs}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        passed = {name: model_inputs.pop(name) for name in ("span", "is_last")}
        return {"logits": self.model(**model_inputs).logits, **passed}

    def postprocess(  # type: ignore[override]
        self, model_outputs: Sequence[Mapping[str, Any]], top_k: int = 5, function_to_apply: str | None = None
    ) -> list[dict[str, Any]]:
        """The best labels of a recording, from the logits of its windows."""
        weights = coverage_weights([output["span"] for output in model_outputs])
        scores = [self._apply(output["logits"][0], function_to_apply) for output in model_outputs]
        mean = sum(score * float(weight) for score, weight in zip(scores, weights, strict=True))
        assert isinstance(mean, Tensor)
        if not mean.isfinite().all():
            raise RequestError(f"the model's {NO_NUMBERS}", "finite scores", "another model, or dtype=torch.float32")
        values, ids = mean.topk(top_k)
        names: Any = self.model.config.id2label
        return [
            {"score": value, "label": names[number]}
            for value, number in zip(values.tolist(), ids.tolist(), strict=True)
        ]

    def _apply(self, logits: Tensor, function: str | None) -> Tensor:
        """(labels,) scores; the function is the stock task's unless one was given."""
        kind = self.model.config.problem_type
        defaults = {"regression": "none", "multi_label_classification": "sigmoid"}
        function = function or defaults.get(str(kind), "softmax")
        if function == "softmax":
            return logits.softmax(-1)
        return logits.sigmoid() if function == "sigmoid" else logits


def _as_source(inputs: Any) -> Any:
    """What only this task takes, addresses and numbers at the model's rate, as what `read_audio` takes."""
    if isinstance(inputs, str) and inputs.startswith(("http://", "https://")):
        # The Hub client's own session: its proxies and its offline switch count here too.
        response = get_session().get(inputs, follow_redirects=True)
        return {"path": inputs, "bytes": response.raise_for_status().content}
    return (SAMPLING_RATE, inputs) if is_numbers(inputs) and not is_one(inputs) else inputs
