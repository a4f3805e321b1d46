"""MFCCs line up with the model's frames, and are what the field calls MFCCs."""

from __future__ import annotations

import numpy as np
import pytest

from audio_files import tone
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.configuration_gmp_atl import GMPATLConfig
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.pretraining.mfcc import DIMENSIONS, mfcc_frames, mfccs

HUBERT = GMPATLConfig()
SMALL = GMPATLConfig(conv_dim=[8, 8, 8], conv_kernel=[20, 15, 4], conv_stride=[10, 8, 4])
FAST = GMPATLConfig(conv_dim=[8, 8], conv_kernel=[10, 8], conv_stride=[10, 8])


def speech(samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose spectrum changes all the time."""
    rng = np.random.default_rng(seed)
    wave = np.cumsum(rng.standard_normal(samples)) * 0.02
    return (0.1 * np.sin(wave * 5) + 0.02 * rng.standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("config", [HUBERT, SMALL, FAST])
def test_there_is_one_vector_for_every_frame_of_the_model(config: GMPATLConfig) -> None:
    for samples in [400, 401, 719, 720, 721, 1_039, 1_040, 5_000, 16_000, 16_161]:
        frames = mfcc_frames(tone(samples), config)
        assert frames.shape == (frame_count(samples, config.conv_kernel, config.conv_stride), DIMENSIONS)
        assert frames.dtype == np.float32 and np.isfinite(frames).all()


def test_a_vector_describes_what_its_frame_hears() -> None:
    wave = speech(16_000)
    later = mfccs(wave[320 * 7 :], HUBERT)
    # Away from the edge, where differences look beyond what is left.
    np.testing.assert_allclose(mfccs(wave, HUBERT)[7 + 2 : 40], later[2:33], rtol=0, atol=1e-3)


def test_every_dimension_has_mean_0_and_variance_1_over_the_clip() -> None:
    frames = mfcc_frames(speech(32_000), HUBERT)
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-5)


def test_silence_is_finite_and_alike() -> None:
    np.testing.assert_allclose(mfcc_frames(np.zeros(4_000, dtype=np.float32), HUBERT), 0, atol=1e-6)


def test_how_loud_a_recording_is_makes_no_difference() -> None:
    wave = speech(8_000)
    quiet, loud = mfccs(wave, HUBERT), mfccs(4 * wave, HUBERT)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=2e-3)
    # 16 times the power, in the orthonormal cosine transform of 23 logarithms.
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], np.sqrt(23) * np.log(16), rtol=1e-3)
    np.testing.assert_allclose(mfcc_frames(4 * wave, HUBERT), mfcc_frames(wave, HUBERT), atol=5e-3)


def test_differences_follow_a_rising_voice() -> None:
    loudness = np.linspace(0.01, 1, 16_000, dtype=np.float32)
    frames = mfccs(np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * loudness * 0.1, HUBERT)
    assert frames[3:-3, 13].mean() > 0, "the first difference of the first coefficient"
    growth = np.diff(frames[:, 0]).mean() / 2  # per 10 ms, as the differences are
    assert frames[3:-3, 13].mean() == pytest.approx(growth, rel=0.3)


def test_frames_an_odd_number_of_samples_apart_are_refused() -> None:
    with pytest.raises(RequestError, match="45 samples apart"):
        mfcc_frames(tone(4_000), GMPATLConfig(conv_dim=[8, 8], conv_kernel=[9, 5], conv_stride=[9, 5]))
