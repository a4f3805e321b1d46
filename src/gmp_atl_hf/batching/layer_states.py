"""The front end and the lowest transformer layers by themselves: one recording in, its rounded states out."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ..modeling.encoding_gmp_atl import encode_speech
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .conv_features import FORMAT_VERSION, FrontEnd, content_key, front_end_key


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
        hubert: Any = model.hubert
        self.feature_extractor = feature_extractor
        self.layers = copy.deepcopy(hubert).float().cpu().eval()
        encoder: Any = self.layers.encoder
        del encoder.layers[count:]
        if hubert.config.do_stable_layer_norm:
            encoder.layer_norm = nn.Identity()  # it belongs behind the last layer
        self.channels = int(hubert.config.hidden_size)
        self.inputs = {"layer_of_states": count}
        # The configuration has what the tensors do not show, such as heads and norms.
        settings = {"format_version": FORMAT_VERSION, "layers": count, "model": model.config.to_diff_dict()}
        tensors = self.layers.state_dict()
        self.key = content_key({"front_end": front_end_key(model, feature_extractor), **settings}, tensors)

    def frames_of(self, layers: nn.Module, inputs: Tensor) -> Tensor:
        """(1, samples) of one recording → (frames, hidden) float32."""
        encoded: Tensor = encode_speech(layers, inputs).last_hidden_state[0]  # type: ignore[arg-type]
        return encoded
