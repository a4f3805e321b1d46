"""Windows over long recordings: where they lie, what they weigh, and how little of a recording is held."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audio_files import RATE, encoded, tone, write_audio
from classifiers import alone, make_classifier, score, score_all, values
from gmp_atl_hf import SpeechEmotionClassifier
from gmp_atl_hf.data.audio import read_audio
from gmp_atl_hf.data.audio_stream import read_blocks
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.inference import reader as reading
from gmp_atl_hf.inference import sources
from gmp_atl_hf.inference.reader import Reader
from gmp_atl_hf.inference.sources import expand_inputs
from gmp_atl_hf.inference.windows import SlidingWindow, coverage_weights, cut_windows


@pytest.fixture(scope="module")
def classifier() -> SpeechEmotionClassifier:
    return make_classifier()


# Windows


def test_each_window_of_a_repeated_clip_has_the_scores_of_the_clip(classifier: SpeechEmotionClassifier, tmp_path: Path):
    wave = np.round(tone(RATE) * 2**15) / 2**15
    path = write_audio(tmp_path / "long.wav", np.tile(wave, 130))  # long enough to be read in blocks
    clip = values(score(classifier, (RATE, wave)))
    prediction = score(classifier, path, 1, 1)
    assert prediction.windows is not None
    assert [(one.start, one.end) for one in prediction.windows] == [(second, second + 1) for second in range(130)]
    for one in prediction.windows:
        np.testing.assert_allclose(values(one), clip, atol=1e-5)
    np.testing.assert_allclose(values(prediction), clip, atol=1e-5)
    assert prediction.seconds == 130


@pytest.mark.parametrize("form", ["array", "file"])
def test_windows_are_scored_as_clips_and_averaged_by_the_samples_they_cover(
    classifier: SpeechEmotionClassifier, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "LONG_SECONDS", 0.5)  # files of this length are now read in blocks
    wave = np.concatenate([tone(12_000, 150), 0.1 * tone(9_000, 500), np.zeros(4_100, np.float32), tone(7_000, 90)])
    source: Any = (RATE, wave) if form == "array" else write_audio(tmp_path / "x.wav", wave, subtype="FLOAT")
    prediction = score(classifier, source, 0.5, 0.2)
    assert prediction.windows is not None
    starts = [*range(0, len(wave) - 8_000 + 1, 3_200), len(wave) - 8_000]
    assert [round(one.start * RATE) for one in prediction.windows] == starts
    assert all(one.end - one.start == pytest.approx(0.5) for one in prediction.windows)
    expected = np.stack([alone(classifier, (RATE, wave[start : start + 8_000])) for start in starts])
    np.testing.assert_allclose(np.stack([values(one) for one in prediction.windows]), expected, atol=1e-4)
    per_sample, covering = np.zeros((len(wave), 4)), np.zeros((len(wave), 1))
    for start, scores in zip(starts, expected, strict=True):
        per_sample[start : start + 8_000] += scores
        covering[start : start + 8_000] += 1
    np.testing.assert_allclose(values(prediction), (per_sample / covering).mean(0), atol=1e-4)
    assert np.abs(values(prediction) - expected.mean(0)).max() > 1e-3  # a plain mean is something else


def test_a_recording_shorter_than_a_window_is_one_window(classifier: SpeechEmotionClassifier):
    prediction = score(classifier, (RATE, tone(8_000)), 10, 5)
    assert prediction.windows is not None
    assert [(one.start, one.end) for one in prediction.windows] == [(0, 0.5)]
    assert prediction.windows[0].label == prediction.label
    np.testing.assert_allclose(values(prediction), alone(classifier, (RATE, tone(8_000))), atol=1e-6)


def test_a_long_recording_is_scored_in_windows_unasked(tmp_path: Path):
    wave = tone(40_000)
    path = write_audio(tmp_path / "x.wav", wave)
    windowed = score(make_classifier(longest_seconds=1), path)
    assert windowed.windows is not None
    assert [(one.start, one.end) for one in windowed.windows] == [(0, 1), (1, 2), (1.5, 2.5)]
    assert score(make_classifier(longest_seconds=1), (RATE, wave[:RATE])).windows is None
    whole = make_classifier(longest_seconds=None)
    assert score(whole, path).windows is None
    np.testing.assert_allclose(values(score(whole, path)), alone(whole, path), atol=1e-6)


@pytest.mark.parametrize("total", [1, 99, 100, 101, 130, 200, 999, 1000])
@pytest.mark.parametrize(("size", "hop"), [(100, 100), (100, 30), (100, 1), (7, 3)])
def test_a_stream_is_cut_as_the_whole_would_be_and_little_of_it_is_held(total: int, size: int, hop: int):
    wave = np.arange(total, dtype=np.float32)
    spans = [(start, start + size) for start in range(0, total - size + 1, hop)]
    if not spans or spans[-1][1] < total:
        spans.append((max(0, total - size), total))
    for block in (1, 33, 250, total):
        found = []
        for chunk in cut_windows(
            (wave[start : start + block] for start in range(0, total, block)), SlidingWindow(size, hop)
        ):
            assert len(chunk.samples) < block + size + hop
            for span in chunk.spans:
                np.testing.assert_array_equal(chunk.waveform(span), wave[slice(*span)])
                found.append(span)
        assert found == spans
    assert SlidingWindow(size, hop).count(total) == len(spans)
    weights = coverage_weights(spans)
    shares = sum((np.arange(total) >= start) & (np.arange(total) < end) for start, end in spans)
    assert np.min(shares) >= 1  # nothing is skipped
    expected = [sum(1 / shares[start:end]) / total for start, end in spans]
    np.testing.assert_allclose(weights, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("window", "hop"),
    [(0, None), (-1, None), (0.01, None), (float("nan"), None), (float("inf"), None), (1, 0), (1, -1), (1, 2)]
    + [(1, float("nan")), (None, 1)],
)
def test_windows_that_make_no_sense_are_refused(classifier: SpeechEmotionClassifier, window: Any, hop: Any):
    with pytest.raises(RequestError, match=r"window|hop"):
        classifier((RATE, tone()), window, hop)


# Long files, block by block


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("x.wav", 16_000, 1), ("x.wav", 8_000, 2), ("x.flac", 44_100, 2), ("x.mp3", 22_050, 1), ("x.ogg", 48_000, 3)],
)
def test_blocks_together_are_what_the_reader_gives(tmp_path: Path, name: str, rate: int, channels: int):
    wave = np.stack([tone(3 * rate + 17, 100 * (1 + c), rate) for c in range(channels)], axis=1)
    path = write_audio(tmp_path / name, wave, rate)
    for source in (path, path.read_bytes()):
        blocks = list(read_blocks(source, block_seconds=0.7))
        assert len(blocks) > 3
        np.testing.assert_allclose(np.concatenate(blocks), read_audio(source), atol=1e-6)
    stereo = (rate, wave[:, :2])
    [whole] = read_blocks(stereo)
    np.testing.assert_array_equal(whole, read_audio(stereo))


def test_damage_in_a_long_file_is_reported_and_its_first_windows_are_not_scores(
    classifier: SpeechEmotionClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "LONG_SECONDS", 1.0)
    wave = tone(5 * RATE)
    hole = wave.copy()
    hole[-1] = np.inf
    write_audio(tmp_path / "infinite.wav", hole, subtype="FLOAT")
    (tmp_path / "cut.flac").write_bytes(encoded(wave, format="FLAC")[:60_000])
    (tmp_path / "cut.wav").write_bytes(encoded(wave)[:60_000])
    (tmp_path / "cut.ogg").write_bytes(encoded(wave, format="OGG")[:-2_000])
    (tmp_path / "cut.mp3").write_bytes(encoded(wave, format="MP3")[:12_000])
    write_audio(tmp_path / "opposite.wav", np.stack([wave, -wave], axis=1))
    good = write_audio(tmp_path / "good.wav", wave)
    bad = [tmp_path / name for name in ("infinite.wav", "opposite.wav", "cut.flac", "cut.wav", "cut.ogg", "cut.mp3")]
    *failed, scored = score_all(classifier, [*bad, good], 0.5)
    for path, one in zip(bad, failed, strict=True):
        assert one.error is not None
        assert str(path) in one.error
        assert one.scores == {}
    assert scored.error is None
    assert scored.windows is not None
    assert len(scored.windows) == 10


def test_a_recording_of_any_length_takes_little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What the model is handed comes from arrays no longer than a block and a window."""
    monkeypatch.setattr(sources, "read_audio", None)  # the reader of whole recordings must not be needed
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 8_000, 2) as file:
        for _ in range(30):
            file.write(np.zeros((80_000, 2), dtype=np.float32))
    items, _ = expand_inputs(path)
    pieces = [p for batch in Reader(items, SlidingWindow(160_000, 80_000), None, 400).batches(20) for p in batch]
    assert len(pieces) == 59
    for piece in pieces:
        assert piece.waveform.base is None or len(piece.waveform.base) <= 30 * RATE + 2 * 160_000


def test_windows_in_json_have_times_and_labels(classifier: SpeechEmotionClassifier):
    fields = score(classifier, (RATE, tone(RATE)), 0.5).to_dict()
    assert list(fields) == ["file", "label", "scores", "seconds", "windows", "error"]
    for left, right in pairwise(fields["windows"]):
        assert left["end"] == right["start"]
        assert left["label"] == max(left["scores"], key=left["scores"].get)


@pytest.mark.parametrize(("window", "hop", "name"), [("5", None, "window"), (5, "1", "hop")])
def test_seconds_that_are_no_number_are_refused_by_name(window: Any, hop: Any, name: str) -> None:
    with pytest.raises(RequestError, match=f"(?s){name} is '.*seconds, as a number"):
        SlidingWindow.from_seconds(window, hop)
