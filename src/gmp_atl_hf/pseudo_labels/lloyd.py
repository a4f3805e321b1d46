"""Lloyd's k-means in torch, chunk by chunk, on any device.

Distances are float32 matrix products of centred frames. What a pass gathers (sums, counts, inertia) is added up over
chunks and threads in float64 and *exactly* (see `rounded`), so that the number of threads changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..numerics import float32_matmul
from ..threads import one_thread_each, portions
from .seeding import SeedingSettings, Subsample, nearest, seed_centres

Result = TypeVar("Result")

SAME_POINT = 1e-5
"""Points whose squared distance is below this share of the mean squared deviation count as one: float32 blurs them."""


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
        frames: How many frames that sum is over.
        iterations: Passes over all frames.
        unused: Clusters without a frame; not zero only where there are fewer distinct frames than clusters, or where
            ``max_iterations`` ended the fit.
    """

    centres: Tensor
    inertia: float
    frames: int
    iterations: int
    unused: int


@dataclass(frozen=True)
class CentredFrames:
    """Frames to cluster and their distances from a common origin.

    Args:
        frames: (frames, channels) floating point, any device.
        origin: (channels,) float32, same device: the origin of all arithmetic.
        norms: (frames,) float32 squared distances from it.
        chunks: Frames that are handled at once.
    """

    frames: Tensor
    origin: Tensor
    norms: Tensor
    chunks: Sequence[range]

    @classmethod
    def of(cls, frames: Tensor, origin: Tensor, chunk_frames: int, runs: Sequence[int] | None = None) -> CentredFrames:
        """Measures the distances; chunks end where the runs (lengths, one behind the other) end."""
        chunks = cut([len(frames)] if runs is None else runs, chunk_frames)
        norms = torch.empty(len(frames), device=frames.device)

        def measure(part: Sequence[range]) -> None:
            for rows, chunk in _chunks(frames, part, origin):
                norms[rows.start : rows.stop] = chunk.square().sum(1)

        _on_portions(measure, frames.device, chunks)
        return cls(frames, origin, norms, chunks)

    @property
    def broken(self) -> int:
        """How many frames have values that are not finite."""
        return int(torch.isfinite(self.norms).logical_not().sum())


def cut(runs: Sequence[int], chunk_frames: int) -> list[range]:
    """Cuts runs of frames, given by their lengths, into chunks that never reach over the end of a run."""
    chunks, end = [], 0
    for length in runs:
        start, end = end, end + length
        chunks += [range(first, min(first + chunk_frames, end)) for first in range(start, end, chunk_frames)]
    return chunks


def rounded(values: Tensor, bound: float) -> Tensor:
    """Rounds float64 numbers so that their sum is exact, and therefore the same in any order (Demmel and Nguyen, 2013).

    They become multiples of one small power of two, of which float64 holds every sum below the bound. What is lost is
    2⁻⁵² of the bound per number, far less than the float32 arithmetic behind them has lost already.

    Args:
        values: Float64.
        bound: No sum of them, nor of their absolute values, exceeds it.
    """
    shift = 1.5 * 2.0 ** (math.frexp(bound)[1] + 1)
    return (values + shift) - shift


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
    with float32_matmul(frames.device):
        origin = centres.mean(0)
        shifted = centres - origin
        for rows, chunk in _chunks(frames, cut([len(frames)], chunk_frames), origin):
            labels[rows.start : rows.stop] = nearest(chunk, shifted)[1]
    return labels


def fit_codebook(
    data: CentredFrames,
    subsample: Subsample,
    clusters: int,
    *,
    seed: int = 0,
    settings: LloydSettings | None = None,
    seeding: SeedingSettings | None = None,
) -> Codebook:
    """Fits one codebook: centres seeded on a subsample, then passes over all frames until they bring little.

    An unused centre moves to the frame of the subsample that lies farthest from its own centre. The passes draw
    nothing: ``seed`` is that of the seeding.

    Args:
        data: All frames, around the subsample's origin.
        subsample: Where the centres are seeded.
        clusters: K.
        seed: Of the seeding.
        settings: Of the passes.
        seeding: Of the seeding.
    """
    settings = settings or LloydSettings()
    device = data.frames.device
    same_point = SAME_POINT * float(subsample.points.square().sum(1).mean())
    with float32_matmul(device):
        seeds, used = seed_centres(subsample, clusters, seed, seeding or SeedingSettings())
        centres = _repair(seeds, used, subsample.points, same_point)[0].to(device)
        before = float("inf")
        iteration = 1
        while True:
            sums, counts, inertia = lloyd_pass(data, centres)
            taken = counts > 0
            repaired, moved = _repair(centres.cpu(), taken.cpu(), subsample.points, same_point)
            little = before - inertia <= settings.tolerance * before if iteration > 1 else inertia <= 0
            # The centres kept are those just measured, so that their inertia is exact.
            if iteration >= settings.max_iterations or (little and not moved):
                break
            before = inertia
            iteration += 1
            means = (sums / counts.clamp(min=1)[:, None]).float()
            centres = torch.where(taken[:, None], means, repaired.to(device))
    return Codebook(centres + data.origin, inertia, len(data.frames), iteration, int((~taken).sum()))


def lloyd_pass(data: CentredFrames, centres: Tensor) -> tuple[Tensor, Tensor, float]:
    """One pass over all frames with given centres.

    Args:
        data: The frames, all of them finite.
        centres: (clusters, channels) float32, around the same origin, same device.

    Returns:
        (clusters, channels) float64 sums around the origin and (clusters,) float64 counts of the frames nearest to each
        centre, and the inertia of the centres.
    """
    clusters, channels = centres.shape
    device = data.frames.device
    farthest = math.sqrt(float(data.norms.max()))
    # A squared distance is at most (|frame| + |centre|)².
    most_inertia = len(data.frames) * (farthest + math.sqrt(float(centres.square().sum(1).max()))) ** 2
    most_sum = len(data.frames) * farthest

    def gather(part: Sequence[range]) -> Tensor:
        gathered = torch.zeros(clusters, channels + 2, dtype=torch.float64, device=device)
        for rows, chunk in _chunks(data.frames, part, data.origin):
            scores, labels = nearest(chunk, centres)
            distances = (scores + data.norms[rows.start : rows.stop]).clamp_(min=0)
            gathered[0, -1] += rounded(distances.sum(dtype=torch.float64), most_inertia)
            if device.type == "cpu":
                sums = torch.zeros(clusters, channels).index_add_(0, labels, chunk)
                counts = torch.bincount(labels, minlength=clusters)
            else:  # index_add_ adds in no fixed order on a GPU; a product with the one-hot labels does.
                one_hot = torch.zeros(clusters, len(chunk), device=device).scatter_(0, labels[None], 1.0)
                sums, counts = one_hot @ chunk, one_hot.sum(1)
            gathered[:, :channels] += rounded(sums.double(), most_sum)
            gathered[:, channels] += counts
        return gathered

    gathered = torch.stack(_on_portions(gather, device, data.chunks)).sum(0)
    return gathered[:, :channels], gathered[:, channels], float(gathered[0, -1])


def _on_portions(
    work: Callable[[Sequence[range]], Result], device: torch.device, chunks: Sequence[range]
) -> list[Result]:
    """Runs the work on the chunks: on the CPU in one portion per thread, elsewhere in one."""
    return one_thread_each(work, portions(chunks)) if device.type == "cpu" else [work(chunks)]


def _chunks(frames: Tensor, chunks: Sequence[range], origin: Tensor) -> Iterator[tuple[range, Tensor]]:
    """Float32 chunks of the frames around the origin, each overwritten by the next.

    A large common offset would cost the products their digits.
    """
    # Fresh memory is slow.
    buffer = torch.empty(max(map(len, chunks), default=0), frames.shape[1], device=frames.device)
    for rows in chunks:
        yield rows, torch.sub(frames[rows.start : rows.stop], origin, out=buffer[: len(rows)])


def _repair(centres: Tensor, taken: Tensor, points: Tensor, same_point: float) -> tuple[Tensor, int]:
    """Moves centres that are not taken to the points farthest from their centre, one after the other.

    Returns the centres and how many of them were moved: fewer than wanted where no point is left that is not covered,
    i.e. farther than the squared distance ``same_point`` from every centre.
    """
    moved = 0
    if bool(taken.all()):
        return centres, moved
    centres = centres.clone()
    distances = nearest(points, centres[taken])[0] + points.square().sum(1)
    for cluster in (~taken).nonzero()[:, 0].tolist():
        farthest = int(distances.argmax())
        if float(distances[farthest]) <= same_point:
            break
        centres[cluster] = points[farthest]
        distances = torch.minimum(distances, (points - points[farthest]).square().sum(1))
        moved += 1
    return centres, moved
