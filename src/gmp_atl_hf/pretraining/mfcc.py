"""MFCCs with deltas, one vector for each frame of a HuBERT: what the first iteration of pre-training clusters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cache
from itertools import chain
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct
from scipy.signal import savgol_filter
from torch import Tensor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from ..data.audio import SAMPLING_RATE, read_clip
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.frames_gmp_atl import frame_count, hop_length, receptive_field
from ..pseudo_labels.codebook import FeatureSource
from ..pseudo_labels.feature_stream import FeatureExtraction, Stream
from ..threads import prefetch

LAYER = 0
"""MFCCs stand below the first transformer layer; their columns are `gmp_layer0_k{K}`."""

COEFFICIENTS = 13
DIMENSIONS = 3 * COEFFICIENTS
WINDOW = 400
"""Samples of a window, 25 ms: HuBERT's own receptive field."""

_MEL_FILTERS = 23
_FFT = 512
_SMALLEST_SPREAD = 0.1
"""For a dimension that hardly changes, such as all of them in silence: it stays near zero."""

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
        "normalised": "mean and variance of the clip",
    }
    return FeatureSource("mfcc", {LAYER: "none"}, (LAYER,), settings)


def mfcc_frames(waveform: npt.NDArray[np.float32], config: GMPATLConfig) -> npt.NDArray[np.float32]:
    """What is clustered, (frames, 39) float32: `mfccs`, each dimension with mean 0 and variance 1 over the clip.

    The published recipe (fairseq's HuBERT example) does not do that. But a HuBERT with group norm cannot tell how loud
    a recording is, so labels that depend on the level, the microphone or the voice's average could not be predicted,
    and they are not what it shall learn.

    Raises:
        RequestError: The model's frames are an odd number of samples apart.
    """
    vectors = mfccs(waveform, config)
    spread = np.maximum(vectors.std(axis=0), _SMALLEST_SPREAD)
    return ((vectors - vectors.mean(axis=0)) / spread).astype(np.float32)


def mfccs(waveform: npt.NDArray[np.float32], config: GMPATLConfig) -> npt.NDArray[np.float64]:
    """Thirteen MFCCs with first and second differences (per 10 ms), one vector per frame of the model.

    The windows are centred on the receptive field of each frame. They are taken twice as often as the model makes
    frames, 10 ms for a usual HuBERT, so that differences see the speech as the published recipe does, and every second
    vector is kept.

    Args:
        waveform: (samples,) float32 at 16 kHz, at least one frame.
        config: The model's configuration.

    Returns:
        (frames, 39) float64.
    """
    hop, field = _geometry(config)
    frames = frame_count(len(waveform), config.conv_kernel, config.conv_stride)
    # Where a window reaches beyond the clip there is silence.
    before, skip = max((WINDOW - field) // 2, 0), max((field - WINDOW) // 2, 0)
    needed = 2 * (frames - 1) * (hop // 2) + WINDOW
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
    return np.concatenate([static, *deltas])[:, ::2].T


def mfcc_extraction(config: GMPATLConfig) -> FeatureExtraction:
    """MFCCs of a table's rows, as sampling and labelling want them; clips are worked on in threads."""

    def extract(table: datasets.Dataset, batches: Iterable[Sequence[int]]) -> Stream:
        clips: Any = table.select_columns(["audio"])

        def read(row: int) -> tuple[int, dict[int, Tensor]]:
            return row, {LAYER: torch.from_numpy(mfcc_frames(read_clip(clips[row]["audio"]), config))}

        with closing(prefetch(read, chain.from_iterable(batches))) as frames:
            yield from frames

    return FeatureExtraction(extract, mfcc_source(), DIMENSIONS, config)


def _geometry(config: GMPATLConfig) -> tuple[int, int]:
    """Hop and receptive field of the model's frames, in samples."""
    hop, field = hop_length(config.conv_stride), receptive_field(config.conv_kernel, config.conv_stride)
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
