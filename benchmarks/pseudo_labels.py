"""The whole pseudo-label step on ten times the audio: peak memory and time against those of a tenth of it.

    python benchmarks/pseudo_labels.py            # small encoder, 10 and 100 minutes of audio: minutes on two cores
    python benchmarks/pseudo_labels.py --full     # base HuBERT (95 million parameters), 20 minutes and 200: hours there

What is measured is `make_pseudo_labels` as a run calls it: load the model, extract and cluster a sample of the frames,
label every frame of training and development rows, write both files. Each size runs in a process of its own, whose peak
resident memory the system reports; the recordings are made before, of noise and tones, with lengths like IEMOCAP's, and
lie on the disk as 16-bit WAV. The smaller size holds more frames than are clustered, so that both cluster as many.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SMALLER_MINUTES = {"small": 10.0, "base": 20.0}
SAMPLE_FRAMES = {"small": 20_000, "base": 40_000}
CLUSTERS = (50, 100, 500)
RATE = 16_000
DEV_SHARE = 10
"""Every tenth recording is a development row."""


def lengths(minutes: float, seed: int = 0) -> np.ndarray:
    """Samples per clip: log-normal, mean 4.5 s, 0.6 to 30 s, as many clips as fill the minutes."""
    rng = np.random.default_rng(seed)
    clips = max(20, round(60 * minutes / 4.5))
    spread = 0.6
    seconds = np.exp(rng.normal(np.log(4.5) - spread**2 / 2, spread, clips)).clip(0.6, 30.0)
    return (seconds * 60 * minutes / seconds.sum() * RATE).astype(np.int64).clip(RATE // 2, 30 * RATE)


def write_recordings(folder: Path, minutes: float) -> None:
    """WAV files of noise under a few moving tones."""
    import soundfile

    rng = np.random.default_rng(1)
    folder.mkdir()
    noise = rng.standard_normal(31 * RATE).astype(np.float32) * 0.02
    for number, samples in enumerate(lengths(minutes).tolist()):
        clock = np.arange(samples, dtype=np.float32) / RATE
        wave = noise[:samples].copy()
        for _ in range(3):
            pitch, sway = rng.uniform(80, 3_000), rng.uniform(0.5, 4)
            wave += 0.1 * np.sin(2 * np.pi * pitch * clock + 5 * np.sin(2 * np.pi * sway * clock)).astype(np.float32)
        soundfile.write(folder / f"{number:06d}.wav", wave, RATE, subtype="PCM_16")


def table_of(folder: Path) -> Any:
    """The recordings as a table: paths and lengths, no audio."""
    import datasets
    import pyarrow as pa
    import soundfile

    files = sorted(folder.glob("*.wav"))
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "audio": datasets.Audio(decode=False),
            "speaker": datasets.Value("string"),
            "num_samples": datasets.Value("int64"),
        }
    )
    columns = {
        "id": [file.stem for file in files],
        "audio": [{"path": str(file), "bytes": None} for file in files],
        "speaker": [f"noise/{number % 20}" for number in range(len(files))],
        "num_samples": [soundfile.info(file).frames for file in files],
    }
    return datasets.Dataset(pa.Table.from_pydict(columns, schema=features.arrow_schema))


def write_model(folder: Path, shape: str) -> None:
    """A random encoder: base HuBERT, or one of the same strides and narrower in everything."""
    import torch

    from gmp_atl_hf.checkpoints import default_feature_extractor
    from gmp_atl_hf.modeling.configuration_gmp_atl import GMPATLConfig
    from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATLMultiTask

    small = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512}
    small |= {"conv_dim": (48,) * 7}
    torch.manual_seed(0)
    config = GMPATLConfig(num_labels=4, initializer_range=0.1, **(small if shape == "small" else {}))
    HubertForGMPATLMultiTask(config).save_pretrained(folder)
    default_feature_extractor(config).save_pretrained(folder)


def measure(work: Path, shape: str, size: str) -> None:
    """Run in the child: the step on one size, then what it took."""
    import torch

    from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATLMultiTask
    from gmp_atl_hf.recipe.sections import PseudoLabelSpec
    from gmp_atl_hf.run.steps import make_pseudo_labels

    table = table_of(work / size)
    train = table.select([row for row in range(len(table)) if row % DEV_SHARE])
    dev = table.select(range(0, len(table), DEV_SHARE))
    spec = PseudoLabelSpec(layers=(-3, -2), clusters=CLUSTERS, sample_frames=SAMPLE_FRAMES[shape])
    idle = peak_mib()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        make_pseudo_labels(Path(folder), HubertForGMPATLMultiTask, work / "model", spec, train, dev, size)
        seconds = time.perf_counter() - begun
        written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    facts = {
        "audio_seconds": float(sum(table["num_samples"])) / RATE,
        "clips": len(table),
        "seconds": seconds,
        "cpu_seconds": time.process_time(),
        "peak_mib": peak_mib(),
        "before_mib": idle,
        "written_mib": written / 2**20,
        "device": "cpu" if not torch.cuda.is_available() else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["gpu_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps(facts))


def peak_mib() -> float:
    """Peak resident memory of this process; kibibytes on Linux, bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def child(work: Path, shape: str, size: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(work), shape, size]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="base HuBERT instead of a small encoder")
    parser.add_argument("--minutes", type=float, help="audio of the smaller size")
    parser.add_argument("--repeats", type=int, default=1, help="alternations of both sizes; medians are shown")
    parser.add_argument("--measure", nargs=3, metavar=("FOLDER", "SHAPE", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        folder, shape, size = arguments.measure
        measure(Path(folder), shape, size)
        return
    shape = "base" if arguments.full else "small"
    minutes = arguments.minutes or SMALLER_MINUTES[shape]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_model(work / "model", shape)
        for size, factor in (("one", 1), ("ten", 10)):
            write_recordings(work / size, factor * minutes)
        runs: dict[str, list[dict[str, Any]]] = {"one": [], "ten": []}
        for _ in range(arguments.repeats):
            for size, done in runs.items():
                done.append(child(work, shape, size))
    middle = {
        size: {name: statistics.median(one[name] for one in done) for name in done[0] if name != "device"}
        for size, done in runs.items()
    }
    one, ten = middle["one"], middle["ten"]
    ratios = {
        "audio": ten["audio_seconds"] / one["audio_seconds"],
        "seconds": statistics.median(t["seconds"] / o["seconds"] for o, t in zip(*runs.values(), strict=True)),
        "cpu_seconds": statistics.median(
            t["cpu_seconds"] / o["cpu_seconds"] for o, t in zip(*runs.values(), strict=True)
        ),
        "peak_mib": max(t["peak_mib"] / o["peak_mib"] for o, t in zip(*runs.values(), strict=True)),
    }
    print(f"{'':14} {'audio':>10} {'clips':>8} {'seconds':>9} {'cpu s':>9} {'peak MiB':>9} {'of it before':>13}")
    for size, facts in middle.items():
        print(
            f"{size:14} {facts['audio_seconds'] / 60:8.1f} m {facts['clips']:8.0f} {facts['seconds']:9.1f} "
            f"{facts['cpu_seconds']:9.1f} {facts['peak_mib']:9.0f} {facts['before_mib']:13.0f}"
        )
    print(
        f"{'ratio':14} {ratios['audio']:8.1f} × {'':8} {ratios['seconds']:9.2f} {ratios['cpu_seconds']:9.2f} "
        f"{ratios['peak_mib']:9.2f}   (at most 11 and 1.2 are wanted)"
    )
    settings = {"shape": shape, "minutes": minutes, "sample_frames": SAMPLE_FRAMES[shape], "clusters": CLUSTERS}
    result = {
        "benchmark": "pseudo_labels",
        **settings,
        "repeats": arguments.repeats,
        "ratios": ratios,
        "sizes": middle,
        "device": runs["one"][0]["device"],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
