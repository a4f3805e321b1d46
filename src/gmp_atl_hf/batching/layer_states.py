"""The front end and the lowest transformer layers by themselves: one recording in, its rounded states out."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ..modeling.encoding_gmp_atl import encode_speech
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .conv_features import FORMAT_VERSION, ConvFeatures, FrontEnd, content_key, front_end_key

_ENCODER_FIELDS = (
    "encoder_type",
    "hidden_act",
    "do_stable_layer_norm",
    "num_attention_heads",
    "layer_norm_eps",
    "conv_pos_batch_norm",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
    "feat_proj_layer_norm",
    "num_buckets",
    "max_bucket_distance",
    "conv_pos_kernel_size",
)
"""Fields of a configuration on which states depend and that no shape of a tensor shows for certain."""


class LowestLayers(FrontEnd):
    """A copy of a model's encoder up to a layer, always fed one recording alone, in float32 and without dropout.

    Args:
        model: The model.
        feature_extractor: The checkpoint's.
        count: How many transformer layers.
    """

    name = "lowest layers"
    column = "layer_states"

    def __init__(self, model: GMPATLPreTrainedModel, feature_extractor: Any, count: int) -> None:
        config = model.config
        self.feature_extractor = feature_extractor
        self.layers: Any = _copy_below(model.hubert, count).float().cpu().eval()
        self.channels = int(config.hidden_size)
        self.inputs = {"layer_of_states": count}
        settings = {name: getattr(config, name, None) for name in _ENCODER_FIELDS}
        settings |= {"format_version": FORMAT_VERSION, "layers": count}
        settings["front_end"] = front_end_key(model, feature_extractor)
        self.key = content_key(settings, self.layers.state_dict())

    def encode(self, waveform: npt.NDArray[np.float32], layers: nn.Module | None = None) -> ConvFeatures:
        """See the base class; a `RuntimeError` in a process that was to read only."""
        if layers is None and self.layers is None:
            raise RuntimeError("kept states are gone while they are read; start the same command again")
        return super().encode(waveform, layers)

    def __getstate__(self) -> dict[str, Any]:
        """Processes that read what is kept need no encoder."""
        return {**self.__dict__, "layers": None}

    def frames_of(self, layers: nn.Module, inputs: Tensor) -> Tensor:
        """(1, samples) of one recording → (frames, hidden) float32."""
        encoded: Tensor = encode_speech(layers, inputs).last_hidden_state[0]  # type: ignore[arg-type]
        return encoded


def _copy_below(hubert: Any, count: int) -> Any:
    """The encoder up to a layer; what is above is not copied even for a moment."""
    encoder = hubert.encoder
    above = {id(layer): nn.Identity() for layer in encoder.layers[count:]}
    if hubert.config.do_stable_layer_norm:
        above[id(encoder.layer_norm)] = nn.Identity()  # it belongs behind the last layer
    copied = copy.deepcopy(hubert, above)
    del copied.encoder.layers[count:]
    return copied
