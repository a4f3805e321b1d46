"""Hidden states averaged over a window around each frame: scales in time, beside those in the number of clusters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ..data.audio import SAMPLING_RATE
from ..data.scale_names import SINGLE_FRAME, column_name
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig

FeatureKey: TypeAlias = int | tuple[int, float]
"""What is clustered: a layer's frames as they are (its number), or averaged over a window: (layer, seconds)."""


def feature_keys(layers: Sequence[int], windows: Sequence[float]) -> list[FeatureKey]:
    """All that is clustered: by layer, then window, both in the order given."""
    return [layer if window == SINGLE_FRAME else (layer, window) for layer in layers for window in windows]


def layer_and_window(key: FeatureKey) -> tuple[int, float]:
    """The layer of a key, and its window in seconds."""
    return key if isinstance(key, tuple) else (key, SINGLE_FRAME)


def column_of(key: FeatureKey, clusters: int) -> str:
    """The label column of a key at a number of clusters."""
    layer, window = layer_and_window(key)
    return column_name(layer, clusters, window)


def in_words(key: FeatureKey) -> str:
    """A key for messages."""
    return str(key) if isinstance(key, int) else f"{key[0]} over {key[1]:g} s"


def averaging_radii(windows: Sequence[float], config: GMPATLConfig) -> dict[float, int]:
    """How many frames on each side are averaged: seconds → radius, 0 for the frames as they are.

    A window holds the odd number of frames that is nearest to its length, the larger one of two: 25 frames of 20 ms
    for 0.5 s, 51 for 1 s.

    Raises:
        RequestError: Two windows hold as many frames, or one holds a single frame, since frames are that far apart.
    """
    hop = math.prod(config.conv_stride)
    radii = {window: 0 if window == SINGLE_FRAME else round(window * SAMPLING_RATE) // (2 * hop) for window in windows}
    step = hop / SAMPLING_RATE
    for number, (window, radius) in enumerate(radii.items()):
        for other in list(radii)[:number]:
            if radii[other] == radius:
                raise RequestError(
                    f"windows of {other:g} and {window:g} seconds, which both hold {2 * radius + 1} of this backbone's "
                    f"frames (one each {1000 * step:g} ms)",
                    "windows that differ",
                    "remove one of them from pseudo_labels.windows",
                )
        if radius == 0 and window != SINGLE_FRAME:
            raise RequestError(
                f"a window of {window:g} seconds, which holds one of this backbone's frames ({1000 * step:g} ms)",
                f"{SINGLE_FRAME} for the frames as they are, or more than {2 * step:g} seconds",
                f"pseudo_labels.windows: [{SINGLE_FRAME}]",
            )
    return radii


def averaged(states: Mapping[int, Tensor], radii: Mapping[float, int]) -> dict[FeatureKey, Tensor]:
    """The states of one clip at every window.

    Args:
        states: Layer → (frames, channels) float32, any device: the clip's valid frames and no padding.
        radii: Seconds → frames on each side.

    Returns:
        Key → (frames, channels) float32. At the edges of the clip the window is what of it lies inside.
    """
    keys = feature_keys(list(states), list(radii))
    return {key: _averaged(states[layer_and_window(key)[0]], radii[layer_and_window(key)[1]]) for key in keys}


def _averaged(frames: Tensor, radius: int) -> Tensor:
    radius = min(radius, len(frames) - 1)
    if radius < 1:
        return frames
    pooled = torch.nn.functional.avg_pool1d(
        frames.T[None], kernel_size=2 * radius + 1, stride=1, padding=radius, count_include_pad=False
    )
    return pooled[0].T
