"""MFCCs with deltas, one vector for each frame of a HuBERT: what the first iteration of pre-training clusters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct
from scipy.signal import savgol_filter
from torch import Tensor
from tqdm.auto import tqdm
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from ..data.audio import SAMPLING_RATE, read_clip
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.frames_gmp_atl import frame_count
from ..pseudo_labels.codebook import FeatureSource

LAYER = 0
"""MFCCs stand below the first transformer layer; their columns are `gmp_layer0_k{K}`."""

COEFFICIENTS = 13
DIMENSIONS = 3 * COEFFICIENTS
WINDOW = 400
"""Samples of a window, 25 ms: HuBERT's own receptive field."""

_MEL_FILTERS = 23
_FFT = 512
_DELTA_SPAN = 5
"""Vectors that a delta is fitted over: two before, two after, as in the Kaldi toolkit."""


def mfcc_source() -> FeatureSource:
    """Say what the features are, so that a codebook can refuse others."""
    settings = {
        "sampling_rate": SAMPLING_RATE,
        "coefficients": COEFFICIENTS,
        "deltas": 2,
        "mel_filters": _MEL_FILTERS,
        "window_samples": WINDOW,
    }
    return FeatureSource("mfcc", {LAYER: "none"}, (LAYER,), settings)


def mfcc_frames(waveform: npt.NDArray[np.float32], config: GMPATLConfig) -> npt.NDArray[np.float32]:
    """Thirteen MFCCs with first and second differences, one vector per frame of the model.

    The windows are centred on what each frame of the model hears. They are taken twice as often as the model makes
    frames, 10 ms for a usual HuBERT, so that differences see the speech as the published recipe does (fairseq's HuBERT
    example), and every second vector is kept.

    Args:
        waveform: (samples,) float32 at 16 kHz, at least one frame.
        config: The model's configuration, for the geometry of its frames.

    Returns:
        (frames, 39) float32; `frames` is what the model makes of the waveform.

    Raises:
        RequestError: The model's frames are an odd number of samples apart.
    """
    hop, field = _geometry(config)
    frames = frame_count(len(waveform), config.conv_kernel, config.conv_stride)
    steps = 2 * frames - 1
    # Where a window reaches beyond the clip there is silence.
    before = max((WINDOW - field) // 2, 0)
    skip = max((field - WINDOW) // 2, 0)
    needed = (steps - 1) * (hop // 2) + WINDOW
    padded = np.pad(waveform.astype(np.float64), (before, max(needed - len(waveform), 0) + WINDOW))[skip:][:needed]
    log_mel = spectrogram(
        # To the range of 16-bit samples, for which the floor below is meant.
        padded * 32768.0,
        _window(),
        frame_length=WINDOW,
        hop_length=hop // 2,
        fft_length=_FFT,
        power=2.0,
        center=False,
        preemphasis=0.97,
        remove_dc_offset=True,
        mel_filters=_filters(),
        mel_floor=1.0,
        log_mel="log",
    )
    static = dct(log_mel, type=2, axis=0, norm="ortho")[:COEFFICIENTS]
    deltas = [savgol_filter(static, _DELTA_SPAN, polyorder=n, deriv=n, axis=1, mode="nearest") for n in (1, 2)]
    return np.ascontiguousarray(np.concatenate([static, *deltas])[:, ::2].T, dtype=np.float32)


def stream_mfccs(
    table: datasets.Dataset, config: GMPATLConfig, description: str | None = None
) -> Iterator[tuple[int, dict[int, Tensor]]]:
    """Stream the MFCCs of a table, as `extract_features` streams hidden states.

    Args:
        table: The table, with `audio`.
        config: The model's configuration.
        description: What the progress bar says; None for no bar.

    Yields:
        Row of the table and {0: (frames, 39) float32}.
    """
    clips: Any = table.select_columns(["audio"])
    rows = tqdm(range(len(table)), desc=description, unit="clip", disable=description is None)
    for row in rows:
        yield row, {LAYER: torch.from_numpy(mfcc_frames(read_clip(clips[row]["audio"]), config))}


def _geometry(config: GMPATLConfig) -> tuple[int, int]:
    """Samples from frame to frame, and samples that a frame hears."""
    hop, field = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (kernel - 1) * hop
        hop *= stride
    if hop % 2:
        raise RequestError(
            f"frames that are {hop} samples apart (the product of conv_stride)",
            "an even number of samples, so that MFCCs can be taken half a frame apart",
            "conv_stride with the product 320, as in HuBERT",
        )
    return hop, field


@cache
def _window() -> npt.NDArray[np.float64]:
    return np.asarray(window_function(WINDOW, "povey", periodic=False))


@cache
def _filters() -> npt.NDArray[np.float64]:
    bank = mel_filter_bank(
        num_frequency_bins=_FFT // 2 + 1,
        num_mel_filters=_MEL_FILTERS,
        min_frequency=20.0,
        max_frequency=SAMPLING_RATE / 2,
        sampling_rate=SAMPLING_RATE,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return np.asarray(bank)
