"""Prediction: ours against the stock `pipeline("audio-classification")` and against other engines.

    python benchmarks/predict.py --int8               # base shape, 24 clips, float32 and int8: minutes on two cores
    python benchmarks/predict.py --full --int8        # 200 clips
    python benchmarks/predict.py --full --engines onnxruntime openvino     # and our exported model in these
    python benchmarks/predict.py --full --device cuda --precisions float32 bfloat16
    OMP_NUM_THREADS=1 python benchmarks/predict.py --shape mini --clips 60 --clip-seconds 5
    python benchmarks/predict.py --model runs/demo/model --recordings some/folder   # a trained model, real recordings

Both sides are given the same wav files (16 kHz, lengths log-normal as IEMOCAP's: mean 4.5 s, 0.6 to 30 s, in random
order) and run in turn in one process, models loaded and warmed up beforehand. The stock side is a
`HubertForSequenceClassification` of the same shape with random weights, at batch sizes 1 and 8; its files are read by
soundfile, since the pipeline itself would start ffmpeg for each. Ours is `SpeechEmotionClassifier` as `gmp-atl predict`
uses it. `engines.py` says how ONNX Runtime and OpenVINO compute the same model.

The table also says how far scores are from those of the model on each clip alone (`HubertForGMPATL` in float32 on the
CPU): the largest and the mean difference, and on how many clips the label is the same. Random weights say hardly
anything about recordings; for what int8 and bfloat16 cost, give a trained model. On a machine that others use too, set
OMP_NUM_THREADS=1 and read the processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from transformers import HubertConfig, HubertForSequenceClassification, pipeline

from engines import ENGINES, EngineSide, engine_side, packages_of, require
from gmp_atl_hf import GMPATLConfig, HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor, locate, quiet_transformers
from gmp_atl_hf.data.audio import SAMPLING_RATE, read_audio
from gmp_atl_hf.inference.predictions import Prediction
from gmp_atl_hf.inference.sources import list_folder

LABELS = dict(enumerate(("anger", "happiness", "neutral", "sadness")))
SHAPES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
        "conv_bias": True,
    },
}

NOT_OURS = ("model_type", "architectures", "dtype", "transformers_version", "seen_speakers")
"""Fields of a stored configuration that are not its shape."""

Scores = npt.NDArray[np.float64]
"""(clips, labels) probabilities."""


def shape_of(name: str) -> dict[str, Any]:
    """`HubertConfig` fields of a shape; `mini` and `small` are those of the encoders that come with the package."""
    if name in SHAPES:
        return SHAPES[name]
    stored = json.loads(Path(locate(name), "config.json").read_text("utf-8"))
    return {field: value for field, value in stored.items() if field not in NOT_OURS}


def write_clips(folder: Path, count: int, clip_seconds: float | None = None, seed: int = 0) -> list[Path]:
    """Noise with the slopes and pauses of speech, log-normal in length: mean 4.5 s, 0.6 to 30 s; or all of one."""
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        drawn = float(np.clip(rng.lognormal(np.log(4.5) - 0.6**2 / 2, 0.6), 0.6, 30))
        seconds = drawn if clip_seconds is None else clip_seconds
        samples = round(seconds * SAMPLING_RATE)
        knots = np.arange(0, samples + 3200, 3200)
        loudness = np.interp(np.arange(samples), knots, rng.random(len(knots)))
        wave = 0.05 * loudness * np.convolve(rng.standard_normal(samples), np.hanning(9), "same")
        paths.append(folder / f"{number:04}.wav")
        soundfile.write(paths[-1], wave, SAMPLING_RATE)
    return paths


def scores_alone(model: HubertForGMPATL, feature_extractor: Any, paths: list[Path]) -> Scores:
    """Each clip by itself through the model, in float32 on the CPU."""
    rows = []
    for path in paths:
        inputs = feature_extractor(read_audio(path), sampling_rate=SAMPLING_RATE, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(inputs["input_values"]).logits.softmax(-1)[0].double().numpy())
    return np.stack(rows)


def stock_side(shape: str, device: str, batch_size: int) -> Callable[[list[Path]], None]:
    config = HubertConfig(**shape_of(shape), id2label=LABELS, label2id={name: key for key, name in LABELS.items()})
    torch.manual_seed(0)
    model = HubertForSequenceClassification(config).eval()
    extractor = default_feature_extractor(config)
    # Base checkpoints are shipped without the mask, since the stock model has no use for it.
    extractor.return_attention_mask = config.feat_extract_norm == "layer"
    task = pipeline("audio-classification", model=model, feature_extractor=extractor, device=device)

    def predict(paths: list[Path]) -> None:
        task([soundfile.read(path, dtype="float32")[0] for path in paths], batch_size=batch_size)

    return predict


@dataclass(frozen=True)
class Turn:
    """One side's run: wall seconds and processor seconds of all threads."""

    seconds: float
    cpu_seconds: float


def timed(work: Callable[[], Any]) -> tuple[Turn, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return Turn(time.perf_counter() - wall, time.process_time() - cpu), result


def as_array(predictions: list[Prediction]) -> Scores:
    if bad := [one.error for one in predictions if one.error]:
        raise SystemExit("\n".join(bad))
    return np.array([list(one.scores.values()) for one in predictions])


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All sides in turn, as often as asked; medians, also of the ratios of each turn."""
    if arguments.model:
        plain = SpeechEmotionClassifier.from_pretrained(arguments.model, device="cpu")
        model, extractor = plain.model, plain.feature_extractor
    else:
        torch.manual_seed(0)
        labels = {"id2label": LABELS, "label2id": {name: key for key, name in LABELS.items()}}
        model = HubertForGMPATL(GMPATLConfig(**shape_of(arguments.shape), **labels)).eval()
        extractor = default_feature_extractor(model.config)
    paths = list_folder(arguments.recordings).recordings if arguments.recordings else []
    paths = (paths or write_clips(folder, arguments.clips, arguments.clip_seconds))[: arguments.clips]
    alone = scores_alone(model, extractor, paths)
    model.save_pretrained(folder / "model")
    extractor.save_pretrained(folder / "model")
    sides: dict[str, Callable[[list[Path]], Any]] = {}
    if not arguments.model:
        for size in arguments.stock_batches:
            sides[f"stock, batch {size}"] = stock_side(arguments.shape, arguments.device, size)
    engines = start_engines(arguments.engines, folder, model, extractor, paths)
    sides |= engines
    ours: dict[str, SpeechEmotionClassifier] = {}
    for precision in arguments.precisions:
        name = f"ours, {precision}"
        ours[name] = SpeechEmotionClassifier.from_pretrained(folder / "model", arguments.device, precision=precision)
        sides[name] = ours[name]
    runs: dict[str, list[Turn]] = {name: [] for name in sides}
    scores: dict[str, Scores] = {}
    for side in sides.values():
        side(paths[:3])  # threads, kernels and memory are set up before anything is timed
    for _ in range(arguments.repeats):
        for name, side in sides.items():
            turn, result = timed(lambda side=side: side(paths))
            runs[name].append(turn)
            if name in ours or name in engines:
                scores[name] = as_array(result)
    audio = sum(soundfile.info(path).duration for path in paths)
    return {
        "clips": len(paths),
        "audio_seconds": audio,
        "sides": {name: summary(runs, name, audio, alone, scores.get(name)) for name in sides},
        "engines": {
            name: {
                "way": side.way,
                "seconds_of_ways": side.tried,
                "times_as_quick": {mine: ratios(runs[name], runs[mine]) for mine in ours},
            }
            for name, side in engines.items()
        },
    }


def start_engines(
    names: list[str], folder: Path, model: HubertForGMPATL, feature_extractor: Any, paths: list[Path]
) -> dict[str, EngineSide]:
    """Export the model once, and make a side of each engine."""
    if not names:
        return {}
    from gmp_atl_hf.inference.onnx_export import export_onnx

    exported = export_onnx(model, feature_extractor, folder / "model.onnx").path
    return {name: engine_side(name, exported, model, feature_extractor, paths) for name in names}


def ratios(theirs: list[Turn], mine: list[Turn]) -> dict[str, float]:
    """How many times as quick ours is: medians of the turns' ratios, of wall and of processor seconds."""
    return {
        what: statistics.median(getattr(a, what) / getattr(b, what) for a, b in zip(theirs, mine, strict=True))
        for what in ("seconds", "cpu_seconds")
    }


def summary(runs: dict[str, list[Turn]], name: str, audio: float, alone: Scores, scores: Scores | None) -> Any:
    """What one side did: medians, its speed against the better stock side of each turn, and its scores."""
    found: dict[str, Any] = {
        "seconds": statistics.median(turn.seconds for turn in runs[name]),
        "cpu_seconds": statistics.median(turn.cpu_seconds for turn in runs[name]),
    }
    found["audio_seconds_per_second"] = audio / found["seconds"]
    stock = [turns for other, turns in runs.items() if other.startswith("stock")]
    if scores is not None:
        if stock:
            for what in ("seconds", "cpu_seconds"):
                best = [min(getattr(turn, what) for turn in turns) for turns in zip(*stock, strict=True)]
                ratios = [theirs / getattr(mine, what) for theirs, mine in zip(best, runs[name], strict=True)]
                found[f"times_the_better_stock_{what}"] = statistics.median(ratios)
        away = np.abs(scores - alone)
        found |= {
            "largest_score_difference": float(away.max()),
            "mean_score_difference": float(away.mean()),
            "same_label": float((scores.argmax(1) == alone.argmax(1)).mean()),
        }
    return found


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['clips']} clips, {result['audio_seconds']:.0f} s of audio")
    print(f"{'':<18} seconds  cpu seconds  audio s/s  × stock  × stock (cpu)  largest, mean difference  same label")
    for name, side in result["sides"].items():
        line = f"{name:<18} {side['seconds']:7.2f} {side['cpu_seconds']:12.2f} {side['audio_seconds_per_second']:10.1f}"
        if "same_label" in side:
            ratios = [side.get(f"times_the_better_stock_{what}") for what in ("seconds", "cpu_seconds")]
            line += "".join(
                f" {'-' if ratio is None else format(ratio, '.2f'):>{width}}"
                for ratio, width in zip(ratios, (8, 14), strict=True)
            )
            line += f" {side['largest_score_difference']:12.1e} {side['mean_score_difference']:12.1e}"
            line += f" {side['same_label']:11.1%}"
        print(line)
    for name, engine in result["engines"].items():
        print(f"\n{name}: {engine['way']}")
        for mine, times in engine["times_as_quick"].items():
            print(f"{mine}: {times['seconds']:.2f} × as quick, in processor seconds {times['cpu_seconds']:.2f} ×")


def hardware(device: str) -> dict[str, Any]:
    cpu, info = platform.processor(), Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    found: dict[str, Any] = {"cpu": cpu, "cores": os.cpu_count(), "torch_threads": torch.get_num_threads()}
    found["vnni"], found["amx"] = torch.cpu._is_vnni_supported(), torch.cpu._is_amx_tile_supported()
    return found | ({"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="200 clips")
    parser.add_argument("--clips", type=int, help="this many clips (default: 24)")
    parser.add_argument("--shape", choices=(*SHAPES, "mini", "small"), default="base")
    parser.add_argument("--clip-seconds", type=float, help="all clips of this length (default: lengths as IEMOCAP's)")
    parser.add_argument("--model", help="a trained model in place of random weights; the stock side is left out")
    parser.add_argument("--recordings", help="a folder of recordings in place of noise")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", help="of our side (default: float32)")
    parser.add_argument("--stock-batches", type=int, nargs="+", default=[1, 8], help="batch sizes of the stock side")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=[], help="sides beside ours, on the CPU")
    parser.add_argument("--int8", action="store_true", help="add int8 to the precisions")
    parser.add_argument("--repeats", type=int, default=3, help="alternations; the medians are shown")
    arguments = parser.parse_args()
    arguments.clips = arguments.clips or (200 if arguments.full else 24)
    arguments.precisions = arguments.precisions or ["float32"]
    if arguments.int8 and "int8" not in arguments.precisions:
        arguments.precisions.append("int8")
    if arguments.engines and arguments.device != "cpu":
        raise SystemExit(f"--engines are compared on the CPU; --device is {arguments.device}")
    require(arguments.engines)
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        result = compare(arguments, Path(folder))
    show(result)
    settings = {name: getattr(arguments, name) for name in ("shape", "model", "recordings", "device", "repeats")}
    used = ("torch", "transformers", "numpy", "soundfile", *packages_of(arguments.engines))
    versions = {"python": platform.python_version(), **{name: version(name) for name in used}}
    common = {"benchmark": "predict", **settings, "versions": versions}
    print("\n" + json.dumps({**common, "hardware": hardware(arguments.device), **result}))


if __name__ == "__main__":
    main()
