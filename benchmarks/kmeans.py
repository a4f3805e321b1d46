"""K-means: ours against scikit-learn with HuBERT's published settings, and against faiss.

    python benchmarks/kmeans.py                        # 50,000 x 256, K = 50 and 100: a minute or two on two cores
    python benchmarks/kmeans.py --full --repeats 3     # 200,000 x 768, K = 50, 100, 500: one to two hours

All sides run in turn in one process, on the same frames and threads, and every codebook is measured by the same
function. faiss runs twice: with its defaults (256 frames per cluster, 25 iterations), and on all frames for 100
iterations. "At equal inertia" is measured at *its* inertia, for ours is usually lower than faiss ever gets: ours is run
with ever more work (`LADDER`: starts, frames to seed from, passes) until it is no worse than faiss was, and that last
run is what counts, as if one had known how much is needed. Without faiss its side is left out.

On a machine that others use too, set OMP_NUM_THREADS=1 and read the processor seconds. Unset OPENBLAS_CORETYPE and
OPENBLAS_L2_SIZE: set for another processor, they slow scikit-learn down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from gmp_atl_hf.pseudo_labels.kmeans import FeatureSource, MultiScaleKMeans, column_name
from gmp_atl_hf.pseudo_labels.published_kmeans import published_settings

FAISS_ITERATIONS = 100

LADDER: tuple[dict[str, Any], ...] = (
    {"frames_per_cluster": 256, "init_restarts": 1, "init_iterations": 4, "max_iterations": 1},
    {"init_restarts": 1, "init_frames": 10_000, "init_iterations": 4, "max_iterations": 1},
    {"init_restarts": 1, "init_iterations": 8, "max_iterations": 1},
    {"init_restarts": 1, "init_iterations": 8, "max_iterations": 2},
    {"init_restarts": 2, "max_iterations": 3},
    {},
    {"tolerance": 1e-6},
)
"""Settings of ours, from the cheapest over the defaults to passes until hardly anything changes.

The first sees as many frames as faiss draws by default, as a recipe does with a small `pseudo_labels.sample_frames`."""


def hidden_state_like(frames: int, channels: int, seed: int = 0) -> Tensor:
    """Frames with the structure of hidden states.

    1,500 overlapping components of uneven weight whose centres lie in 96 directions of falling importance, correlated
    deviations of 12 kinds, an offset per speaker, a few channels far from zero, and a floor of noise.

    Args:
        frames: How many.
        channels: Their width.
        seed: Of everything.

    Returns:
        (frames, channels) float32.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    components, directions, kinds, speakers = 1500, min(96, channels), 12, 120
    strength = (torch.arange(directions) + 1.0) ** -0.4
    centres = (normal(components, directions) * strength) @ (normal(directions, channels) * 4 / channels**0.5)
    deviations = normal(kinds, 40, channels) * 1.2 / channels**0.5
    kind = torch.randint(kinds, (components,), generator=generator)
    size = 0.6 + 0.8 * torch.rand(components, 1, generator=generator)
    speaker, offset = 0.12 * normal(speakers, channels), 0.3 * normal(channels)
    offset[:4] += torch.tensor([12.0, -8.0, 6.0, 5.0])
    chosen = torch.multinomial(1 / (torch.arange(components) + 20.0), frames, replacement=True, generator=generator)
    features = torch.empty(frames, channels)
    for start in range(0, frames, 10_000):
        part = chosen[start : start + 10_000]
        noise, where = 0.15 * normal(len(part), channels), normal(len(part), 40)
        for number in range(kinds):
            rows = (kind[part] == number).nonzero()[:, 0]
            noise[rows] += where[rows] @ deviations[number]
        voice = speaker[torch.arange(start, start + len(part)) * speakers // frames]
        features[start : start + len(part)] = centres[part] + noise * size[part] + voice + offset
    return features


def inertia_per_frame(features: Tensor, centres: Tensor) -> float:
    """Mean squared distance to the nearest centre, for (frames, channels) and (clusters, channels)."""
    total = 0.0
    origin = features[:10_000].mean(0)
    centres = centres - origin
    for chunk in features.split(4096):
        points = chunk - origin
        nearest = torch.addmm(centres.square().sum(1), points, centres.T, alpha=-2).min(1).values
        total += float((nearest + points.square().sum(1)).sum(dtype=torch.float64))
    return total / len(features)


def ours(features: Tensor, clusters: int, seed: int, frames_per_cluster: int | None = None, **settings: Any) -> Tensor:
    if frames_per_cluster is not None:
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
        features = features[order[: frames_per_cluster * clusters]]
    source = FeatureSource("hidden-states", {10: "benchmark"}, (10,))
    kmeans = MultiScaleKMeans(clusters=(clusters,), seed=seed, **settings)
    return kmeans.fit({10: features}, source, ["benchmark/0"]).codebooks[column_name(10, clusters)]


def ours_gpu(features: Tensor, clusters: int, seed: int) -> Tensor:
    return ours(features.cuda(), clusters, seed).cpu()


def our_sides() -> dict[str, Callable[[Tensor, int, int], Tensor]]:
    return {"ours": ours, **({"ours_gpu": ours_gpu} if torch.cuda.is_available() else {})}


def published(features: Tensor, clusters: int, seed: int) -> Tensor:
    fitted = MiniBatchKMeans(**published_settings(clusters, seed)).fit(features.numpy())
    return torch.from_numpy(fitted.cluster_centers_).float()


def sklearn_defaults(features: Tensor, clusters: int, seed: int) -> Tensor:
    fitted = MiniBatchKMeans(clusters, random_state=seed, compute_labels=False).fit(features.numpy())
    return torch.from_numpy(fitted.cluster_centers_).float()


def faiss_side(iterations: int, all_frames: bool) -> Callable[[Tensor, int, int], Tensor]:
    def fit(features: Tensor, clusters: int, seed: int) -> Tensor:
        import faiss

        most = {"max_points_per_centroid": len(features)} if all_frames else {}
        kmeans = faiss.Kmeans(features.shape[1], clusters, niter=iterations, seed=seed, **most)
        kmeans.train(features.numpy())
        return torch.from_numpy(kmeans.centroids)

    return fit


@dataclass(frozen=True)
class Fit:
    """One side's run: wall and processor seconds (of all threads), mean squared distance per frame."""

    seconds: float
    cpu_seconds: float
    inertia_per_frame: float


def timed(fit: Callable[[Tensor, int, int], Tensor], features: Tensor, clusters: int, seed: int) -> Fit:
    wall, cpu = time.perf_counter(), time.process_time()
    centres = fit(features, clusters, seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Fit(wall, cpu, inertia_per_frame(features, centres))


def has_faiss() -> bool:
    try:
        import faiss  # noqa: F401
    except ImportError:
        print("faiss is not installed (pip install faiss-cpu): its side is left out")
        return False
    return True


def medians(fits: list[Fit]) -> dict[str, float]:
    return {field.name: statistics.median(getattr(fit, field.name) for fit in fits) for field in fields(Fit)}


def reach(target: float, features: Tensor, clusters: int, seed: int) -> tuple[Fit, int]:
    """Our first run up the ladder that is no worse than the target, and its rung; the last one where none is."""
    for settings in LADDER:
        fitted = timed(partial(ours, **settings), features, clusters, seed)
        if fitted.inertia_per_frame <= target:
            break
    return fitted, LADDER.index(settings)


def compare(
    features: Tensor, clusters: int, repeats: int, with_faiss: bool, without: Sequence[str] = ()
) -> dict[str, Any]:
    """All sides in turn, ``repeats`` times with another seed; medians, also of the ratios of each turn."""
    sides = {**our_sides(), "published": published, "sklearn_defaults": sklearn_defaults}
    faiss_sides = {"faiss_defaults": faiss_side(25, False), "faiss_all_frames": faiss_side(FAISS_ITERATIONS, True)}
    if with_faiss:
        sides |= faiss_sides
    sides = {name: fit for name, fit in sides.items() if name not in without}
    runs: dict[str, list[Fit]] = {name: [] for name in sides}
    equal: dict[str, list[Fit]] = {name: [] for name in faiss_sides if name in sides}
    rungs: dict[str, list[int]] = {name: [] for name in equal}
    for seed in range(repeats):
        for name, fit in sides.items():
            runs[name].append(timed(fit, features, clusters, seed))
            if name in equal:
                fitted, rung = reach(runs[name][-1].inertia_per_frame, features, clusters, seed)
                equal[name].append(fitted)
                rungs[name].append(rung)
    result: dict[str, Any] = {"clusters": clusters, "sides": {name: medians(fits) for name, fits in runs.items()}}
    for name, fits in runs.items():
        if name != "ours":
            result["sides"][name] |= against(runs["ours"], fits)
    result["at_their_inertia"] = {
        name: {**medians(fits), **against(fits, runs[name]), "rungs": rungs[name]} for name, fits in equal.items()
    }
    return result


def against(mine: list[Fit], theirs: list[Fit]) -> dict[str, float]:
    """Medians of their time over ours, and our worst inertia over theirs."""
    turns = list(zip(mine, theirs, strict=True))
    return {
        "ratio_seconds": statistics.median(other.seconds / own.seconds for own, other in turns),
        "ratio_cpu_seconds": statistics.median(other.cpu_seconds / own.cpu_seconds for own, other in turns),
        "our_inertia_to_theirs_worst": max(own.inertia_per_frame / other.inertia_per_frame for own, other in turns),
    }


def show(result: dict[str, Any]) -> None:
    columns = "seconds  cpu seconds  inertia/frame  seconds / ours  cpu / ours  our inertia / its"
    print(f"\nK = {result['clusters']:<20} {columns}")
    for name, side in result["sides"].items():
        line = f"{name:<24} {side['seconds']:7.2f} {side['cpu_seconds']:12.2f} {side['inertia_per_frame']:14.3f}"
        if name != "ours":
            line += f" {side['ratio_seconds']:15.2f} {side['ratio_cpu_seconds']:11.2f}"
            line += f" {side['our_inertia_to_theirs_worst']:15.4f}"
        print(line, flush=True)
    for name, side in result["at_their_inertia"].items():
        reached = "" if side["our_inertia_to_theirs_worst"] <= 1 else "NOT REACHED: "
        print(
            f"ours at the inertia of {name}: {reached}{side['seconds']:.2f} s "
            f"({side['cpu_seconds']:.2f} s of processor), {side['ratio_seconds']:.2f} times as fast "
            f"({side['ratio_cpu_seconds']:.2f}), inertia / its at worst {side['our_inertia_to_theirs_worst']:.4f}, "
            f"settings {[LADDER[rung] for rung in side['rungs']]}",
            flush=True,
        )


def hardware() -> dict[str, Any]:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": os.cpu_count(), "torch_threads": torch.get_num_threads(), "gpu": gpu}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy", "scikit-learn", "faiss-cpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="200,000 x 768 at K = 50, 100, 500")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--channels", type=int)
    parser.add_argument("--clusters", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=1, help="alternations, seeds 0, 1, ...; the medians are shown")
    others = ("published", "sklearn_defaults", "faiss_defaults", "faiss_all_frames", "ours_gpu")
    parser.add_argument("--without", nargs="+", default=[], choices=others, help="leave out sides, most take minutes")
    arguments = parser.parse_args()
    if odd := [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]:
        parser.error(f"unset {' and '.join(odd)}: scikit-learn would run slower than it can")
    frames = arguments.frames or (200_000 if arguments.full else 50_000)
    channels = arguments.channels or (768 if arguments.full else 256)
    clusters = arguments.clusters or ([50, 100, 500] if arguments.full else [50, 100])
    warnings.filterwarnings("ignore", module="sklearn")
    with_faiss = has_faiss()
    features = hidden_state_like(frames, channels)
    for side in our_sides().values():
        side(features[:2000], 5, 0)  # Threads and kernels are set up before anything is timed.
    results = []
    for count in clusters:
        results.append(compare(features, count, arguments.repeats, with_faiss, arguments.without))
        show(results[-1])
    settings = {"frames": frames, "channels": channels, "repeats": arguments.repeats}
    common = {"benchmark": "kmeans", **settings, "versions": versions(), "hardware": hardware()}
    print("\n" + json.dumps({**common, "results": results}))


if __name__ == "__main__":
    main()
