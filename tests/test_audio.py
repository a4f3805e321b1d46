"""The one audio reader: what it takes, what it gives, and what it says when it cannot."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soxr

from audio_files import RATE, encoded, tone, write_audio
from gmp_atl_hf.data.audio import MINIMUM_SAMPLES, audio_length, read_audio, read_clip
from gmp_atl_hf.data.audio_stream import read_blocks
from gmp_atl_hf.errors import RequestError

FORMATS = [
    ("x.wav", "PCM_U8", 0.02),
    ("x.wav", "PCM_16", 1e-4),
    ("x.wav", "PCM_24", 1e-5),
    ("x.wav", "PCM_32", 1e-5),
    ("x.wav", "FLOAT", 1e-7),
    ("x.wav", "DOUBLE", 1e-7),
    ("x.flac", "PCM_16", 1e-4),
    ("x.aiff", "PCM_16", 1e-4),
    ("x.mp3", None, 0.1),
    ("x.ogg", "VORBIS", 0.1),
    ("x.opus", "OPUS", 0.1),
]


@pytest.mark.parametrize(("name", "subtype", "tolerance"), FORMATS, ids=[f"{n[2:]}-{s}" for n, s, _ in FORMATS])
def test_every_usual_format_gives_the_same_waveform(tmp_path, name, subtype, tolerance):
    wave = tone(RATE)
    path = write_audio(tmp_path / name, wave, subtype=subtype)
    got = read_audio(path)
    assert got.dtype == np.float32
    assert got.shape == wave.shape
    assert np.abs(got - wave)[1000:-1000].max() < tolerance
    assert audio_length(path) == len(got)


def test_every_form_of_the_same_file_gives_the_same_samples(tmp_path):
    path = write_audio(tmp_path / "x.flac", 5_000, rate=22_050)
    content = path.read_bytes()
    expected = read_audio(path)
    with path.open("rb") as opened:
        forms = [
            *(str(path), content, bytearray(content), io.BytesIO(content), opened),
            *({"path": str(path), "bytes": None}, {"path": None, "bytes": content}),
            {"path": "elsewhere.flac", "bytes": content},
        ]
        for form in forms:
            np.testing.assert_array_equal(read_audio(form), expected)


def test_arrays_of_every_type_and_channel_count_are_scaled_and_mixed():
    wave = np.round(tone() * 2**15) / 2**15
    stereo = np.stack([wave, -wave / 2], axis=1)
    for array in (wave, wave.astype(np.float64), (wave * 2**15).astype(np.int16), (wave * 2**31).astype(np.int32)):
        np.testing.assert_allclose(read_audio((RATE, array)), wave, atol=1e-7)
        np.testing.assert_allclose(read_audio({"array": array, "sampling_rate": RATE}), wave, atol=1e-7)
    np.testing.assert_allclose(read_audio((RATE, stereo)), wave / 4, atol=1e-7)
    np.testing.assert_allclose(read_audio((RATE, (stereo * 2**15).astype(np.int16))), wave / 4, atol=1e-4)
    np.testing.assert_allclose(read_audio((RATE, (wave * 128 + 128).astype(np.uint8))), wave, atol=0.02)
    np.testing.assert_array_equal(read_audio((RATE, [0.0, 0.5])), np.array([0.0, 0.5], dtype=np.float32))


def channels(*waves: np.ndarray) -> np.ndarray:
    return np.stack(waves, axis=1)


@pytest.mark.parametrize(
    ("name", "subtype"), [("x.wav", None), ("x.wav", "IMA_ADPCM"), ("x.mp3", None), ("x.opus", "OPUS")]
)
def test_channels_that_cancel_each_other_are_refused_whole_and_in_blocks(tmp_path, name, subtype):
    rate = 48_000
    wave = tone(3 * rate, rate=rate)
    path = write_audio(tmp_path / name, channels(wave, -wave), rate, subtype)
    for read in (read_audio, lambda source: list(read_blocks(source, 0.7))):
        with pytest.raises(RequestError) as raised:
            read(path)
        assert f"the channels of {path} cancel each other" in raised.value.found
        assert "remix 1" in raised.value.fix


def test_only_opposite_channels_cancel_each_other_and_not_wide_or_quiet_ones(tmp_path):
    wave, noise = tone(), tone(pitch=330.0, seed=1)
    fits = {
        "one channel silent": channels(wave, 0 * wave),
        "nothing in common": channels(wave, noise),
        "wide": channels(0.1 * wave + noise, 0.1 * wave - noise),
        "opposite for half": channels(wave, np.where(np.arange(len(wave)) < 4_000, wave, -wave)),
        "opposite, 10 % quieter": channels(wave, -0.9 * wave),
        "silent": channels(0 * wave, 0 * wave),
        "opposite in the last bit": channels(wave, -wave) / np.abs(wave).max() / 2**15,
    }
    for samples in fits.values():
        np.testing.assert_allclose(read_audio((RATE, samples)), samples.mean(axis=1), atol=1e-7)
        read_audio(write_audio(tmp_path / "x.wav", samples))
    with pytest.raises(RequestError, match="cancel each other"):
        read_audio((RATE, channels(wave, -0.95 * wave)))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_other_rates_are_resampled_by_soxr_and_the_length_is_known_from_the_header(tmp_path, rate):
    for samples in (rate // 3, rate // 3 + 1, 12_347):
        wave = tone(samples, rate=rate)
        path = write_audio(tmp_path / "x.wav", wave, rate=rate, subtype="FLOAT")
        got = read_audio(path)
        np.testing.assert_array_equal(got, soxr.resample(wave, rate, RATE, quality="HQ"))
        assert audio_length(path) == len(got)


def test_a_clip_below_one_frame_is_padded_for_the_model_only(tmp_path):
    path = write_audio(tmp_path / "x.wav", 123)
    assert read_audio(path).shape == (123,)
    clip = read_clip(path)
    assert clip.shape == (MINIMUM_SAMPLES,)
    np.testing.assert_array_equal(clip[:123], read_audio(path))
    assert not clip[123:].any()
    assert read_clip(write_audio(tmp_path / "y.wav", 401)).shape == (401,)


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.wav", b"", "empty"),
        ("text.wav", b"this is not a recording at all, it is text", "not audio"),
        ("page.mp3", b"<!DOCTYPE html><html>404</html>", "web page"),
        ("pointer.flac", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        ("film.m4a", b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00", "ffmpeg"),
        ("archive.wav", b"PK\x03\x04rest", "zip"),
        ("cut.wav", cut(encoded(), 0.5), "ends early"),
        ("cut24.wav", cut(encoded(subtype="PCM_24"), 0.9), "ends early"),
        ("cut.aiff", cut(encoded(format="AIFF"), 0.5), "ends early"),
        ("cut.flac", cut(encoded(format="FLAC"), 0.5), "ends early"),
        ("cut.mp3", cut(encoded(64_000, format="MP3"), 0.5), "ends early"),
        ("cut.ogg", cut(encoded(64_000, format="OGG", subtype="VORBIS"), 0.5), "ends early"),
        ("cut.opus", cut(encoded(64_000, format="OGG", subtype="OPUS"), 0.5), "ends early"),
        ("headeronly.wav", encoded(np.zeros(0, dtype=np.float32)), "no samples"),
        ("nan.wav", encoded(np.array([0.1, np.nan, 0.2], dtype=np.float32), subtype="FLOAT"), "not finite"),
        ("inf.wav", encoded(np.array([0.1, np.inf, 0.2], dtype=np.float32), subtype="FLOAT"), "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    for form in (path, {"path": str(path), "bytes": content}):
        with pytest.raises(RequestError) as raised:
            read_audio(form)
        assert name in str(raised.value)
        assert words in str(raised.value)
        assert raised.value.expected
        assert raised.value.fix


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(RequestError, match=r"there is no file .*gone\.wav"):
        read_audio(tmp_path / "gone.wav")
    with pytest.raises(RequestError, match="is a folder"):
        read_audio(tmp_path)


def test_a_wav_written_to_a_pipe_or_with_a_slightly_wrong_size_is_read(tmp_path):
    content = encoded(1_000)
    at = content.index(b"data") + 4
    for size in (0xFFFFFFFF, 0x7FFFF000, 2_000 + 44):
        path = tmp_path / f"{size}.wav"
        path.write_bytes(content[:at] + struct.pack("<I", size) + content[at + 4 :])
        assert len(read_audio(path)) == 1_000
        assert audio_length(path) == 1_000


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (42, "without a sampling rate"),
        (np.zeros(9), "shape (9,) comes without a sampling rate"),
        (None, "not a form of audio"),
        ({"array": [0.0]}, "not a form of audio"),
        ((RATE, np.zeros((4, 16_000), dtype=np.float32)), "several recordings as a list"),
        ((RATE, np.zeros((16_000, 3), dtype=np.float32)), "mix more channels"),
        ((RATE, np.zeros((3, 4, 5), dtype=np.float32)), "shape"),
        ((RATE, np.zeros(10, dtype=np.int64)), "type int64"),
        ((RATE, np.zeros(0, dtype=np.float32)), "no samples"),
        ((np.zeros(10, dtype=np.float32), RATE), "sampling rate"),
        ((0, np.zeros(10, dtype=np.float32)), "sampling rate"),
        (io.StringIO("text"), "opened as text"),
    ],
)
def test_an_object_that_is_no_audio_is_refused_with_what_would_be(source, words):
    with pytest.raises(RequestError) as raised:
        read_audio(source)
    assert words in str(raised.value)


def test_an_unknown_form_is_answered_with_all_known_forms():
    with pytest.raises(RequestError) as raised:
        read_audio(Path)  # type: ignore[arg-type]
    assert "sampling_rate" in str(raised.value.expected)
    assert "opus" in str(raised.value.expected)


def test_damage_that_no_header_tells_of_needs_decoding(tmp_path):
    path = tmp_path / "x.flac"
    path.write_bytes(cut(encoded(format="FLAC"), 0.5))
    assert audio_length(path) == 8_000
    with pytest.raises(RequestError, match="ends early"):
        read_audio(path)
