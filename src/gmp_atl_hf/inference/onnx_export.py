"""A model as ONNX: any number of clips of any length, compared with the model before it is kept."""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from scipy.special import softmax
from torch import Tensor, nn

from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE
from ..errors import RequestError
from ..files import write_whole
from ..modeling.families_gmp_atl import longest_samples
from ..modeling.frames_gmp_atl import receptive_field
from ..modeling.heads_gmp_atl import Standardization
from ..modeling.modeling_gmp_atl import HubertForGMPATL
from .speakers import fingerprint, refuse_without_statistics

TOLERANCE = 1e-4
"""Largest difference of a logit from the model's own."""

CHECKED_SECONDS = (0.5, 3.0, 12.0)
A_SPEAKER = "a speaker's statistics"
OPSET = 20
BLOCK = 32
"""Weights that share a scale in int8."""

_LARGEST_BYTES = 2**31 - 2**26  # an ONNX file is one protobuf message, which ends at 2 GiB
_VALUE_NORMALISATION = 1e-7  # added to the variance by Wav2Vec2FeatureExtractor
_INPUTS = ("input_values", "attention_mask")

SPEAKER_INPUTS = {"speaker_mean": "mean", "speaker_deviation": "deviation"}
"""Inputs that may be left out → what they replace: (size,) float32 `mean` and `deviation` of `SpeakerStatistics`."""


@dataclass(frozen=True)
class Int8Cost:
    """What 8-bit weights change, measured when the file was written.

    Args:
        largest_score_difference: Between probabilities of the exact and the 8-bit file, over all checks.
        megabytes_before: Size of the exact file.
        seconds_before: Time of the exact file for the 3 s clip, the best of five.
        seconds_after: Time of the 8-bit file for the same.
        largest_neighbour_difference: Of a logit, when a clip is scored alone and in a padded batch.
    """

    largest_score_difference: float
    megabytes_before: float
    seconds_before: float
    seconds_after: float
    largest_neighbour_difference: float


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Args:
        path: The ONNX file.
        settings: The JSON file beside it.
        megabytes: Size of the ONNX file.
        differences: Check → largest difference of a logit between the exact ONNX file and the model.
        int8: The cost of 8-bit weights; None for an exact file.
    """

    path: Path
    settings: Path
    megabytes: float
    differences: Mapping[str, float]
    int8: Int8Cost | None


class _Logits(nn.Module):
    """The model with the two inputs and the one output that the file has."""

    def __init__(self, model: HubertForGMPATL) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_values=input_values, attention_mask=attention_mask).logits
        return logits


def export_onnx(
    model: HubertForGMPATL, feature_extractor: Any, path: Path, int8: bool = False, speakers: bool = False
) -> ExportReport:
    """Write a model as ONNX, with its labels and settings as JSON beside it.

    Inputs are `input_values` (batch, samples) float32 at 16 kHz and `attention_mask` (batch, samples) int64, 1 on valid
    samples; the output is `logits` (batch, labels), calibrated: their softmax are the scores. Batch and length are
    free. The file is compared with the model at three lengths and in a padded batch, and is not written when a logit
    differs by more than `TOLERANCE`.

    With `speakers` there are two more inputs, which may be left out: `speaker_mean` and `speaker_deviation`, (size,)
    float32, which `SpeechEmotionClassifier.adapt` gives of the one speaker of all clips of a batch. onnxruntime then
    warns, whenever it loads the file, that these are no constants.

    8-bit weights are our choice: those of the linear layers, `BLOCK` of them to a scale; convolutions and activations
    between layers stay as they are, so that a clip's scores do not depend on the clips beside it.

    Raises:
        RequestError: The model is too large for one file, or has no statistics that a speaker's could replace.
        RuntimeError: The file does not score like the model.
    """
    if speakers:
        refuse_without_statistics(model)
    model = model.to("cpu", torch.float32).eval()  # type: ignore[arg-type]
    if sum(parameter.nbytes for parameter in model.parameters()) > _LARGEST_BYTES:
        raise RequestError(
            "the model is larger than 2 GiB", "a model that one ONNX file can hold", "a smaller backbone"
        )
    clips = _checked_clips(model, feature_extractor)
    expected = _expected(model, clips)
    settings = _settings(model, feature_extractor, speakers)
    exact = _convert(model, clips, settings)
    session = _session(exact)
    differences = _compare(expected, session, clips)
    if speakers:
        differences[A_SPEAKER] = _speaker_difference(model, session, clips["3 s"])
    if wrong := {check: value for check, value in differences.items() if not value <= TOLERANCE}:
        raise RuntimeError(
            f"{path} was not written: logits differ from the model's by more than {TOLERANCE:g}: "
            + ", ".join(f"{check} {value:.2g}" for check, value in wrong.items())
        )
    content, cost = exact, None
    if int8:
        content = _quantize(exact)
        cost = _int8_cost(session, _session(content), clips, len(exact))
    settings |= {"int8": None if cost is None else asdict(cost), "largest_logit_differences": differences}
    write_whole(path, content)
    write_whole(path.with_suffix(".json"), json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    return ExportReport(path, path.with_suffix(".json"), len(content) / 1e6, differences, cost)


def describe_export(report: ExportReport) -> str:
    """Say what was written, in a few lines."""
    checks = ", ".join(f"{check} {value:.1g}" for check, value in report.differences.items())
    lines = [
        f"{report.path}: {report.megabytes:.1f} MB; labels and settings in {report.settings}",
        f"largest difference of a logit from the model's: {checks} (at most {TOLERANCE:g})",
    ]
    if report.int8 is not None:
        cost = report.int8
        lines.append(
            f"int8: {report.megabytes / cost.megabytes_before:.0%} of {cost.megabytes_before:.1f} MB; scores differ by "
            f"up to {cost.largest_score_difference:.2g}; 3 s take {1000 * cost.seconds_after:.0f} ms instead of "
            f"{1000 * cost.seconds_before:.0f} ms on this machine; a clip alone and in a batch differ by "
            f"{cost.largest_neighbour_difference:.1g} at most"
        )
    return "\n".join(lines)


# ---- clips to check with ---------------------------------------------------------------------------------------------


def _checked_clips(model: HubertForGMPATL, feature_extractor: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Tones in noise, prepared as the model wants them: check → (samples,) float32."""
    config = model.config
    shortest = max(MINIMUM_SAMPLES, receptive_field(config.conv_kernel, config.conv_stride))
    most = (longest_samples(config) or math.inf) / SAMPLING_RATE
    seconds = [min(each, most) for each in CHECKED_SECONDS]
    lengths = {"shortest": shortest, **{f"{each:g} s": round(each * SAMPLING_RATE) for each in seconds}}
    generator = np.random.default_rng(0)
    clips = {}
    for number, (check, samples) in enumerate(lengths.items()):
        time_axis = np.arange(samples) / SAMPLING_RATE
        tone = np.sin(2 * np.pi * (140 + 90 * number) * time_axis) * np.sin(2 * np.pi * 2.5 * time_axis) ** 2
        wave = 0.1 * (number + 1) * tone + 0.02 * generator.standard_normal(samples) + 0.01 * number
        inputs = feature_extractor(wave.astype(np.float32), sampling_rate=SAMPLING_RATE, return_tensors="np")
        clips[check] = inputs["input_values"][0].astype(np.float32)
    return clips


def _batch(clips: Sequence[npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[Any]]:
    """Right-padded arrays."""
    values = np.zeros((len(clips), max(map(len, clips))), dtype=np.float32)
    mask = np.zeros(values.shape, dtype=np.int64)
    for row, clip in enumerate(clips):
        values[row, : len(clip)], mask[row, : len(clip)] = clip, 1
    return dict(zip(_INPUTS, (values, mask), strict=True))


# ---- making and comparing --------------------------------------------------------------------------------------------


def _settings(model: HubertForGMPATL, feature_extractor: Any, speakers: bool) -> dict[str, Any]:
    """What a program without this package has to know."""
    config = model.config
    return {
        "labels": config.emotions,
        "sampling_rate": SAMPLING_RATE,
        "channels": 1,
        "shortest_samples": max(MINIMUM_SAMPLES, receptive_field(config.conv_kernel, config.conv_stride)),
        **({} if (most := longest_samples(config)) is None else {"longest_samples": most}),
        "normalise": bool(feature_extractor.do_normalize),
        "normalise_epsilon": _VALUE_NORMALISATION,
        "inputs": list(_INPUTS),
        "output": "logits",
        "scores": "softmax(logits)",
        "logit_temperature_included": config.logit_temperature,
        "speaker_inputs": list(SPEAKER_INPUTS) if speakers else None,
        "model": fingerprint(model, feature_extractor),
    }


def _convert(
    model: HubertForGMPATL, clips: Mapping[str, npt.NDArray[np.float32]], settings: Mapping[str, Any]
) -> bytes:
    example = {name: torch.from_numpy(values) for name, values in _batch([clips["0.5 s"], clips["shortest"]]).items()}
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _Logits(model).eval(),
            (),
            kwargs=example,
            input_names=list(_INPUTS),
            output_names=["logits"],
            # The older exporter writes lengths of the example into the file: it is wrong for any other.
            dynamo=True,
            dynamic_shapes=dict.fromkeys(_INPUTS, free),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        written = program.model_proto
    if settings["speaker_inputs"]:
        _open_statistics(written)
    onnx.helper.set_model_props(written, {"gmp_atl": json.dumps(settings, ensure_ascii=False)})
    content: bytes = written.SerializeToString()
    return content


def _open_statistics(written: onnx.ModelProto) -> None:
    """Let the mean and deviation of the training clips be replaced: an initialiser that is an input is its default."""
    by_name = {each.name: each for each in written.graph.initializer}
    for name, replaced in SPEAKER_INPUTS.items():
        before = f"model.standardization.{replaced}"
        initializer = by_name[before]
        initializer.name = name
        for node in written.graph.node:
            node.input[:] = [name if each == before else each for each in node.input]
        value = onnx.helper.make_tensor_value_info(name, initializer.data_type, list(initializer.dims))
        written.graph.input.append(value)
        for known in [each for each in written.graph.value_info if each.name == before]:
            written.graph.value_info.remove(known)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporters' long output; importing onnxruntime's quantizer even sets up logging, which is undone."""
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)


def _quantize(exact: bytes) -> bytes:
    """Weights of linear layers in 8 bits, a scale for each `BLOCK` of them; activations in blocks of a row likewise."""
    with _quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=8)
        quantizer = MatMulNBitsQuantizer(onnx.load_from_string(exact), algo_config=config)
        quantizer.process()
    content: bytes = quantizer.model.model.SerializeToString()
    return content


def _session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(session: Any, clips: Sequence[npt.NDArray[np.float32]], statistics: Any = None) -> npt.NDArray[np.float32]:
    given = {} if statistics is None else dict(zip(SPEAKER_INPUTS, statistics, strict=True))
    logits: npt.NDArray[np.float32] = session.run(["logits"], {**_batch(clips), **given})[0]
    return logits


def _expected(
    model: HubertForGMPATL, clips: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Check → logits of the model itself, (labels,)."""
    with torch.no_grad():
        expected = {check: model(torch.from_numpy(clip)[None]).logits[0].numpy() for check, clip in clips.items()}
    if wrong := [check for check, logits in expected.items() if not np.isfinite(logits).all()]:
        raise RequestError(
            f"the model's logits are no finite numbers for {', '.join(wrong)}", "a model that scores", "train it again"
        )
    return expected


def _compare(
    expected: Mapping[str, npt.NDArray[np.float32]], session: Any, clips: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, float]:
    """Check → largest difference of a logit; the padded batch is compared with the model's scores of single clips."""
    found = {check: float(np.abs(_run(session, [clip])[0] - expected[check]).max()) for check, clip in clips.items()}
    together = _run(session, list(clips.values()))
    found["padded batch"] = float(np.abs(together - np.stack(list(expected.values()))).max())
    return found


def _speaker_difference(model: HubertForGMPATL, session: Any, clip: npt.NDArray[np.float32]) -> float:
    """Largest difference of a logit with the statistics of somebody."""
    usual = cast(Standardization, model.standardization)
    somebody = torch.stack([usual.mean + 0.3 * usual.deviation, 1.2 * usual.deviation])
    with torch.no_grad():
        wanted = model(torch.from_numpy(clip)[None], speaker_statistics=somebody).logits.numpy()
    return float(np.abs(_run(session, [clip], somebody.numpy()) - wanted).max())


def _int8_cost(before: Any, after: Any, clips: Mapping[str, npt.NDArray[np.float32]], bytes_before: int) -> Int8Cost:
    exact = np.concatenate([_run(before, [clip]) for clip in clips.values()]).astype(np.float64)
    alone = np.concatenate([_run(after, [clip]) for clip in clips.values()]).astype(np.float64)
    together = _run(after, list(clips.values()))
    clip = clips["3 s"]
    return Int8Cost(
        largest_score_difference=float(np.abs(softmax(exact, axis=1) - softmax(alone, axis=1)).max()),
        megabytes_before=bytes_before / 1e6,
        seconds_before=_best_time(before, clip),
        seconds_after=_best_time(after, clip),
        largest_neighbour_difference=float(np.abs(alone - together).max()),
    )


def _best_time(session: Any, clip: npt.NDArray[np.float32]) -> float:
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        _run(session, [clip])
        times.append(time.perf_counter() - begun)
    return min(times)
