"""Lloyd's k-means in torch: in chunks, on any device, in one process or several.

Distances are float32 matrix products of centred frames, sums are gathered in float64. What a pass gathers (sums,
counts, inertia) goes through one injected callable, ``reduce``, so that processes which each hold a part of the frames
agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .seeding import SeedingSettings, Subsample, nearest, seed_centres
from .threads import one_thread_each, spans

Result = TypeVar("Result")

Reduce = Callable[[Tensor], Tensor]
"""Turns this process's float64 tensor into the sum over all processes, the same on each of them."""

SAME_POINT = 1e-5
"""Points whose squared distance is below this share of the mean squared deviation count as one: float32 blurs them."""


def one_process(gathered: Tensor) -> Tensor:
    """The reduction of a single process: what was gathered is already all there is."""
    return gathered


@dataclass(frozen=True)
class LloydSettings:
    """How the passes over all frames go. The paper states none of this: all of it is our choice.

    Args:
        max_iterations: Passes over all frames at most. Seeding on a subsample leaves little to do: 3 to 8 are usual.
        tolerance: A pass that lowers the inertia by less than this share of it is the last.
        chunk_frames: Frames handled at once by a thread.
    """

    max_iterations: int = 100
    tolerance: float = 5e-4
    chunk_frames: int = 4096


@dataclass(frozen=True)
class Codebook:
    """Centres with what is known about their fit.

    Args:
        centres: (clusters, channels) float32.
        inertia: Sum over all frames of the squared distance to the nearest centre.
        frames: How many frames that sum is over, in all processes.
        iterations: Passes over all frames.
        unused: Clusters without a frame; not zero only where there are fewer distinct frames than clusters, or where
            ``max_iterations`` ended the fit.
    """

    centres: Tensor
    inertia: float
    frames: int
    iterations: int
    unused: int


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Float32 matrix products in float32, whatever TF32 or autocast settings a training has left switched on.

    Args:
        device: Where the products run.
    """
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def squared_norms(frames: Tensor, origin: Tensor, chunk_frames: int) -> Tensor:
    """Squared distance of each frame from a common origin.

    Args:
        frames: (frames, channels) floating point, any device.
        origin: (channels,) float32, same device.
        chunk_frames: Frames handled at once.

    Returns:
        (frames,) float32.
    """
    norms = torch.empty(len(frames), device=frames.device)

    def measure(span: range) -> None:
        for start, chunk in _chunks(frames, span, origin, chunk_frames):
            norms[start : start + len(chunk)] = chunk.square().sum(1)

    _on_spans(measure, frames, chunk_frames)
    return norms


def assign(frames: Tensor, centres: Tensor, chunk_frames: int) -> Tensor:
    """The nearest centre of each frame.

    Args:
        frames: (frames, channels) floating point, any device.
        centres: (clusters, channels) float32, same device.
        chunk_frames: Frames handled at once.

    Returns:
        (frames,) int32, the lowest number where several centres are equally near.
    """
    labels = torch.empty(len(frames), dtype=torch.int32, device=frames.device)
    with full_precision(frames.device):
        origin = centres.mean(0)
        shifted = centres - origin
        for start, chunk in _chunks(frames, range(len(frames)), origin, chunk_frames):
            labels[start : start + len(chunk)] = nearest(chunk, shifted)[1]
    return labels


def fit_codebook(
    frames: Tensor,
    norms: Tensor,
    subsample: Subsample,
    clusters: int,
    *,
    seed: int = 0,
    settings: LloydSettings | None = None,
    seeding: SeedingSettings | None = None,
    reduce: Reduce = one_process,
) -> Codebook:
    """Fits one codebook: centres seeded on a subsample, then passes over all frames until they bring little.

    Every process calls this with its own ``frames`` and ``norms`` and the same everything else; each ends with the same
    codebook. An unused centre moves to the frame of the subsample that lies farthest from its own centre.

    Args:
        frames: (frames, channels) floating point: the part of the frames that this process holds, any device.
        norms: (frames,) float32, their `squared_norms` around the subsample's origin.
        subsample: What to seed from.
        clusters: K.
        seed: Of the seeding; the passes draw nothing.
        settings: Of the passes.
        seeding: Of the seeding.
        reduce: Sum over processes.

    Returns:
        The codebook, its centres on the device of ``frames``.
    """
    settings = settings or LloydSettings()
    same_point = SAME_POINT * float(subsample.points.square().sum(1).mean())
    with full_precision(frames.device):
        origin = subsample.origin.to(frames.device)
        seeds, used = seed_centres(subsample, clusters, seed, seeding or SeedingSettings())
        centres = _repair(seeds, used, subsample.points, same_point)[0].to(frames.device)
        before = float("inf")
        iteration = 1
        while True:
            sums, counts, inertia = lloyd_pass(frames, norms, origin, centres, settings.chunk_frames, reduce)
            taken = counts > 0
            repaired, moved = _repair(centres.cpu(), taken.cpu(), subsample.points, same_point)
            little = before - inertia <= settings.tolerance * before if iteration > 1 else inertia <= 0
            # The centres kept are those just measured, so that their inertia is exact.
            if iteration >= settings.max_iterations or (little and not moved):
                break
            before = inertia
            iteration += 1
            means = (sums / counts.clamp(min=1)[:, None]).float()
            centres = torch.where(taken[:, None], means, repaired.to(frames.device))
    return Codebook(centres + origin, inertia, int(counts.sum()), iteration, int((~taken).sum()))


def lloyd_pass(
    frames: Tensor, norms: Tensor, origin: Tensor, centres: Tensor, chunk_frames: int, reduce: Reduce
) -> tuple[Tensor, Tensor, float]:
    """What one look at all frames tells about some centres.

    Args:
        frames: (frames, channels) floating point: the part of the frames that this process holds, any device.
        norms: (frames,) float32, their `squared_norms` around the origin.
        origin: (channels,) float32, same device.
        centres: (clusters, channels) float32, around the origin, same device.
        chunk_frames: Frames handled at once.
        reduce: Sum over processes.

    Returns:
        Over all processes: (clusters, channels) float64 sums around the origin and (clusters,) float64 counts of the
        frames nearest to each centre, and the inertia of the centres.
    """
    clusters, channels = centres.shape

    def gather(span: range) -> Tensor:
        gathered = torch.zeros(clusters, channels + 2, dtype=torch.float64, device=frames.device)
        for start, chunk in _chunks(frames, span, origin, chunk_frames):
            scores, labels = nearest(chunk, centres)
            gathered[0, -1] += (scores + norms[start : start + len(chunk)]).clamp_(min=0).sum(dtype=torch.float64)
            if frames.device.type == "cpu":
                sums = torch.zeros(clusters, channels).index_add_(0, labels, chunk)
                counts = torch.bincount(labels, minlength=clusters)
            else:  # index_add_ adds in no fixed order on a GPU; a product with the one-hot labels does.
                one_hot = torch.zeros(clusters, len(chunk), device=chunk.device).scatter_(0, labels[None], 1.0)
                sums, counts = one_hot @ chunk, one_hot.sum(1)
            gathered[:, :channels] += sums
            gathered[:, channels] += counts
        return gathered

    gathered = reduce(torch.stack(_on_spans(gather, frames, chunk_frames)).sum(0))
    return gathered[:, :channels], gathered[:, channels], float(gathered[0, -1])


def _on_spans(work: Callable[[range], Result], frames: Tensor, chunk_frames: int) -> list[Result]:
    """Runs the work on the frames: on the CPU in one span per thread, elsewhere in one."""
    if frames.device.type != "cpu":
        return [work(range(len(frames)))]
    return one_thread_each(work, spans(len(frames), chunk_frames))


def _chunks(frames: Tensor, span: range, origin: Tensor, chunk_frames: int) -> Iterator[tuple[int, Tensor]]:
    """Float32 chunks of a span of frames around the origin: a large common offset would cost the products their digits.

    A chunk is overwritten by the next.
    """
    buffer = torch.empty(min(chunk_frames, len(span)), frames.shape[1], device=frames.device)  # Fresh memory is slow.
    for start in range(span.start, span.stop, chunk_frames):
        chunk = frames[start : min(start + chunk_frames, span.stop)]
        yield start, torch.sub(chunk, origin, out=buffer[: len(chunk)])


def _repair(centres: Tensor, taken: Tensor, initial: Tensor, same_point: float) -> tuple[Tensor, int]:
    """Moves unused centres to the points farthest from their centre, one after the other.

    Only the subsample is looked at: it is the same in all processes, so nothing has to be exchanged.

    Args:
        centres: (clusters, channels) float32, around the subsample's mean, CPU.
        taken: (clusters,) bool, False where a centre has no frame.
        initial: (subsample, channels) float32, around the same mean, CPU.
        same_point: Squared distance below which a point is already covered.

    Returns:
        The centres and how many of them were moved; fewer than asked when no uncovered point is left.
    """
    moved = 0
    if bool(taken.all()):
        return centres, moved
    centres = centres.clone()
    distances = nearest(initial, centres[taken])[0] + initial.square().sum(1)
    for cluster in (~taken).nonzero()[:, 0].tolist():
        farthest = int(distances.argmax())
        if float(distances[farthest]) <= same_point:
            break
        centres[cluster] = initial[farthest]
        distances = torch.minimum(distances, (initial - initial[farthest]).square().sum(1))
        moved += 1
    return centres, moved
