"""Hidden states of chosen layers, streamed clip by clip: what the clusters are made of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..batching.clips import TableClips
from ..batching.collator import GMPATLDataCollator
from ..batching.feature_cache import FrontEndCache
from ..batching.length_batches import length_batches
from ..data.audio import SAMPLING_RATE
from ..data.table_values import refuse_no_feature_extractor, usable_clips
from ..errors import RequestError
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..numerics import no_tf32
from ..threads import prefetch
from .codebook import FeatureSource
from .feature_stream import BATCH_SECONDS, FeatureExtraction, Stream
from .memory import trim_heap


def open_cache(
    cache: FrontEndCache | str | os.PathLike[str] | None,
    model: GMPATLPreTrainedModel,
    feature_extractor: Any,
    table: datasets.Dataset,
    description: str | None = None,
) -> FrontEndCache | None:
    """A front-end cache that has all of a table; a cache that is given as such is left as it is."""
    if cache is not None and not isinstance(cache, FrontEndCache):
        cache = FrontEndCache(cache, model, feature_extractor)
        cache.fill(table.select_columns(["id", "audio", "num_samples"]), description)
    return cache


def feature_source(model: GMPATLPreTrainedModel, layers: Sequence[int], feature_extractor: Any) -> FeatureSource:
    """Describes the hidden states of a model, so that a codebook can refuse those of another.

    Args:
        model: The model whose encoder is used.
        layers: 1-based or negative from the top.
        feature_extractor: The checkpoint's feature extractor.

    Raises:
        ValueError: There is no such layer.
    """
    resolved = _resolved(model, layers, feature_extractor)
    return FeatureSource(
        kind="hidden-states",
        checkpoint={layer: encoder_hash(model, layer) for layer in resolved},
        layers=resolved,
        settings={"sampling_rate": SAMPLING_RATE, "do_normalize": bool(feature_extractor.do_normalize)},
    )


def _resolved(model: GMPATLPreTrainedModel, layers: Sequence[int], feature_extractor: Any) -> tuple[int, ...]:
    """Layers as 1-based numbers.

    Raises:
        RequestError: The model, the layers or the feature extractor are something else.
    """
    if not hasattr(model.config, "resolve_layer"):
        raise RequestError(
            f"the model is a {type(model).__name__}",
            "one of this package's, which load any HuBERT",
            "HubertForGMPATLMultiTask.from_pretrained(checkpoint)",
        )
    if isinstance(layers, (int, str)):
        raise RequestError(f"layers is {layers!r}", "a list of layers", f"layers=[{layers}]")
    refuse_no_feature_extractor(feature_extractor, "feature_extractor")
    return tuple(model.config.resolve_layer(layer) for layer in layers)


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
    batches: Iterable[Sequence[int]] | None = None,
    cache: FrontEndCache | None = None,
) -> Stream:
    """Streams the hidden states of a table, in eval mode and without masking.

    Batches hold clips of like length; the memory needed does not depend on the number of clips. The next batches are
    decoded while the model works on one.

    Args:
        model: Any GMP-ATL model; its mode is restored afterwards.
        table: The table, with `id`, `audio` and `num_samples`.
        layers: Transformer layers, 1-based or negative from the top.
        feature_extractor: The checkpoint's feature extractor.
        batch_seconds: Seconds of audio per batch, padding included.
        description: What the progress bar says; None for no bar.
        batches: The rows to extract and which of them together; by default all rows in order of length.
        cache: Cache of this model's front end, filled or not; None computes its output.

    Yields:
        Row of the table and, for each resolved layer, (frames, hidden) float32 on the model's device; rows come in
        the order of the batches.
    """
    table = usable_clips(table)
    resolved = _resolved(model, layers, feature_extractor)
    clips = TableClips(table, (), cache)
    collate = GMPATLDataCollator(feature_extractor, model.config, targets=(), training=False)
    clips_to_come = None
    if batches is None:
        batches, clips_to_come = length_batches(table["num_samples"], batch_seconds), len(table)

    def read(rows: Sequence[int]) -> tuple[Sequence[int], dict[str, Tensor]]:
        return rows, collate([clips[row] for row in rows])

    was_training = model.training
    model.train(False)
    bar = tqdm(total=clips_to_come, desc=description, unit="clip", disable=description is None)
    try:
        with closing(prefetch(read, batches)) as loaded:
            for rows, inputs in loaded:
                with torch.inference_mode(), no_tf32(model.device):
                    encoded = model.encode(**_moved(inputs, model.device), layers=resolved)
                counts, states = encoded.frame_mask.sum(-1).tolist(), encoded.hidden_states
                for index, row in enumerate(rows):
                    yield row, {layer: states[layer][index, : counts[index]].float() for layer in resolved}
                del encoded, states, inputs
                if model.device.type == "cpu":
                    trim_heap()
                bar.update(len(rows))
    finally:
        bar.close()
        model.train(was_training)


def _moved(inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in inputs.items()}


def hidden_state_extraction(
    model: GMPATLPreTrainedModel,
    layers: Sequence[int],
    feature_extractor: Any,
    cache: FrontEndCache | None = None,
    batch_seconds: float = BATCH_SECONDS,
    source: FeatureSource | None = None,
) -> FeatureExtraction:
    """`extract_features` of one model, as sampling and labelling want it; its `feature_source` may be known already."""

    def extract(table: datasets.Dataset, batches: Iterable[Sequence[int]]) -> Stream:
        return extract_features(model, table, layers, feature_extractor, batches=batches, cache=cache)

    source = source or feature_source(model, layers, feature_extractor)
    return FeatureExtraction(extract, source, model.config.hidden_size, model.config, batch_seconds)
