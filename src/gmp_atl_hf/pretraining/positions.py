"""What a state says of nothing but its place in the clip, so that a student need not learn to count.

Whisper adds sinusoids to what enters its layers, and the residual stream carries them through: of Whisper base's third
layer, the same speech begun ten seconds later has a cosine of 0.56 with itself, and of 0.92 once the mean state of each
place has been taken away. A HuBERT, whose positions are relative, cannot know the place.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import datasets
import numpy as np
import safetensors
import safetensors.torch
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm

from ..batching.feature_cache import fail_together
from ..data.audio import SAMPLING_RATE, read_clip
from ..data.fingerprints import recording_hashes
from ..files import write_whole
from ..threads import prefetch
from .teachers import CHUNK_SECONDS, Teacher

FEWEST_CHUNKS, MOST_CHUNKS = 32, 256
"""Chunks of 15 s that a mean is taken over: with the most, chance adds 0.4 % to the variance of what is left."""


def position_means(folder: Path, teacher: Teacher, table: datasets.Dataset) -> tuple[str, dict[int, Tensor]]:
    """Mean state of each place in a chunk over speech of the table, computed once and kept in a folder.

    Called by all processes; one computes.

    Args:
        folder: Where the means are kept.
        teacher: Whose states.
        table: Rows to use, in the order of their hashes; clips are glued together, each used once unless there are
            too few.

    Returns:
        What the means depend on, as SHA-256 in hexadecimal, and layer → (places, width) float32.
    """
    names = recording_hashes(table)
    rows = _order(table, names)
    facts = {"chunks": CHUNK_SECONDS, "clips": [names[row] for row in rows]}
    facts["layers"] = [teacher.key(layer) for layer in teacher.layers]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    place = folder / f"positions-{key[:16]}.safetensors"
    with fail_together("compute the mean state of each place"):
        if PartialState().is_main_process and _read(place, teacher) is None:
            means = _compute(teacher, table, rows)
            write_whole(place, safetensors.torch.save({str(layer): mean for layer, mean in means.items()}))
    found = _read(place, teacher)
    if found is None:
        raise RuntimeError(f"{place} was there a moment ago and is not any more")
    return key, found


def _read(place: Path, teacher: Teacher) -> dict[int, Tensor] | None:
    """Means that were kept; None when there are none, or damaged ones (with a message)."""
    if not place.is_file():
        return None
    try:
        found = safetensors.torch.load_file(place)
        return {layer: found[str(layer)] for layer in teacher.layers}
    except (safetensors.SafetensorError, KeyError) as error:
        tqdm.write(f"{place} is damaged ({error}): it is computed again")
        return None


def _order(table: datasets.Dataset, names: Sequence[str]) -> list[int]:
    """Rows that fill the chunks, one after the other, whoever is held out; a small table is gone through again."""
    samples, chunk = table["num_samples"], CHUNK_SECONDS * SAMPLING_RATE
    left = chunk * int(np.clip(sum(samples) // chunk, FEWEST_CHUNKS, MOST_CHUNKS))
    rows = list[int]()
    for row in itertools.cycle(sorted(range(len(names)), key=names.__getitem__)):
        if left <= 0:
            break
        rows.append(row)
        left -= samples[row]
    return rows


def _compute(teacher: Teacher, table: datasets.Dataset, rows: Sequence[int]) -> dict[int, Tensor]:
    sums: dict[int, Tensor] = {}
    count = 0
    with closing(prefetch(teacher.states, _chunks(table, rows), one_torch_thread=True)) as done:
        for states in done:
            count += 1
            for layer, values in states.items():
                sums[layer] = sums.get(layer, torch.zeros((), dtype=torch.float64)) + values.double().cpu()
    return {layer: (total / count).float() for layer, total in sums.items()}


def _chunks(table: datasets.Dataset, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """Whole chunks of speech; what is left after the last is not used."""
    clips, chunk = table.select_columns(["audio"]), CHUNK_SECONDS * SAMPLING_RATE
    left = np.zeros(0, dtype=np.float32)
    for row in rows:
        left = np.concatenate([left, read_clip(clips[row]["audio"])])
        while len(left) >= chunk:
            yield left[:chunk]
            left = left[chunk:]
