"""Live audio: a stream has the windows and scores of the whole recording, however it is cut into chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_files import RATE, tone
from classifiers import make_classifier, needs_int8, score, values
from families import ONE_EACH, make_stock, take_over
from gmp_atl_hf import HubertForGMPATL, SpeechEmotionClassifier, load_feature_extractor
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.errors import DivergenceError, RequestError
from gmp_atl_hf.inference.predictions import WindowScores
from models import build

WINDOW, HOP = 0.3, 0.11


@pytest.fixture(scope="module")
def classifier() -> SpeechEmotionClassifier:
    return make_classifier()


def speech(rate: int = RATE, seconds: float = 1.05) -> np.ndarray:
    """Something that sounds different in every window."""
    samples = int(seconds * rate)
    return (tone(samples, 150, rate) * np.linspace(0.1, 1, samples) ** 2).astype(np.float32)


def cut(wave: Any, *sizes: int) -> Iterator[Any]:
    """Chunks of these sizes, again and again."""
    start = number = 0
    while start < len(wave):
        size = sizes[number % len(sizes)]
        yield wave[start : start + size]
        start, number = start + size, number + 1


def assert_same(found: list[WindowScores], expected: list[WindowScores] | None) -> None:
    assert expected
    assert [(one.start, one.end) for one in found] == [(one.start, one.end) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert list(one.scores) == list(other.scores)
        np.testing.assert_allclose(values(one), values(other), atol=1e-4)


def differ(windows: list[WindowScores]) -> bool:
    return all(np.abs(values(one) - values(windows[0])).max() > 1e-3 for one in windows[1:])


# The windows of the whole recording


@pytest.mark.parametrize("sizes", [(1,), (7,), (0, 333, 0, 0, 1, 4_801), (1_600,), (100_000,)], ids=str)
@pytest.mark.parametrize("rate", [16_000, 8_000, 44_100])
def test_a_stream_has_the_windows_of_the_whole_recording(
    classifier: SpeechEmotionClassifier, rate: int, sizes: tuple[int, ...]
):
    wave = speech(rate)
    expected = score(classifier, (rate, wave), WINDOW, HOP).windows
    assert expected is not None
    assert len(expected) == 8  # the last one is shifted back
    assert differ(expected)
    assert_same(list(classifier.stream(cut(wave, *sizes), rate, WINDOW, HOP)), expected)
    live = classifier.stream(sampling_rate=rate, window=WINDOW, hop=HOP)
    fed = [one for chunk in cut(wave, *sizes) for one in live.feed(chunk)]
    assert_same(fed + live.finish(), expected)


@pytest.mark.parametrize("case", ONE_EACH)
def test_a_stream_is_for_every_encoder(case: str, tmp_path: Path):
    make_stock(case, tmp_path)
    model, extractor = take_over(HubertForGMPATL, tmp_path), load_feature_extractor(tmp_path)
    classifier = SpeechEmotionClassifier(model, extractor)
    expected = score(classifier, (RATE, speech()), WINDOW, HOP).windows
    assert_same(list(classifier.stream(cut(speech(), 1_024), RATE, WINDOW, HOP)), expected)


@needs_int8
def test_a_stream_is_computed_in_int8_when_asked():
    rounded = make_classifier(precision="int8")
    expected = score(rounded, (RATE, speech()), WINDOW, HOP).windows
    assert_same(list(rounded.stream(cut(speech(), 1_024), RATE, WINDOW, HOP)), expected)


def test_a_stream_is_adapted_to_its_speaker():
    model: Any = build(HubertForGMPATL, "large", standardize=True, pooling="statistics")
    classifier = SpeechEmotionClassifier(model, default_feature_extractor(model.config))
    with pytest.warns(UserWarning, match="several emotions"):
        caller = classifier.adapt([(RATE, tone(9_000, pitch)) for pitch in (100, 200, 300)])
    plain = score(classifier, (RATE, speech()), WINDOW, HOP).windows
    adapted: Any = classifier((RATE, speech()), WINDOW, HOP, speaker=caller)
    found = list(classifier.stream(cut(speech(), 1_024), RATE, WINDOW, HOP, caller))
    assert_same(found, adapted.windows)
    assert plain is not None
    assert np.abs(values(found[0]) - values(plain[0])).max() > 1e-3
    with pytest.raises(RequestError, match="speaker is a str"):
        classifier.stream([], RATE, speaker="caller.safetensors")  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="standardize: false"):
        make_classifier().stream([], RATE, speaker=caller)


@pytest.mark.parametrize(
    ("samples", "spans"),
    [
        (0, []),
        (100, [(0, 100)]),  # shorter than a frame
        (3_000, [(0, 3_000)]),
        (4_800, [(0, 4_800)]),
        (4_801, [(0, 4_800), (1, 4_801)]),
        (6_400, [(0, 4_800), (1_600, 6_400)]),
    ],
)
def test_the_end_is_that_of_the_whole_recording(
    classifier: SpeechEmotionClassifier, samples: int, spans: list[tuple[int, int]]
):
    found = list(classifier.stream(cut(speech()[:samples], 999), RATE, 0.3, 0.1))
    assert [(round(one.start * RATE), round(one.end * RATE)) for one in found] == spans
    if samples:
        assert_same(found, score(classifier, (RATE, speech()[:samples]), 0.3, 0.1).windows)


def test_without_a_hop_windows_lie_side_by_side_and_have_five_seconds(classifier: SpeechEmotionClassifier):
    found = list(classifier.stream([np.zeros(10 * RATE, np.int16)], RATE))
    assert [(one.start, one.end) for one in found] == [(0, 5), (5, 10)]
    assert_same(found, score(classifier, (RATE, np.zeros(10 * RATE, np.int16)), 5).windows)  # silence, as elsewhere


# As it comes


def test_a_window_comes_with_its_last_sample(classifier: SpeechEmotionClassifier):
    live = classifier.stream(sampling_rate=RATE, window=0.3, hop=0.1)
    assert live.feed(speech()[:4_799]) == []
    assert [one.end for one in live.feed(speech()[4_799:4_800])] == [0.3]
    assert live.feed(speech()[4_800:6_399]) == []
    assert [one.end for one in live.feed(speech()[6_399:6_400])] == [0.4]


@pytest.mark.parametrize(("rate", "late"), [(8_000, 0.12), (44_100, 0.045)])
def test_resampling_makes_a_window_late_by_little(classifier: SpeechEmotionClassifier, rate: int, late: float):
    live = classifier.stream(sampling_rate=rate, window=0.3, hop=0.1)
    fed = 0
    for chunk in cut(speech(rate), rate // 1_000):
        fed += len(chunk)
        if found := live.feed(chunk):
            break
    assert [one.end for one in found] == [0.3]
    assert 0.3 <= fed / rate <= 0.3 + late


def test_no_chunk_is_asked_for_before_the_windows_so_far_are_given(classifier: SpeechEmotionClassifier):
    asked: list[int] = []

    def microphone() -> Iterator[np.ndarray]:
        for number, chunk in enumerate(cut(speech(), 1_600)):
            asked.append(number)
            yield chunk

    windows = classifier.stream(microphone(), RATE, window=0.3, hop=0.1)
    assert asked == []
    assert next(windows).end == 0.3
    assert asked == [0, 1, 2]


def test_a_chunk_may_be_overwritten_afterwards(classifier: SpeechEmotionClassifier):
    buffer = np.empty(160, np.float32)

    def microphone() -> Iterator[Any]:
        for number, chunk in enumerate(cut(speech(), 160)):
            buffer[:] = chunk
            yield torch.from_numpy(buffer) if number % 2 else buffer

    expected = score(classifier, (RATE, speech()), WINDOW, HOP).windows
    assert_same(list(classifier.stream(microphone(), RATE, WINDOW, HOP)), expected)


@pytest.mark.parametrize("size", [1, 160, 40_000])
def test_no_more_is_held_than_a_window_and_a_hop(
    classifier: SpeechEmotionClassifier, size: int, monkeypatch: pytest.MonkeyPatch
):
    live = classifier.stream(sampling_rate=RATE, window=0.1, hop=0.05)
    monkeypatch.setattr(live, "_score", lambda waveforms: torch.zeros(len(waveforms), 4))
    most = 0
    for chunk in cut(np.zeros(80_000, np.float32), size):
        live.feed(chunk)
        held = live._cutter._held
        most = max(most, sum(len(block if block.base is None else block.base) for block in held))
    assert 0 < most <= 2_400


def test_a_long_chunk_is_scored_in_batches(monkeypatch: pytest.MonkeyPatch):
    classifier = make_classifier(batch_seconds=1)
    batches: list[int] = []
    prepare = classifier._scorer.prepare
    monkeypatch.setattr(classifier._scorer, "prepare", lambda waves: batches.append(len(waves)) or prepare(waves))
    found = list(classifier.stream([speech()], RATE, 0.3, 0.1))
    assert batches == [3, 3, 2, 1]
    assert_same(found, score(classifier, (RATE, speech()), 0.3, 0.1).windows)
    assert len(list(make_classifier(batch_seconds=float("inf")).stream([speech()], RATE, 0.3, 0.1))) == 9


def test_a_chunk_that_is_too_loud_settles_nothing(classifier: SpeechEmotionClassifier):
    live = classifier.stream(sampling_rate=RATE, window=0.3)
    with pytest.raises(RequestError, match="too large to compute with"):
        live.feed(np.full((200, 2), 1e30, dtype=np.float32))
    found = [one for chunk in (speech(), np.zeros(0)) for one in live.feed(chunk)] + live.finish()
    assert_same(found, score(classifier, (RATE, speech()), 0.3, 0.3).windows)


# Forms of chunks

STEREO = np.stack([speech(), 0.5 * tone(len(speech()), 400, seed=1)], axis=1)
FORMS: dict[str, tuple[np.ndarray, Callable[[np.ndarray], Any]]] = {
    "float64": (speech(), lambda chunk: chunk.astype(np.float64)),
    "int16": ((speech() * 2**15).astype(np.int16), lambda chunk: chunk),
    "int32": ((speech() * 2**31).astype(np.int32), lambda chunk: chunk),
    "uint8": (np.round(speech() * 127 + 128).astype(np.uint8), lambda chunk: chunk),
    "list": (speech(), lambda chunk: chunk.tolist()),
    "tensor": (speech(), torch.from_numpy),
    "int16 tensor": ((speech() * 2**15).astype(np.int16), torch.from_numpy),
    "tensor with a gradient": (speech(), lambda chunk: torch.from_numpy(chunk).requires_grad_()),
    "(samples, 1)": (speech(), lambda chunk: chunk[:, None]),
    "(1, samples)": (speech(), lambda chunk: torch.from_numpy(chunk)[None]),
    "(samples, 2)": (STEREO, lambda chunk: chunk),
    "(2, samples)": (STEREO, lambda chunk: chunk.T),
}


@pytest.mark.parametrize("form", FORMS)
def test_chunks_have_the_forms_of_arrays_elsewhere(classifier: SpeechEmotionClassifier, form: str):
    wave, made = FORMS[form]
    expected = score(classifier, (RATE, wave), WINDOW, HOP).windows
    sizes = (1_001, 2, 1, 0, 3) if form == "(2, samples)" else (1, 2, 1_001, 0, 3)
    assert_same(list(classifier.stream(map(made, cut(wave, *sizes)), RATE, WINDOW, HOP)), expected)


def test_two_channels_may_come_sample_by_sample(classifier: SpeechEmotionClassifier):
    expected = score(classifier, (RATE, STEREO[:5_000]), WINDOW, HOP).windows
    assert_same(list(classifier.stream(cut(STEREO[:5_000], 1), RATE, WINDOW, HOP)), expected)


def test_one_channel_may_come_in_any_layout(classifier: SpeechEmotionClassifier):
    chunks = [speech()[:1, None], speech()[None, 1:3], speech()[3:5, None], speech()[None, 5:999], speech()[999:]]
    expected = score(classifier, (RATE, speech()), WINDOW, HOP).windows
    assert_same(list(classifier.stream(chunks, RATE, WINDOW, HOP)), expected)


def test_empty_chunks_of_any_shape_are_nothing(classifier: SpeechEmotionClassifier):
    live = classifier.stream(sampling_rate=RATE, window=0.3, hop=0.1)
    for empty in (np.zeros(0, np.int16), np.zeros((0, 2), np.float32), torch.zeros(1, 0), []):
        assert live.feed(empty) == []
    assert [one.end for one in live.feed(speech()[:4_800])] == [0.3]
    assert live.finish() == []


# What is refused


@pytest.mark.parametrize("rate", [None, 0, -16_000, 999, 16_000.5, "16000", float("nan"), True])
def test_a_stream_needs_a_sampling_rate(classifier: SpeechEmotionClassifier, rate: Any):
    for chunks in (None, [speech()]):
        with pytest.raises(RequestError, match=r"(?s)the stream says.*whole number.*sampling_rate=16000"):
            classifier.stream(chunks, rate)


@pytest.mark.parametrize(
    ("window", "hop"),
    [(None, None), (0, None), (-1, None), (0.01, None), (float("nan"), None), (float("inf"), None), ("5", None)]
    + [(5, 0), (5, -1), (5, 6), (5, float("nan")), (None, 1)],
)
def test_windows_that_make_no_sense_are_refused_before_a_chunk_is_asked_for(
    classifier: SpeechEmotionClassifier, window: Any, hop: Any
):
    with pytest.raises(RequestError, match=r"(window|hop) is |hop \(6 s\)"):
        classifier.stream(iter([speech()]), RATE, window, hop)


@pytest.mark.parametrize(
    "chunks",
    [speech(), torch.from_numpy(STEREO), [0.1, 0.2], "call.wav", Path("call.wav"), b"RIFF", {"array": 1}, 16_000],
)
def test_a_whole_recording_is_no_stream(classifier: SpeechEmotionClassifier, chunks: Any):
    with pytest.raises(RequestError, match=r"(?s)chunks is .*iterable of arrays.*classifier\(recording, window=5\)"):
        classifier.stream(chunks, RATE)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (b"\0\0", r"is of type bytes.*array or tensor.*frombuffer"),
        ((RATE, np.zeros(3, np.float32)), "is of type tuple.*array or tensor.*the array alone"),
        (None, "is of type NoneType"),
        (np.float32(0.1), r"has the shape \(\)"),
        (np.zeros((2, 2, 5), np.float32), r"has the shape \(2, 2, 5\)"),
        (np.zeros((6, 300), np.float32), r"has the shape \(6, 300\).*one or two channels.*mean"),
        (np.zeros(5, np.int64), "has the type int64"),
        (np.zeros(5, np.complex64), "has the type complex64"),
        (np.array(["a"]), "has the type"),
        ([[0.1, 0.2], [0.3]], "is no array of numbers"),
    ],
)
def test_what_is_no_chunk_is_refused_with_its_place(classifier: SpeechEmotionClassifier, chunk: Any, message: str):
    live = classifier.stream(sampling_rate=8_000)
    with pytest.raises(RequestError, match=f"(?s)the chunk at 0.00 s {message}"):
        live.feed(chunk)
    live.feed(np.zeros(4_000, np.float32))
    with pytest.raises(RequestError, match=f"(?s)the chunk at 0.50 s {message}"):
        live.feed(chunk)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("wave", [speech(), STEREO], ids=["mono", "stereo"])
def test_samples_that_are_no_numbers_are_refused_with_their_second_and_the_stream_goes_on(
    classifier: SpeechEmotionClassifier, wave: np.ndarray, bad: float
):
    hole = wave[8_000:16_000].copy()
    hole[2_000:].reshape(-1)[0] = bad
    live = classifier.stream(sampling_rate=RATE, window=WINDOW, hop=HOP)
    found = live.feed(wave[:8_000])
    with pytest.raises(RequestError, match=r"(?s)chunk at 0.50 s .*not finite.*the first at 0.6250 s.*nan_to_num"):
        live.feed(hole)
    found += live.feed(wave[8_000:]) + live.finish()
    assert_same(found, score(classifier, (RATE, wave), WINDOW, HOP).windows)


def test_a_refused_chunk_does_not_settle_the_channels(classifier: SpeechEmotionClassifier):
    live = classifier.stream(sampling_rate=RATE)
    with pytest.raises(RequestError, match="not finite"):
        live.feed(np.full((10, 2), np.nan))
    assert live.feed(speech()) == []


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ((10,), (10, 2), r"\(10, 2\); those before it were taken for one channel\n"),
        ((10, 2), (10,), r"\(10,\); those before it were taken for two, as \(samples, channels\)\n"),
        ((10, 2), (2, 10), r"\(2, 10\); those before it were taken for two, as \(samples, channels\)\n"),
        ((2, 10), (10, 2), r"\(10, 2\); those before it were taken for two, as \(channels, samples\)\n"),
        ((2, 1), (2, 10), r"\(2, 10\); those before it were taken for one channel\n"),
    ],
)
def test_channels_do_not_change(
    classifier: SpeechEmotionClassifier, first: tuple[int, ...], then: tuple[int, ...], message: str
):
    live = classifier.stream(sampling_rate=RATE)
    live.feed(np.zeros(first, np.float32))
    with pytest.raises(RequestError, match=f"(?s)has the shape {message}.*fix"):
        live.feed(np.zeros(then, np.float32))


def test_channels_that_cancel_each_other_are_refused_with_the_first_window(classifier: SpeechEmotionClassifier):
    opposite = np.stack([speech(), -speech()], axis=1)
    live = classifier.stream(sampling_rate=RATE, window=0.3)
    live.feed(opposite[:4_000])
    with pytest.raises(RequestError, match="the channels of the stream cancel each other"):
        live.feed(opposite[4_000:])
    live = classifier.stream(sampling_rate=RATE, window=5)
    live.feed(opposite)
    with pytest.raises(RequestError, match="cancel each other"):
        live.finish()
    assert len(list(classifier.stream([np.zeros((6_400, 2), np.int16)], RATE, 0.3, 0.1))) == 2  # silence is no such


def test_nothing_is_fed_after_the_end(classifier: SpeechEmotionClassifier):
    live = classifier.stream(sampling_rate=RATE)
    assert len(live.feed(speech()) + live.finish()) == 1
    for again in (lambda: live.feed(speech()), lambda: live.feed([]), live.finish):
        with pytest.raises(RequestError, match=r"(?s)the stream has ended.*another stream"):
            again()


def test_scores_that_are_no_numbers_are_not_given():
    classifier = make_classifier()
    with torch.no_grad():
        classifier.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="no finite numbers"):
        list(classifier.stream([speech()], RATE, WINDOW))
