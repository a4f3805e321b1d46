"""Emotion of recordings of any kind, number and length."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from ..checkpoints import load_feature_extractor, quiet_transformers
from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.frames_gmp_atl import receptive_field
from ..modeling.modeling_gmp_atl import HubertForGMPATL
from .inputs import Inputs, Item, expand_inputs
from .predictions import Prediction, WindowScores
from .reading import Heard, Piece, Reader, run_ahead
from .windows import Windowing, coverage_weights

LONGEST_SECONDS = 60.0
"""Recordings longer than this are scored in windows of it unless other windows are asked for. Our choice: one emotion
of a whole hour means little, and attention over an hour needs more memory than there is."""

MOST_BATCH_SECONDS = 128.0
"""Seconds of audio per batch unless asked for otherwise. By the sizes of the first convolution's outputs, base and
large shapes need 2 to 3 GB of a GPU's memory for it; not tuned on one."""

CPU_ACTIVATION_BYTES = 32 << 20
"""Size of the first convolution's output, the largest there is, up to which larger batches pay on a CPU. Measured per
CPU second: the demo's narrow model gains a fifth from batches of 128 s, the base shape loses a tenth from 16 s."""


class SpeechEmotionClassifier:
    """Scores emotions of recordings.

    Recordings are read in background threads while the model works, batched with others of like length, and longer ones
    are cut into windows while they are read, so that memory depends on neither the number nor the length of recordings.
    A recording's scores do not depend on the recordings beside it (to 1e-4 in float32; bfloat16 rounds more).

    Args:
        model: The emotion model.
        feature_extractor: The checkpoint's `Wav2Vec2FeatureExtractor`.
        device: Where to compute; None for where the model is.
        batch_seconds: Most seconds of audio per batch, padding included; None for what suits the device,
            see `default_batch_seconds`.
        dtype: `"float32"`, `"bfloat16"`, or None for bfloat16 on CUDA devices that have it and float32 elsewhere. It
            is the precision of autocast: weights, cosines and probabilities stay float32.
        longest_seconds: Recordings longer than this are scored in windows of it when no windows are asked for; None
            scores them in one piece, which takes memory and time that grow with the square of the length.

    Raises:
        RequestError: There is no such device or precision, or a number of seconds is not above 0.

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
        dtype: str | torch.dtype | None = None,
        longest_seconds: float | None = LONGEST_SECONDS,
    ) -> None:
        self.device = model.device if device is None else resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        if batch_seconds is None:
            batch_seconds = default_batch_seconds(model.config, self.device)
        if not batch_seconds > 0:
            raise RequestError(f"batch_seconds is {batch_seconds}", "seconds, above 0", "leave it out")
        self.batch_seconds = batch_seconds
        self.longest = Windowing.from_seconds(longest_seconds)
        self.model: HubertForGMPATL = model.to(self.device).eval()  # type: ignore[arg-type]
        self.feature_extractor = feature_extractor

    @classmethod
    def from_pretrained(
        cls,
        model_id_or_folder: str | os.PathLike[str],
        device: str | torch.device | None = None,
        batch_seconds: float | None = None,
        dtype: str | torch.dtype | None = None,
        longest_seconds: float | None = LONGEST_SECONDS,
    ) -> SpeechEmotionClassifier:
        """Load a fine-tuned model.

        Args:
            model_id_or_folder: Hub id, or a folder such as `runs/demo/model`; a folder needs no network.
            device: Where to compute, such as `"cpu"` or `"cuda:1"`; None for the accelerator if there is one.
            batch_seconds: See the class.
            dtype: See the class.
            longest_seconds: See the class.

        Returns:
            The classifier.

        Raises:
            RequestError: There is no such model, it has no trained emotion head, or an argument is wrong.
        """
        chosen = resolve_device(device)
        model = load_emotion_model(os.fspath(model_id_or_folder))
        extractor = load_feature_extractor(os.fspath(model_id_or_folder))
        return cls(model, extractor, chosen, batch_seconds, dtype, longest_seconds)

    @property
    def labels(self) -> list[str]:
        """The emotions, in the order of the model's logits."""
        names: Any = self.model.config.id2label
        return [names[number] for number in sorted(names)]

    def __call__(
        self, inputs: Inputs, window: float | None = None, hop: float | None = None, progress: bool = False
    ) -> Prediction | list[Prediction]:
        """Score one recording, or many.

        Args:
            inputs: A path, a folder (with all below it), the bytes of a file, an open file, `(sampling_rate, array)`,
                `{"array", "sampling_rate"}`, `{"path", "bytes"}`, or many of these.
            window: Seconds of each window; None for none, unless a recording is longer than `longest_seconds`. The
                last window is shifted back to full length. Each is normalised by itself, as a clip would be.
            hop: Seconds from window to window; None for `window`.
            progress: Show a bar on stderr.

        Returns:
            A prediction for a single recording; for many, or a folder, a list of them in the order of the inputs. A
            recording that cannot be read has an `error` in place of scores and keeps the others from nothing.

        Raises:
            RequestError: The windows make no sense.
        """
        items, single = expand_inputs(inputs)
        predictions = self.predict(items, window, hop, progress)
        return predictions[0] if single else predictions

    def predict(
        self,
        inputs: Sequence[Item],
        window: float | None = None,
        hop: float | None = None,
        progress: bool = False,
    ) -> list[Prediction]:
        """Score recordings that are already listed, see `expand_inputs`; otherwise as calling the classifier."""
        windowing = Windowing.from_seconds(window, hop)
        config = self.model.config
        shortest = max(MINIMUM_SAMPLES, receptive_field(config.conv_kernel, config.conv_stride))
        reader = Reader(inputs, windowing, self.longest, shortest)
        total = sum(map(reader.work, range(len(inputs)))) / SAMPLING_RATE
        with tqdm(
            total=total,
            desc="predict",
            unit=" s of audio",
            disable=not progress,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]",
        ) as bar:
            self._score_all(reader, bar)
            bar.total = bar.n  # the headers were an estimate, and bad files are done with too
        return [self._prediction(item, heard) for item, heard in zip(inputs, reader.heard, strict=True)]

    def _score_all(self, reader: Reader, bar: Any) -> None:
        """Score batch by batch; a batch is fetched after the next one has been handed to the device."""
        running: tuple[list[Piece], Tensor] | None = None
        with closing(run_ahead(map(self._collate, reader.batches(self.batch_seconds)))) as batches:
            for pieces, inputs in batches:
                scores = self._score(inputs)
                if running is not None:
                    _keep(reader.heard, *running, bar)
                running = pieces, scores
        if running is not None:
            _keep(reader.heard, *running, bar)

    def _collate(self, pieces: list[Piece]) -> tuple[list[Piece], dict[str, Tensor]]:
        inputs = self.feature_extractor(
            [piece.waveform for piece in pieces],
            sampling_rate=SAMPLING_RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        batch = {"input_values": inputs["input_values"].float()}
        if len({len(piece.waveform) for piece in pieces}) > 1:
            batch["attention_mask"] = inputs["attention_mask"].long()
        return pieces, batch

    def _score(self, inputs: dict[str, Tensor]) -> Tensor:
        """(batch, labels) float32 probabilities on the device."""
        on_device = {name: values.to(self.device, non_blocking=True) for name, values in inputs.items()}
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, self.dtype == torch.bfloat16):
            logits = self.model(**on_device).logits
        return torch.softmax(logits.float(), dim=-1)

    def _prediction(self, item: Item, heard: Heard) -> Prediction:
        if heard.problem is not None:
            return Prediction(item.name, None, {}, None, error=heard.problem)
        labels = self.labels
        scores = np.stack(heard.scores)
        mean = _named(labels, coverage_weights(heard.spans) @ scores)
        windows = None
        if heard.windowed:
            windows = [
                WindowScores(start / SAMPLING_RATE, end / SAMPLING_RATE, _named(labels, row))
                for (start, end), row in zip(heard.spans, scores, strict=True)
            ]
        label = max(mean, key=mean.__getitem__)
        return Prediction(item.name, label, mean, heard.samples / SAMPLING_RATE, windows)


def load_emotion_model(checkpoint: str) -> HubertForGMPATL:
    """Load a fine-tuned emotion model in float32.

    Args:
        checkpoint: Folder or Hub id.

    Returns:
        The model; nothing in it is newly initialised.

    Raises:
        RequestError: There is no such model, it is of another kind, or weights are missing.
    """
    expected = "a fine-tuned GMP-ATL model: its folder or its id on the Hub (which needs a network once)"
    fix = "a run leaves one in runs/<name>/model"
    if not Path(checkpoint).is_dir() and (checkpoint.count("/") > 1 or checkpoint.startswith((".", "/", "~"))):
        raise RequestError(f"there is no folder {checkpoint}", expected, fix)
    try:
        with quiet_transformers():
            raw = PreTrainedConfig.get_config_dict(checkpoint)[0]
            if not raw:
                raise RequestError(f"{checkpoint} is no model: it has no config.json", expected, fix)
            kind, architectures = raw.get("model_type"), raw.get("architectures") or []
            if kind != GMPATLConfig.model_type or HubertForGMPATL.__name__ not in architectures:
                what = f"a {kind!r} model" + (f" ({', '.join(architectures)})" if architectures else "")
                raise RequestError(f"{checkpoint} is {what}, without emotions to predict", expected, fix)
            loaded: Any = HubertForGMPATL.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
            model: HubertForGMPATL = loaded[0]
            missing_keys = sorted(loaded[1]["missing_keys"])
    except RequestError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RequestError(f"the model {checkpoint} cannot be loaded: {reason}", expected, fix) from error
    if missing_keys:
        raise RequestError(
            f"the model {checkpoint} lacks weights: {', '.join(missing_keys[:5])}", "a complete model", "copy it again"
        )
    return model


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Find the device to compute on.

    Args:
        device: Its name; None for the accelerator if there is one, otherwise the CPU.

    Returns:
        A device that is there.

    Raises:
        RequestError: There is no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return torch.device("cpu") if accelerator is None else accelerator
    there = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise RequestError(f"there is no device {device!r}", ", ".join(there), f"device={there[-1]!r}") from error
    if chosen.type not in there or (chosen.index or 0) >= (
        torch.accelerator.device_count() if chosen.type != "cpu" else 1
    ):
        raise RequestError(f"the device {device!s} is not on this machine", ", ".join(there), f"device={there[-1]!r}")
    return chosen


def default_batch_seconds(config: GMPATLConfig, device: torch.device) -> float:
    """Seconds of audio per batch that suit a device.

    Args:
        config: The model's configuration; the width of its first convolution decides on a CPU.
        device: Where the computing is done.

    Returns:
        128 on accelerators; on a CPU at most as many as keep the first convolution's output in 32 MiB, about 5 in the
        base shape.
    """
    if device.type != "cpu":
        return MOST_BATCH_SECONDS
    bytes_per_second = SAMPLING_RATE / config.conv_stride[0] * config.conv_dim[0] * 4
    return min(MOST_BATCH_SECONDS, CPU_ACTIVATION_BYTES / bytes_per_second)


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Find the precision to compute in.

    Args:
        dtype: What was asked for; None or `"auto"` for bfloat16 on CUDA devices that have it, float32 elsewhere.
        device: Where the computing is done.

    Returns:
        `torch.float32` or `torch.bfloat16`.

    Raises:
        RequestError: Another precision was asked for.
    """
    if dtype is None or dtype == "auto":
        half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if half else torch.float32
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float32, torch.bfloat16):
        raise RequestError(f"dtype is {dtype!r}", "'float32', 'bfloat16' or None for the device's best", "dtype=None")
    return chosen


def _keep(heard: Sequence[Heard], pieces: Iterable[Piece], scores: Tensor, bar: Any) -> None:
    for piece, row in zip(pieces, scores.cpu().numpy().astype(np.float64), strict=True):
        heard[piece.item].spans.append(piece.span)
        heard[piece.item].scores.append(row)
        seconds = (piece.span[1] - piece.span[0]) / SAMPLING_RATE
        bar.total = max(bar.total, bar.n + seconds)
        bar.update(seconds)


def _named(labels: Sequence[str], values: npt.NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(labels, values.tolist(), strict=True))
