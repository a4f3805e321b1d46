"""Where k-means starts: greedy k-means++ with restarts, on a subsample, in its principal directions.

The restarts are what makes a small K good (one k-means++ start differs from the next by a per cent of inertia), and the
projection is what makes restarts cheap. It all runs on the CPU, so that a GPU starts from the same centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor

from ..threads import one_thread_each

CHUNK_POINTS = 2048
"""Points of the subsample whose distances are held at once."""


@dataclass(frozen=True)
class SeedingSettings:
    """How the first centres are found. The paper states none of this: all of it is our choice.

    Args:
        init_frames: Frames in the subsample; at least 40 for each cluster of the largest K are taken in any case.
        init_dimensions: Principal directions of the subsample in which seeding works.
        init_restarts: Greedy k-means++ starts; the one with the lowest inertia on the subsample is kept.
        init_iterations: Lloyd iterations on the subsample after each start.
    """

    init_frames: int = 20_000
    init_dimensions: int = 64
    init_restarts: int = 8
    init_iterations: int = 8


@dataclass(frozen=True)
class Subsample:
    """Frames that every K of a layer is seeded from.

    Args:
        origin: (channels,) float32, their mean: the common origin of all further arithmetic.
        points: (points, channels) float32, the frames around it.
        projected: (points, directions) float32, the points in the directions in which they vary most.
    """

    origin: Tensor
    points: Tensor
    projected: Tensor

    @classmethod
    def of(cls, frames: Tensor, settings: SeedingSettings) -> Subsample:
        """Centres and projects (frames, channels) float32 frames, finite, on the CPU."""
        origin = frames.mean(0)
        points = frames - origin
        projected = points
        if points.shape[1] > settings.init_dimensions:
            covariance = (points.T @ points).double()
            directions = torch.linalg.eigh(covariance).eigenvectors[:, -settings.init_dimensions :]
            projected = points @ directions.float()
        return cls(origin, points, projected)


def sample_frames(frames: Tensor, count: int, seed: int) -> Tensor:
    """A seeded subsample without replacement, the same on every device: (≤ count, channels) float32 on the CPU."""
    if len(frames) <= count:
        return frames.float().cpu()
    drawn = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed))[:count]
    return frames[drawn.sort().values.to(frames.device)].float().cpu()


def nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each point.

    Args:
        points: (points, channels) float32, around a common origin that keeps their norms small.
        centres: (clusters, channels) float32, around the same origin.

    Returns:
        (points,) float32 squared distance less the point's own squared norm, and (points,) int64 cluster.
    """
    scores = torch.addmm(centres.square().sum(1), points, centres.T, alpha=-2)
    smallest = scores.min(1)  # min is several times faster than argmin on the CPU.
    return smallest.values, smallest.indices


def seed_centres(subsample: Subsample, clusters: int, seed: int, settings: SeedingSettings) -> tuple[Tensor, Tensor]:
    """First centres from a subsample; the restarts are shared out over the threads.

    Returns:
        (clusters, channels) float32 centres around the subsample's origin, and (clusters,) bool, False where a centre
        has no point (its row is zero).
    """
    seeds = torch.randint(2**62, (settings.init_restarts,), generator=torch.Generator().manual_seed(seed)).tolist()

    def start(restart_seed: int) -> tuple[float, Tensor]:
        generator = torch.Generator().manual_seed(restart_seed)
        centres = _greedy_plus_plus(subsample.projected, clusters, generator)
        for _ in range(settings.init_iterations):
            means, counts = _means(subsample.projected, _nearest_in_chunks(subsample.projected, centres)[1], clusters)
            centres = torch.where(counts[:, None] > 0, means, centres)
        scores, labels = _nearest_in_chunks(subsample.projected, centres)
        return float(scores.sum(dtype=torch.float64)), labels

    _, labels = min(one_thread_each(start, seeds), key=itemgetter(0))
    means, counts = _means(subsample.points, labels, clusters)
    return means, counts > 0


def _nearest_in_chunks(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """`nearest`, without the memory for all scores at once."""
    scores, labels = zip(*(nearest(chunk, centres) for chunk in points.split(CHUNK_POINTS)), strict=True)
    return torch.cat(scores), torch.cat(labels)


def _means(points: Tensor, labels: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Mean (clusters, channels) and count (clusters,) of the points of each cluster; zero where there are none."""
    counts = torch.bincount(labels, minlength=clusters)
    sums = torch.zeros(clusters, points.shape[1]).index_add_(0, labels, points)
    return sums / counts.clamp(min=1)[:, None], counts


def _greedy_plus_plus(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007): of 2 + log K candidates the best one becomes a centre."""
    trials = 2 + int(math.log(clusters))
    norms = points.square().sum(1)
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distances = (points - points[chosen[0]]).square().sum(1)
    for _ in range(clusters - 1):
        cumulated = distances.cumsum(0, dtype=torch.float64)
        drawn = torch.rand(trials, dtype=torch.float64, generator=generator) * cumulated[-1]
        candidates = torch.searchsorted(cumulated, drawn).clamp_(max=len(points) - 1)
        # (trials, points): rows are contiguous, so the sums and the chosen row are cheap.
        reached = torch.addmm(norms[None], points[candidates], points.T, alpha=-2)
        reached = torch.minimum(reached.add_(norms[candidates, None]).clamp_(min=0), distances)
        winner = int(reached.sum(1).argmin())
        distances = reached[winner]
        chosen.append(int(candidates[winner]))
    return points[torch.tensor(chosen)]
