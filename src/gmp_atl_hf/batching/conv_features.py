"""The convolution front end by itself: one recording in, its rounded features out."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..data.audio import SAMPLING_RATE
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..numerics import no_tf32

FORMAT_VERSION = 1
"""Part of every key; raised when the same tensors and the same recording would give other values."""

PRECISION = "float16"
"""What features are rounded to. Our choice: 11 significant bits, where bfloat16 has 8 in the same two bytes. Its range
does no harm: a recording that exceeds it is kept in float32, and what is lost below it (6e-8) is far under the epsilon
of the layer norm that follows (3e-3)."""

ConvFeatures = npt.NDArray[Any]
"""(frames, channels) float16; float32 where a value exceeds the range of float16."""


class FrontEnd:
    """A copy of a model's convolution front end, always fed one recording alone, in float32.

    Values therefore depend on neither batch nor fold nor autocast.

    Attributes:
        key: SHA-256 in hexadecimal of all that the values depend on, besides the recording.
        channels: Channels of a frame.
        name: What a progress bar says is computed.
        column: What rows and batches call the values.
        inputs: What is added to every batch of them.
    """

    name = "front end"
    column = "conv_features"
    inputs: Mapping[str, Any] = {}

    def __init__(self, model: GMPATLPreTrainedModel, feature_extractor: Any) -> None:
        self.feature_extractor = feature_extractor
        self.layers: Any = copy.deepcopy(model.hubert.feature_extractor).float().cpu().eval()
        self.channels = int(model.config.conv_dim[-1])
        self.key = front_end_key(model, feature_extractor)

    def layers_on(self, device: torch.device) -> nn.Module:
        """The front end on a device, for `encode`."""
        layers: nn.Module = self.layers if device.type == "cpu" else copy.deepcopy(self.layers).to(device)
        return layers

    @torch.inference_mode()
    def encode(self, waveform: npt.NDArray[np.float32], layers: nn.Module | None = None) -> ConvFeatures:
        """(samples,) float32 at 16 kHz, at least a frame → (frames, channels), rounded; on the CPU or `layers`."""
        layers = self.layers if layers is None else layers
        # Spectra have no parameters, and are quickly taken on the CPU.
        device = next((each.device for each in layers.parameters()), torch.device("cpu"))
        inputs = self.feature_extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_values
        with torch.autocast(device.type, enabled=False), no_tf32(device):
            features = self.frames_of(layers, inputs.to(device))
        return rounded(features.contiguous().cpu().numpy())

    def frames_of(self, layers: nn.Module, inputs: Tensor) -> Tensor:
        """(1, samples) of one recording → (frames, channels) float32."""
        features: Tensor = layers(inputs)[0].T
        return features


def rounded(features: npt.NDArray[np.float32]) -> ConvFeatures:
    """Round to half precision, or leave in float32 what would become infinite."""
    with np.errstate(over="ignore"):
        half = features.astype(PRECISION)
    return half if np.isfinite(half).all() else features


def front_end_key(model: GMPATLPreTrainedModel, feature_extractor: Any) -> str:
    """SHA-256 in hexadecimal of all that the front end's output depends on besides the recording, by content."""
    config = model.config
    settings = {
        "format_version": FORMAT_VERSION,
        "precision": PRECISION,
        "sampling_rate": SAMPLING_RATE,
        "do_normalize": bool(feature_extractor.do_normalize),
        "norm": config.feat_extract_norm,
        "activation": config.feat_extract_activation,
        "kernels": list(config.conv_kernel),
        "strides": list(config.conv_stride),
    }
    tensors = model.hubert.feature_extractor.state_dict()
    if not tensors:  # spectra, which are made by the family's rule
        settings |= {"encoder_type": config.encoder_type, "channels": list(config.conv_dim)}
    return content_key(settings, tensors)


def content_key(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 in hexadecimal of settings, JSON types, and of tensors in float32 with their names and shapes."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in tensors.items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
