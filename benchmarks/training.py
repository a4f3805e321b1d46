"""Training: ours against stock `HubertForSequenceClassification` with the stock `Trainer` and dynamic padding.

    python benchmarks/training.py                                   # base shape, minutes on two cores
    python benchmarks/training.py --full                            # more steps and alternations
    python benchmarks/training.py --full --device cuda --bf16       # on a GPU, add --shape large for the large model

Both sides freeze the convolution front end, get whole clips and see the same audio seconds per optimiser step on
average; lengths are like IEMOCAP's (log-normal, mean 4.5 s, 0.6 to 30 s). The stock side takes random clips and pads
as its feature extractor does (base: zeros and no mask, large: with mask). Its waveforms are decoded beforehand and it
keeps HuBERT's LayerDrop of 0.1, which leaves out a tenth of its layers; ours has neither advantage. Weights and audio
are noise, made in memory. `sampler` is batches by seconds alone, `cache` the front-end cache alone, `pieces` (on
processors) random batches cut into pieces of like length, alone. The cache is full before anything is timed; what
filling costs is measured apart, on a few clips. With `--trained-layers` a side `top` trains so many layers on states of
those below, no frames masked; the states are noise, and to compute them would cost each clip a forward pass, once. With
`--bf16` on a CPU all of our sides have the attention that is quick there, and the stock side has not.

Seconds run from the first optimiser step's begin to the last one's end. In the default size the cache holds random
features for most clips, since only their shape matters to the time; `--full` computes them all. On a machine that
others use too, set OMP_NUM_THREADS=1 and read the processor seconds.

Batches differ much in how long their longest clip is, and a few of them could show anything. So each kind is drawn 300
times, and the turns take the draws whose work per second of audio is nearest to the mean of all. Stock, `cache` and
`pieces` get the same random batches.
"""

from __future__ import annotations

import argparse
import copy
import gc
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import numpy as np
import pyarrow as pa
import soundfile
import torch
from transformers import (
    HubertConfig,
    HubertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    Wav2Vec2FeatureExtractor,
    set_seed,
)

from gmp_atl_hf import GMPATLConfig, GMPATLTrainer, GMPATLTrainingArguments, HubertForGMPATL
from gmp_atl_hf.batching.feature_cache import FrontEndCache
from gmp_atl_hf.batching.layer_states import LowestLayers
from gmp_atl_hf.batching.sampler import StepBatchSampler
from gmp_atl_hf.checkpoints import quiet_transformers
from gmp_atl_hf.data.audio import SAMPLING_RATE, read_clip
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.training.microbatches import group_by_length
from gmp_atl_hf.training.top_layers import FOLDER

DRAWS = 300
EMOTIONS = ["anger", "happiness", "neutral", "sadness"]
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "base": {},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "conv_bias": True,
    },
}


def iemocap_like_seconds(clips: int) -> np.ndarray:
    """Log-normal lengths with mean 4.5 s, 0.6 to 30 s: the same for everybody, in random order; (clips,) float64."""
    rng = np.random.default_rng(0)
    return np.clip(rng.lognormal(np.log(4.5) - 0.65**2 / 2, 0.65, clips), 0.6, 30)


def noise_table(clips: int) -> datasets.Dataset:
    """A table of noise with IEMOCAP-like lengths."""
    rng = np.random.default_rng(1)
    samples = (iemocap_like_seconds(clips) * SAMPLING_RATE).astype(np.int64)
    columns: dict[str, list[Any]] = {"id": [], "audio": [], "emotion": [], "num_samples": samples.tolist()}
    for row, length in enumerate(samples):
        file = io.BytesIO()
        soundfile.write(file, (0.1 * rng.standard_normal(length)).astype(np.float32), SAMPLING_RATE, format="WAV")
        columns["id"].append(f"noise/{row}")
        columns["audio"].append({"path": None, "bytes": file.getvalue()})
        columns["emotion"].append(row % len(EMOTIONS))
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "audio": datasets.Audio(decode=False),
            "emotion": datasets.ClassLabel(names=EMOTIONS),
            "num_samples": datasets.Value("int64"),
        }
    )
    return datasets.Dataset(pa.Table.from_pydict(columns, schema=features.arrow_schema))


@dataclass(frozen=True)
class Timed:
    """One run of one side: wall and processor seconds of the loop, seconds of audio as read and as computed."""

    seconds: float
    cpu_seconds: float
    audio: float
    padded_audio: float
    flops: float

    @property
    def rate(self) -> float:
        """Seconds of audio per second."""
        return self.audio / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Seconds of audio per processor second of all threads."""
        return self.audio / self.cpu_seconds


class Stopwatch(TrainerCallback):
    """Time from the first step to the last."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.begun, self.spent = device, (0.0, 0.0), (0.0, 0.0)

    def _now(self) -> tuple[float, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.begun = self._now()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        wall, cpu = self._now()
        self.spent = wall - self.begun[0], cpu - self.begun[1]


class Bench:
    """The corpus, the cache and the settings that all sides share."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        self.device = torch.device(arguments.device)
        self.shape = SHAPES[arguments.shape]
        self.steps, self.clips = arguments.steps, arguments.clips_per_step
        self.table = noise_table(arguments.clips)
        self.samples = np.asarray(self.table["num_samples"])
        self.waveforms = [read_clip(audio) for audio in self.table["audio"]]
        # What the checkpoints of these shapes come with.
        masked = arguments.shape == "large"
        self.extractor = Wav2Vec2FeatureExtractor(do_normalize=masked, return_attention_mask=masked)
        self.batch_seconds = float(self.samples.mean() / SAMPLING_RATE * self.clips)
        self.cache_folder = folder / "front-end"
        names = dict(enumerate(EMOTIONS))
        self.config = GMPATLConfig(**self.shape, id2label=names, label2id={name: row for row, name in names.items()})
        self.common: dict[str, Any] = {
            "max_steps": self.steps,
            "per_device_train_batch_size": self.clips,
            "learning_rate": 1e-5,
            "bf16": arguments.bf16,
            "use_cpu": self.device.type == "cpu",
            "dataloader_num_workers": arguments.workers,
            "disable_tqdm": True,
            "report_to": "none",
            "save_strategy": "no",
            "eval_strategy": "no",
            "logging_strategy": "no",
            "remove_unused_columns": False,
        }

    # ---- the sides -----------------------------------------------------------------------------------------------

    def stock(self, seed: int) -> Timed:
        """The stock model, trainer and batches."""
        set_seed(0)
        config = HubertConfig(**self.shape, num_labels=len(EMOTIONS))
        model = HubertForSequenceClassification(config)
        model.freeze_feature_encoder()
        seen: list[list[int]] = []

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            seen.append([row["row"] for row in rows])
            waveforms = [self.waveforms[row["row"]] for row in rows]
            batch = self.extractor(waveforms, sampling_rate=SAMPLING_RATE, padding=True, return_tensors="pt")
            return {**batch, "labels": torch.tensor([row["emotion"] for row in rows])}

        emotions = self.table["emotion"]
        rows = [{"row": row, "emotion": emotions[row]} for batch in self.draw(seed, False) for row in batch]
        settings = {**self.common, "dataloader_num_workers": 0}  # nothing to decode
        watch = Stopwatch(self.device)
        trainer = Trainer(
            model,
            TrainingArguments(output_dir=str(self.folder / "stock"), train_sampling_strategy="sequential", **settings),
            data_collator=collate,
            train_dataset=rows,
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return self._timed(watch, seen[: self.steps], front_end=True)

    def ours(
        self, seed: int, sampler: bool = True, cache: bool = True, pieces: bool = True, top: int | None = None
    ) -> Timed:
        """Our model and trainer, with or without batches by seconds, the cache, and pieces of like length.

        With `top`, so many transformer layers are trained, on kept states of those below.
        """
        set_seed(0)
        model = HubertForGMPATL(copy.copy(self.config))
        if top is not None:
            model.config.mask_time_prob = 0.0
            below = LowestLayers(model, self.extractor, model.config.num_hidden_layers - top)
            states = FrontEndCache(self.folder / "ours" / FOLDER, model, self.extractor, below)
            self._write_noise(states, range(len(self.table)))
        watch = Stopwatch(self.device)
        arguments = GMPATLTrainingArguments(
            output_dir=str(self.folder / "ours"),
            seed=seed,
            max_seconds=None,
            batch_seconds=self.batch_seconds if sampler else None,
            load_best_model_at_end=False,
            metric_for_best_model=None,
            trained_layers=top,
            **self.common,
        )
        trainer = GMPATLTrainer(
            model,
            arguments,
            self.table,
            processing_class=self.extractor,
            callbacks=[watch],
            front_end_cache=self.cache_folder if cache else False,
        )
        batches = self.draw(seed, sampler)
        if pieces and self.device.type == "cpu":
            trainer.train()
            batches = [[batch[row] for row in piece] for batch in batches for piece in self._pieces(batch)]
        else:
            with mock.patch("gmp_atl_hf.training.trainer.split_by_length", lambda batch, config: [batch]):
                trainer.train()
        return self._timed(watch, batches, front_end=not cache, layers=top)

    def _pieces(self, batch: list[int]) -> list[list[int]]:
        config = self.config
        return group_by_length(
            [frame_count(int(self.samples[row]), config.conv_kernel, config.conv_stride) for row in batch]
        )

    @property
    def sides(self) -> dict[str, Callable[[int], Timed]]:
        """What is compared, by name; each is given the seed of its batches."""
        sides = {
            "stock": self.stock,
            "sampler": lambda seed: self.ours(seed, cache=False, pieces=False),
            "cache": lambda seed: self.ours(seed, sampler=False, pieces=False),
            "pieces": lambda seed: self.ours(seed, sampler=False, cache=False),
            "ours": self.ours,
        }
        if self.device.type != "cpu":
            del sides["pieces"]
        if (top := self.arguments.trained_layers) is not None:
            sides["top"] = lambda seed: self.ours(seed, top=top)
        return sides

    # ---- around them ---------------------------------------------------------------------------------------------

    def draw(self, seed: int, by_seconds: bool) -> list[list[int]]:
        """Rows of a turn's batches; the trainer's sampler draws the same from this seed."""
        sampler = StepBatchSampler(
            self.samples.tolist(), self.clips, seed=seed, batch_seconds=self.batch_seconds if by_seconds else None
        )
        return [[key.row for key in batch] for batch in sampler][: self.steps]

    def typical_seeds(self, by_seconds: bool, count: int) -> list[int]:
        """Seeds whose batches make as much work per second of audio, padding included, as batches do on average."""
        work = []
        for seed in range(DRAWS):
            batches = self.draw(seed, by_seconds)
            padded = sum(len(batch) * self._flops(int(self.samples[batch].max()), False) for batch in batches)
            work.append(padded / sum(int(self.samples[batch].sum()) for batch in batches))
        distance = np.abs(np.asarray(work) - np.mean(work))
        return np.argsort(distance, kind="stable")[:count].tolist()

    def fill(self) -> float:
        """Fill the cache, and say how many seconds of audio are decoded, computed, rounded and written per second."""
        set_seed(0)
        model = HubertForGMPATL(self.config).to(self.device)
        cache = FrontEndCache(self.cache_folder, model, self.extractor)
        rows = range(len(self.table))
        computed = rows if self.arguments.full else rows[:4]
        cache.fill(self.table.select([0]))  # warm
        begun = time.perf_counter()
        cache.fill(self.table.select(computed[1:]))
        seconds = time.perf_counter() - begun
        self._write_noise(cache, rows[len(computed) :])
        return float(self.samples[computed[1:]].sum() / SAMPLING_RATE / seconds)

    def _write_noise(self, cache: FrontEndCache, rows: range) -> None:
        names, rng = cache.names(self.table), np.random.default_rng(2)
        for row in rows:
            frames = frame_count(int(self.samples[row]), self.config.conv_kernel, self.config.conv_stride)
            noise = rng.standard_normal((frames, cache.front_end.channels), dtype=np.float32)
            cache.store.write(names[row], noise.astype(np.float16))

    def _timed(self, watch: Stopwatch, batches: list[list[int]], front_end: bool, layers: int | None = None) -> Timed:
        audio = sum(int(self.samples[batch].sum()) for batch in batches) / SAMPLING_RATE
        padded = sum(int(self.samples[batch].max()) * len(batch) for batch in batches) / SAMPLING_RATE
        flops = sum(self._flops(int(self.samples[row]), front_end, layers) for batch in batches for row in batch)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return Timed(*watch.spent, audio, padded, flops)

    def _flops(self, samples: int, front_end: bool, top: int | None = None) -> float:
        """Floating-point operations that one clip needs in a training step, padding not counted."""
        config = self.config
        total, steps, before = 0.0, samples, 1
        for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
            steps = (steps - kernel) // stride + 1
            total += 2.0 * steps * width * before * kernel
            before = width
        hidden, layers = config.hidden_size, config.num_hidden_layers if top is None else top
        each = 2 * layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)  # projections, feed-forward
        each += 4 * layers * steps * hidden  # scores, and the mean of the values
        if top is None:
            each += 2 * config.num_conv_pos_embeddings * hidden**2 // config.num_conv_pos_embedding_groups
            each += 2 * before * hidden
        # The backward pass costs twice the forward pass; the front end has none.
        return 3.0 * steps * each + (total if front_end else 0.0)

    def matrix_rate(self) -> float:
        """Operations per second of a large matrix product, best of five: what the machine can do at most."""
        dtype = torch.bfloat16 if self.arguments.bf16 else torch.float32
        size = 8192 if self.device.type == "cuda" else 1536
        left, right = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
        best = float("inf")
        for _ in range(6):
            begun = time.perf_counter()
            for _ in range(5):
                left @ right
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, (time.perf_counter() - begun) / 5)
        return 2.0 * size**3 / best


def compare(bench: Bench, repeats: int, warm: bool = True) -> dict[str, list[Timed]]:
    """All sides in turn, ``repeats`` times with other batches and in another order."""
    runs: dict[str, list[Timed]] = {name: [] for name in bench.sides}
    names = list(bench.sides)
    seeds = {name: bench.typical_seeds(name in ("sampler", "ours", "top"), repeats) for name in names}
    for turn in range(-1 if warm else 0, repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            timed = bench.sides[name](seeds[name][turn])
            if turn >= 0:  # the turn before sets up threads, kernels and memory
                runs[name].append(timed)
                spent = f"{timed.seconds:8.2f} s ({timed.cpu_seconds:.2f} processor)"
                print(f"  turn {turn + 1}: {name:<8} {spent} for {timed.audio:7.1f} s of audio", flush=True)
    return runs


def summarise(runs: dict[str, list[Timed]], matrix_rate: float) -> dict[str, dict[str, float]]:
    """Medians of each side, and of the ratios of each turn."""
    sides = {}
    for name, timed in runs.items():
        turns = list(zip(timed, runs["stock"], strict=True))
        sides[name] = {
            "audio_per_second": statistics.median(each.rate for each in timed),
            "audio_per_cpu_second": statistics.median(each.cpu_rate for each in timed),
            "ratio": statistics.median(each.rate / stock.rate for each, stock in turns),
            "ratio_cpu": statistics.median(each.cpu_rate / stock.cpu_rate for each, stock in turns),
            "ratio_of_totals": _total(timed) / _total(runs["stock"]),
            "padding": 1 - sum(each.audio for each in timed) / sum(each.padded_audio for each in timed),
            "audio_per_step": sum(each.audio for each in timed) / len(timed),
            "teraflops": statistics.median(each.flops / each.seconds for each in timed) / 1e12,
            "share_of_matrix_rate": statistics.median(each.flops / each.seconds for each in timed) / matrix_rate,
        }
    return sides


def _total(timed: list[Timed]) -> float:
    return sum(each.audio for each in timed) / sum(each.seconds for each in timed)


def show(sides: Mapping[str, Mapping[str, float]]) -> None:
    print("\nside       audio s / s   ratio  audio s / cpu s  cpu ratio  padding   TFLOP/s  of matrix rate")
    for name, side in sides.items():
        wall = f"{side['audio_per_second']:11.2f} {side['ratio']:7.2f}"
        cpu = f"{side['audio_per_cpu_second']:16.2f} {side['ratio_cpu']:10.2f}"
        card = f"{side['teraflops']:9.3f} {side['share_of_matrix_rate']:15.1%}"
        print(f"{name:<10} {wall} {cpu} {side['padding']:8.1%} {card}")


def hardware(device: torch.device) -> dict[str, Any]:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    return {"cpu": cpu, "cores": os.cpu_count(), "torch_threads": torch.get_num_threads(), "gpu": gpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more steps and turns, and a cache that is computed")
    parser.add_argument("--shape", choices=list(SHAPES), default="base", help="tiny only tries the script out")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--clips-per-step", type=int, help="of the stock side, and of ours on average")
    parser.add_argument("--steps", type=int, help="optimiser steps per turn")
    parser.add_argument("--clips", type=int, help="clips to draw from")
    parser.add_argument("--repeats", type=int, help="alternations; the medians are shown")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of our side")
    parser.add_argument("--trained-layers", type=int, help="add a side that trains so many layers, from the top")
    parser.add_argument("--cache-only", action="store_true", help="fill the cache, and train nothing")
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda"
    arguments.clips_per_step = arguments.clips_per_step or (32 if on_gpu else 8)
    arguments.steps = arguments.steps or (20 if on_gpu else 4 if arguments.full else 1)
    arguments.repeats = arguments.repeats or (5 if arguments.full else 3)
    arguments.clips = arguments.clips or (2_000 if on_gpu else 400)
    if arguments.steps * arguments.clips_per_step > arguments.clips:
        parser.error(f"{arguments.steps} steps of {arguments.clips_per_step} clips need as many --clips")
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        bench = Bench(arguments, Path(folder))
        print(f"{bench.samples.sum() / SAMPLING_RATE / 60:.0f} minutes of audio, {bench.batch_seconds:.0f} s per step")
        filling = bench.fill()
        disk = sum(file.stat().st_size for file in bench.cache_folder.rglob("*.npy"))
        per_hour = disk / (bench.samples.sum() / SAMPLING_RATE / 3600) / 1e6
        print(f"cache: filled at {filling:.1f} s of audio per second, {per_hour:.0f} MB per hour of audio")
        trained = not arguments.cache_only
        matrix_rate = bench.matrix_rate() if trained else 0.0
        runs = compare(bench, arguments.repeats, warm=on_gpu or arguments.full) if trained else {}
    sides = summarise(runs, matrix_rate) if trained else {}
    if trained:
        show(sides)
    packages = ("torch", "transformers", "accelerate", "numpy")
    result = {
        "benchmark": "training",
        **({"ratio": sides["ours"]["ratio"]} if trained else {}),
        "sides": sides,
        "turns": {name: [vars(each) for each in timed] for name, timed in runs.items()},
        "settings": vars(arguments),
        "cache": {"filled_audio_per_second": filling, "megabytes_per_hour": per_hour},
        **({"matrix_teraflops": matrix_rate / 1e12} if trained else {}),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "hardware": hardware(torch.device(arguments.device)),
    }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
