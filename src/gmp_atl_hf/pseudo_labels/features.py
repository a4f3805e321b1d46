"""Hidden states of chosen layers, streamed clip by clip: what the clusters are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data.audio import SAMPLING_RATE
from ..front_end.cache import FrontEndCache
from ..modeling.frames_gmp_atl import frame_count
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..training.clips import TableClips
from ..training.collator import GMPATLDataCollator
from .codebook import FeatureSource

BATCH_SECONDS = 64.0
"""Seconds of audio per batch of extraction, padding included. Our choice."""


def feature_source(model: GMPATLPreTrainedModel, layers: Sequence[int], feature_extractor: Any) -> FeatureSource:
    """Say what hidden states of this model are, so that a codebook can refuse those of another.

    Args:
        model: The model whose encoder is used.
        layers: Layers as asked for, negative ones counted from the top.
        feature_extractor: The checkpoint's feature extractor.

    Returns:
        Kind, resolved layers, and for each a hash of every tensor up to it.

    Raises:
        ValueError: There is no such layer.
    """
    resolved = tuple(model.config.resolve_layer(layer) for layer in layers)
    return FeatureSource(
        kind="hidden-states",
        checkpoint={layer: encoder_hash(model, layer) for layer in resolved},
        layers=resolved,
        settings={"sampling_rate": SAMPLING_RATE, "do_normalize": bool(feature_extractor.do_normalize)},
    )


def encoder_hash(model: GMPATLPreTrainedModel, layer: int) -> str:
    """Hash of the tensors that the output of a transformer layer (1-based) depends on, SHA-256 in hexadecimal."""
    hubert = model.hubert
    encoder: Any = hubert.encoder
    modules: list[nn.Module] = [hubert.feature_extractor, hubert.feature_projection, encoder.pos_conv_embed]
    if not model.config.do_stable_layer_norm:
        modules.append(encoder.layer_norm)  # before the layers in base models, after them in large ones
    digest = hashlib.sha256()
    for module in chain(modules, encoder.layers[:layer]):
        for name, tensor in module.state_dict().items():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def extract_features(
    model: GMPATLPreTrainedModel,
    table: datasets.Dataset,
    layers: Sequence[int],
    feature_extractor: Any,
    batch_seconds: float = BATCH_SECONDS,
    description: str | None = None,
    cache: FrontEndCache | None = None,
) -> Iterator[tuple[int, dict[int, Tensor]]]:
    """Stream the hidden states of a table, in eval mode and without masking.

    Batches hold clips of like length; the memory needed does not depend on the number of clips.

    Args:
        model: Any GMP-ATL model; its mode is restored afterwards.
        table: The table, with `audio` and `num_samples`.
        layers: Transformer layers, 1-based or negative from the top.
        feature_extractor: The checkpoint's feature extractor.
        batch_seconds: Seconds of audio per batch, padding included.
        description: What the progress bar says; None for no bar.
        cache: Cache of this model's front end, filled or not; None computes its output.

    Yields:
        Row of the table and, for each resolved layer, (frames, hidden) float32 on the model's device; rows come in
        order of length.
    """
    resolved = tuple(model.config.resolve_layer(layer) for layer in layers)
    clips = TableClips(table, (), cache)
    collate = GMPATLDataCollator(feature_extractor, model.config, targets=(), training=False)
    was_training = model.training
    model.train(False)
    bar = tqdm(total=len(table), desc=description, unit="clip", disable=description is None)
    try:
        for rows in length_batches(table["num_samples"], batch_seconds):
            batch = {name: value.to(model.device) for name, value in collate([clips[row] for row in rows]).items()}
            with torch.inference_mode():
                encoded = model.encode(**batch, layers=resolved)
            counts = encoded.frame_mask.sum(-1).tolist()
            for index, row in enumerate(rows):
                yield row, {layer: encoded.hidden_states[layer][index, : counts[index]].float() for layer in resolved}
            bar.update(len(rows))
    finally:
        bar.close()
        model.train(was_training)


def length_batches(samples: Sequence[int], batch_seconds: float) -> Iterator[list[int]]:
    """Cut rows into batches of neighbours in length.

    Args:
        samples: Length of each row in samples at 16 kHz.
        batch_seconds: Most seconds per batch, padding included; a single longer clip makes a batch of its own.

    Yields:
        Rows of a batch, shortest batch first.
    """
    limit = batch_seconds * SAMPLING_RATE
    lengths = np.asarray(samples)
    batch: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * int(lengths[row]) > limit:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def sample_features(
    model: GMPATLPreTrainedModel,
    table: datasets.Dataset,
    layers: Sequence[int],
    feature_extractor: Any,
    sample_frames: int,
    seed: int = 0,
    description: str | None = None,
    cache: FrontEndCache | None = None,
) -> dict[int, Tensor]:
    """Draw frames to fit clusters on: all of them, or a seeded uniform share of every clip.

    Args:
        model: Any GMP-ATL model.
        table: The training rows, and nothing else.
        layers: Transformer layers, 1-based or negative from the top.
        feature_extractor: The checkpoint's feature extractor.
        sample_frames: Most frames to keep.
        seed: Seed of the draw; a clip's share depends on (seed, row) alone.
        description: What the progress bar says; None for no bar.
        cache: As for `extract_features`.

    Returns:
        Resolved layer → (frames, hidden) float32 on the CPU, at most `sample_frames` rows.
    """
    config = model.config
    frames = [frame_count(n, config.conv_kernel, config.conv_stride) for n in table["num_samples"]]
    rows = draw_frames(frames, sample_frames, seed)
    starts = np.concatenate([[0], np.cumsum([len(drawn) for drawn in rows])])
    resolved = tuple(config.resolve_layer(layer) for layer in layers)
    total = int(min(starts[-1], sample_frames))
    sample = {layer: torch.empty(total, config.hidden_size) for layer in resolved}
    for row, states in extract_features(model, table, layers, feature_extractor, description=description, cache=cache):
        # Rounding up in every clip can exceed the bound by a few frames of the last clips.
        drawn = rows[row][: max(0, total - int(starts[row]))]
        for layer, values in states.items():
            sample[layer][starts[row] : starts[row] + len(drawn)] = values.cpu()[torch.from_numpy(drawn)]
    return sample


def draw_frames(counts: Sequence[int], sample_frames: int, seed: int) -> list[np.ndarray]:
    """Draw the same share of every clip's frames.

    Args:
        counts: Frames of each clip.
        sample_frames: About how many to draw of all; each clip rounds its share up or down.
        seed: Seed of the draw; which frames of a clip are drawn depends on it, the clip's row and the share.

    Returns:
        For each clip (drawn,) int64, ascending.
    """
    share = min(1.0, sample_frames / max(sum(counts), 1))
    if share >= 1.0:
        return [np.arange(count) for count in counts]
    drawn = []
    for row, count in enumerate(counts):
        rng = np.random.default_rng([seed, row])
        kept = int(share * count + rng.random())
        drawn.append(np.sort(rng.choice(count, size=min(kept, count), replace=False)))
    return drawn
