"""On paper: hours, disk and memory of the method on 12, 240 and 10,000 hours of audio, and what gives way first.

    python benchmarks/training.py | tee benchmarks/results/training-cpu.json    # and the others, where there is time
    python benchmarks/estimate.py benchmarks/results/*.json
    python benchmarks/estimate.py --train-rate 900 --fill-rate 4000             # figures of one's own, audio s per s

Reads the JSON lines of the other benchmarks and computes what one fold and one seed of the whole method would take,
base HuBERT, epochs like those of the recipe `iemocap`. Every figure carries how it came about:

    measured   by a benchmark, on the device the column is about
    scaled     measured on another device, times the ratio of the matrix rates (`--gpu-teraflops` times
               `--gpu-share`, over what the training benchmark reached)
    counted    bytes that follow from shapes and number formats
    assumed    neither: see the options

Eight devices are taken to be eight times as fast as one, which leaves out what they wait for each other.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmp_atl_hf.pseudo_labels.frame_sample import EXTRACTED_FRAMES
from gmp_atl_hf.recipe.sections import PseudoLabelSpec

CORPORA = {"IEMOCAP": 12.0, "MSP-Podcast": 240.0, "10,000 hours": 10_000.0}
DEVICES = (1, 8)
EPOCHS = {"multitask": 15, "retrain": 40, "finetune": 15}
FRAMES_PER_HOUR = 50 * 3600
CHANNELS, HIDDEN, PARAMETERS = 512, 768, 95_000_000
MEAN_SECONDS = 4.5
FINGERPRINT_BYTES = 2 * (1 << 16)
"""Read of each recording at every start: its first and last 64 KiB."""


@dataclass(frozen=True)
class Fact:
    """A number and how it came about."""

    value: float
    how: str

    def __str__(self) -> str:
        return f"{self.value:,.4g} ({self.how})"


def read_results(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Every JSON line of the files that names a benchmark; what else they hold is passed over."""
    found = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and "benchmark" in (content := json.loads(line)):
                found.append(content)
    return found


def pick(results: Sequence[Mapping[str, Any]], name: str, gpu: bool, shape: str | None = None) -> Any:
    """The last result of a benchmark on this kind of device, and of this shape; None without one."""
    for result in reversed(results):
        told = result.get("device", (result.get("settings") or {}).get("device", "cpu"))
        shapes = (result.get("shape"), (result.get("settings") or {}).get("shape"), None)
        if result["benchmark"] == name and (told != "cpu") is gpu and (shape is None or shape in shapes):
            return result
    return None


def rates(results: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> dict[str, dict[str, Fact]]:
    """Audio seconds per second of training, of filling the cache and of labelling, on the processor and on a GPU."""
    found: dict[str, dict[str, Fact]] = {}
    cpu = pick(results, "training", gpu=False, shape="base")
    for kind, gpu in (("this processor", False), ("a GPU", True)):
        own = pick(results, "training", gpu, "base")
        of: dict[str, Fact] = {}
        if own is not None:
            of["train"] = Fact(own["sides"]["ours"]["audio_per_second"], "measured")
            of["fill"] = Fact(own["cache"]["filled_audio_per_second"], "measured")
        elif gpu and cpu is not None:
            factor = options.gpu_teraflops * options.gpu_share / cpu["sides"]["ours"]["teraflops"]
            of["train"] = Fact(cpu["sides"]["ours"]["audio_per_second"] * factor, "scaled")
            of["fill"] = Fact(cpu["cache"]["filled_audio_per_second"] * factor, "scaled")
        if options.train_rate and gpu:
            of["train"] = Fact(options.train_rate, "given")
        if options.fill_rate and gpu:
            of["fill"] = Fact(options.fill_rate, "given")
        labels = pick(results, "pseudo_labels", gpu, "base")
        if labels is not None:
            ten = labels["sizes"]["ten"]
            # Its step reads all audio once to label it and a part of it to cluster it.
            seconds = ten["audio_seconds"] * (1 + min(1.0, sampled_hours() * 3600 / ten["audio_seconds"]))
            of["label"] = Fact(seconds / ten["seconds"], "measured")
        elif "train" in of:
            # Forward alone, from the cache: a third of a training step's arithmetic.
            of["label"] = Fact(3 * of["train"].value, f"three times the training rate, {of['train'].how}")
        if {"train", "fill"} <= set(of):
            found[kind] = of
    return found


def sampled_hours() -> float:
    """Most audio that is read to draw the frames to cluster."""
    return EXTRACTED_FRAMES * PseudoLabelSpec().sample_frames / FRAMES_PER_HOUR


def hours_taken(hours: float, of: Mapping[str, Fact], devices: int, fit: Fact) -> dict[str, Fact]:
    """Hours of each part of one fold and seed."""

    def passes(count: float, rate: Fact) -> Fact:
        return Fact(count / rate.value / devices, rate.how)

    taken = {"fill the front-end cache, once": passes(hours, of["fill"])}
    for stage, epochs in EPOCHS.items():
        taken[f"{stage}, {epochs} epochs"] = passes(epochs * hours, of["train"])
    taken["frame labels"] = passes(hours + min(hours, sampled_hours()), of["label"])
    taken["k-means"] = Fact(fit.value / 3600, fit.how)
    return taken


def disk_taken(hours: float, results: Sequence[Mapping[str, Any]]) -> dict[str, Fact]:
    """Bytes on the disk of one fold and seed beside the recordings."""
    scales = len(PseudoLabelSpec().clusters)
    labels = Fact(4 * scales * FRAMES_PER_HOUR * hours, "counted, not compressed")
    done = pick(results, "pseudo_labels", False) or pick(results, "pseudo_labels", True)
    if done is not None:
        ten = done["sizes"]["ten"]
        labels = Fact(ten["written_mib"] * 2**20 / ten["audio_seconds"] * 3600 * hours, "measured, codebooks included")
    return {
        "front-end cache": Fact(2 * CHANNELS * FRAMES_PER_HOUR * hours, "counted"),
        "frame labels": labels,
        "their copy while retraining": Fact(4 * scales * FRAMES_PER_HOUR * hours, "counted"),
        "three models": Fact(3 * 4 * PARAMETERS, "counted"),
        "checkpoints of a training": Fact(2 * 3 * 4 * PARAMETERS, "counted"),
    }


def memory_taken(hours: float, row: Fact, results: Sequence[Mapping[str, Any]]) -> dict[str, Fact]:
    """Bytes in each process while frame labels are made."""
    clips = hours * 3600 / MEAN_SECONDS
    done = pick(results, "pseudo_labels", False, "base")
    base = Fact(3e9, "assumed") if done is None else Fact(done["sizes"]["ten"]["peak_mib"] * 2**20, "measured")
    frames = min(PseudoLabelSpec().sample_frames, hours * FRAMES_PER_HOUR)
    return {
        "program, model and batches": base,
        "frames to cluster, per layer, shared out": Fact(4 * HIDDEN * frames, "counted"),
        "the table and what identifies its rows": Fact(row.value * clips, row.how),
    }


def bytes_per_row(rows: int = 50_000) -> Fact:
    """Memory of one recording in the table and in `row_fingerprints`, by making some."""
    tracemalloc.start()
    names = [f"corpus/session-1/{n:08d}.wav" for n in range(rows)]
    kept = {f"{name}": hashlib.sha256(name.encode()).hexdigest() for name in names}
    assert len(kept) == rows
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # In Arrow: id, file, path, speaker, session, corpus, and five numbers.
    return Fact(taken / rows + 4 * 40 + 3 * 16 + 5 * 8, "measured and counted")


def fit_seconds(results: Sequence[Mapping[str, Any]]) -> Fact:
    """Seconds of k-means at the default scales on the default sample."""
    per_frame: dict[int, list[float]] = {}
    for result in results:
        if result["benchmark"] == "kmeans" and result["channels"] == HIDDEN:
            for each in result["results"]:
                seconds = each["sides"]["ours"]["seconds"] / result["frames"]
                per_frame.setdefault(each["clusters"], []).append(seconds)
    wanted = set(PseudoLabelSpec().clusters)
    if not wanted <= {*per_frame}:
        return Fact(60.0, "assumed")
    # Several results of one scale: the quickest was the least disturbed.
    quickest = sum(min(per_frame[clusters]) for clusters in wanted)
    return Fact(quickest * PseudoLabelSpec().sample_frames, "scaled from fewer frames")


def show(title: str, columns: Mapping[str, Mapping[str, Fact]], unit: float, digits: int = 2) -> None:
    """A table with a sum; how the numbers came about stands at the end of each line."""
    print(f"\n{title}\n{'':44}" + "".join(f"{name:>15}" for name in columns))
    first = next(iter(columns.values()))
    for name in first:
        numbers = "".join(f"{facts[name].value / unit:15,.{digits}f}" for facts in columns.values())
        print(f"  {name:42}{numbers}   {first[name].how}")
    sums = "".join(f"{sum(fact.value for fact in facts.values()) / unit:15,.{digits}f}" for facts in columns.values())
    print(f"  {'in all':42}{sums}")


def gives_way(options: argparse.Namespace, of: Mapping[str, Fact], row: Fact, fit: Fact) -> Iterator[tuple[float, str]]:
    """At how many hours of audio each limit is reached, on one device."""
    yield options.disk_tb * 1e12 / (2 * CHANNELS * FRAMES_PER_HOUR), f"disk: the cache fills {options.disk_tb:g} TB"
    per_hour = sum(f.value for f in hours_taken(1.0, of, 1, Fact(0.0, fit.how)).values())
    yield options.days * 24 / per_hour, f"time: one fold and seed take {options.days:g} days on one device"
    yield 8 * options.days * 24 / per_hour, "time: the same on eight devices"
    clips = 3600 / MEAN_SECONDS
    yield options.memory_gb * 1e9 / (row.value * clips), f"memory: the rows fill {options.memory_gb:g} GB in a process"
    seconds = FINGERPRINT_BYTES * clips / (options.read_mb * 1e6)
    yield (
        options.start_minutes * 60 / seconds,
        (
            f"start: reading both ends of every recording takes {options.start_minutes:g} minutes "
            f"at {options.read_mb:g} MB/s"
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path, help="files with the JSON lines of the other benchmarks")
    parser.add_argument("--gpu-teraflops", type=float, default=400.0, help="matrix rate of the GPU in bf16 (assumed)")
    parser.add_argument("--gpu-share", type=float, default=0.25, help="share of it that training reaches (assumed)")
    parser.add_argument("--train-rate", type=float, help="audio seconds per second of training on one GPU")
    parser.add_argument("--fill-rate", type=float, help="the same of filling the front-end cache")
    parser.add_argument("--disk-tb", type=float, default=2.0)
    parser.add_argument("--memory-gb", type=float, default=64.0)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--start-minutes", type=float, default=10.0)
    parser.add_argument("--read-mb", type=float, default=500.0, help="what the disk reads per second (assumed)")
    options = parser.parse_args()
    results = read_results(options.results)
    known = rates(results, options)
    if not known:
        parser.error("give a JSON line of benchmarks/training.py, base shape, or --train-rate and --fill-rate")
    row, fit = bytes_per_row(), fit_seconds(results)
    print(f"{len(results)} results read; one fold, one seed; memory per recording {row}; k-means, seconds: {fit}")
    for kind, of in known.items():
        print(f"\n==== {kind}: audio seconds per second: " + ", ".join(f"{name} {fact}" for name, fact in of.items()))
        for devices in DEVICES if kind == "a GPU" else (1,):
            columns = {name: hours_taken(hours, of, devices, fit) for name, hours in CORPORA.items()}
            show(f"Hours on {devices} × {kind.removeprefix('a ')}", columns, 1.0)
        print("\nWhat gives way first, by hours of audio:")
        for hours, what in sorted(gives_way(options, of, row, fit)):
            print(f"  {hours:12,.0f} h  {what}")
    show("Disk, GB", {name: disk_taken(hours, results) for name, hours in CORPORA.items()}, 1e9)
    show("Memory of a process, GB", {name: memory_taken(hours, row, results) for name, hours in CORPORA.items()}, 1e9)
    line = {
        "benchmark": "estimate",
        "rates": {kind: {name: vars(fact) for name, fact in of.items()} for kind, of in known.items()},
        "gives_way": {kind: sorted(gives_way(options, of, row, fit)) for kind, of in known.items()},
        "options": {name: value for name, value in vars(options).items() if name != "results"},
    }
    print("\n" + json.dumps(line))


if __name__ == "__main__":
    main()
