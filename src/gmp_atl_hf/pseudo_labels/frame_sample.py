"""The frames that clusters are fitted on: how many of each clip, which, and who extracts them.

What is drawn depends on the seed and on the lengths of the clips alone. It is laid out in *pieces*, runs of batches
that one process extracts and keeps; they are the same however many processes there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch import Tensor

from ..batching.length_batches import length_batches
from .feature_stream import Extract, shown
from .process_group import ALONE, Team

HEARD_FRAMES = 8
"""Clips with at most this many times the frames wanted are heard: of 10,000 hours, 22 hours for 500,000 frames. Below
that size every clip gives its share."""

PIECE_FRAMES = 4096
"""Most drawn frames of a piece that holds more than one batch."""

PIECES = 64
"""Pieces that a small sample is still cut into, so that there is something to share out."""

SHORTEST_PIECE = 256
"""Frames below which sharing is not worth the many small products."""


class FrameDraw:
    """Exactly so many frames of all clips, every frame as likely as every other; all of them where there are no more.

    Args:
        counts: Frames of each clip.
        sample_frames: How many to draw.
        seed: Seed of the draw. Which frames of a clip are drawn depends on it, the clip's row and how many they are.

    Attributes:
        rows: (heard,) int64 rows of the clips that are heard, ascending.
        kept: (clips,) int64 frames drawn of each clip.
    """

    def __init__(self, counts: Sequence[int], sample_frames: int, seed: int) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        self.seed = seed
        self.rows = self._heard(HEARD_FRAMES * sample_frames)
        frames = self.counts[self.rows]
        total = int(frames.sum())
        self.kept = np.zeros_like(self.counts)
        if total <= sample_frames:
            self.kept[self.rows] = frames
            return
        # Whole numbers: the frames up to the end of each clip, times the share, rounded by one draw for all clips.
        offset = int(np.random.default_rng(seed).integers(total))
        ends = (np.cumsum(frames) * sample_frames + offset) // total
        self.kept[self.rows] = np.diff(ends, prepend=0)

    def _heard(self, most: int) -> np.ndarray:
        """All clips, or so many drawn at random that they hold this many frames."""
        if int(self.counts.sum()) <= most:
            return np.arange(len(self.counts))
        order = np.random.default_rng([self.seed, 1]).permutation(len(self.counts))
        enough = int(np.searchsorted(np.cumsum(self.counts[order]), most)) + 1
        return np.sort(order[:enough])

    def frames_of(self, row: int) -> np.ndarray:
        """(drawn,) int64 frames of a clip, ascending."""
        count, kept = int(self.counts[row]), int(self.kept[row])
        if kept == count:
            return np.arange(count)
        return np.sort(np.random.default_rng([self.seed, row]).choice(count, size=kept, replace=False))


@dataclass(frozen=True)
class Sample:
    """The drawn frames that this process holds.

    Args:
        features: Layer → (frames, channels) float32 on the CPU: this process's pieces, one behind the other.
        pieces: Frames of every piece, of all processes.
        team: The processes that share the pieces.
    """

    features: Mapping[int, Tensor]
    pieces: Sequence[int]
    team: Team

    def initial(self, count: int, seed: int) -> dict[int, Tensor]:
        """Frames to seed from, the same in all processes.

        Args:
            count: How many; all of them where there are no more.
            seed: Seed of the draw.

        Returns:
            Layer → (frames, channels) float32 on the CPU.
        """
        total = sum(self.pieces)
        if total <= count:
            drawn = np.arange(total)
        else:
            drawn = np.sort(torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].numpy())
        ends = np.cumsum(self.pieces)
        piece = np.searchsorted(ends, drawn, side="right")
        here = np.flatnonzero(piece % self.team.count == self.team.index)
        lengths = np.asarray(self.pieces)
        mine = np.arange(len(lengths)) % self.team.count == self.team.index
        # Where each piece starts among all frames, and where among those of this process.
        starts, starts_here = ends - lengths, np.cumsum(lengths * mine) - lengths
        places = torch.from_numpy(drawn[here] - starts[piece[here]] + starts_here[piece[here]])
        shared = {}
        for layer, frames in self.features.items():
            own = torch.zeros(len(drawn), frames.shape[1])
            own[torch.from_numpy(here)] = frames[places]
            shared[layer] = self.team.reduce(own)
        return shared


def take_sample(
    extract: Extract,
    table: datasets.Dataset,
    draw: FrameDraw,
    layers: Sequence[int],
    channels: int,
    batch_seconds: float,
    team: Team = ALONE,
    description: str | None = None,
) -> Sample:
    """Extract the clips that are heard, each process its share, and keep the frames that were drawn.

    Args:
        extract: Where features come from.
        table: The training rows, and nothing else.
        draw: Which frames.
        layers: Resolved layers that `extract` gives.
        channels: Width of the features.
        batch_seconds: Seconds of audio per batch, padding included.
        team: The processes that share the work.
        description: What the progress bar says; None for no bar.

    Returns:
        This process's part; memory does not depend on the number of clips.
    """
    samples = np.asarray(table["num_samples"])[draw.rows]
    batches = [draw.rows[batch].tolist() for batch in length_batches(samples, batch_seconds)]
    pieces = _pieces([int(draw.kept[batch].sum()) for batch in batches])
    lengths = [int(draw.kept[[row for number in piece for row in batches[number]]].sum()) for piece in pieces]
    features = {layer: torch.empty(sum(team.mine(lengths)), channels) for layer in layers}
    end = 0
    mine = [batches[number] for piece in team.mine(pieces) for number in piece]
    with closing(shown(extract(table, mine), sum(map(len, mine)), description)) as stream:
        for row, states in stream:
            frames = torch.from_numpy(draw.frames_of(row))
            start, end = end, end + len(frames)
            for layer in layers:
                features[layer][start:end] = states[layer][frames.to(states[layer].device)].cpu()
    return Sample(features, lengths, team)


def _pieces(drawn: Sequence[int]) -> list[list[int]]:
    """Cut batches, given by how many frames of each are drawn, into runs."""
    most = max(SHORTEST_PIECE, min(PIECE_FRAMES, sum(drawn) // PIECES))
    pieces: list[list[int]] = []
    filled = most
    for number, frames in enumerate(drawn):
        if filled + frames > most:
            pieces.append([])
            filled = 0
        pieces[-1].append(number)
        filled += frames
    return pieces
