"""Scoring recordings: the same scores whatever lies beside them, windows over long ones, bad ones reported."""

from __future__ import annotations

import io
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_files import RATE, encoded, tone, write_audio
from classifiers import alone, make_classifier, score, score_all, values
from gmp_atl_hf import GMPATLConfig, HubertForGMPATL, HubertForGMPATLMultiTask, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.data.audio import read_audio
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.inference import reader as reading
from gmp_atl_hf.inference import sources
from gmp_atl_hf.inference.devices import default_batch_seconds
from gmp_atl_hf.inference.reader import Reader
from gmp_atl_hf.inference.sources import Item, estimated_samples, list_folder
from gmp_atl_hf.threads import prefetch
from models import EMOTIONS, build, build_backbone


@pytest.fixture(scope="module")
def classifier() -> SpeechEmotionClassifier:
    return make_classifier()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, classifier: SpeechEmotionClassifier) -> Path:
    folder = tmp_path_factory.mktemp("model")
    classifier.model.save_pretrained(folder)
    classifier.feature_extractor.save_pretrained(folder)
    return folder


# One clip, many clips


def test_scores_are_the_softmax_of_the_calibrated_logits(classifier: SpeechEmotionClassifier, tmp_path: Path):
    path = write_audio(tmp_path / "x.flac", 12_345)
    prediction = score(classifier, path)
    np.testing.assert_allclose(values(prediction), alone(classifier, path), atol=1e-6)
    assert tuple(prediction.scores) == EMOTIONS
    assert prediction.label == EMOTIONS[int(values(prediction).argmax())]
    assert (prediction.file, prediction.seconds) == (str(path), 12_345 / RATE)
    assert (prediction.windows, prediction.error) == (None, None)
    assert sum(prediction.scores.values()) == pytest.approx(1)


@pytest.mark.parametrize("shape", ["base", "large"])
def test_scores_do_not_depend_on_the_clips_beside_and_come_in_the_order_of_the_inputs(shape: str):
    classifier = make_classifier(shape)
    lengths = [9_000, 400, 30_000, 8_500, 9_100, 31_000, 700, 8_800, 29_000, 9_050, 123, 30_500]
    clips = [(RATE, tone(length, pitch=100 + 40 * number, seed=number)) for number, length in enumerate(lengths)]
    batches: list[int] = []
    score_batch = classifier._scorer.score
    classifier._scorer.score = lambda batch: batches.append(len(batch)) or score_batch(batch)  # type: ignore[method-assign]
    predictions = score_all(classifier, clips)
    assert [one.seconds for one in predictions] == [length / RATE for length in lengths]
    assert len(batches) < len(clips)
    expected = np.stack([alone(classifier, clip) for clip in clips])
    np.testing.assert_allclose(np.stack([values(one) for one in predictions]), expected, atol=1e-4)
    assert np.abs(expected[0] - expected[2]).max() > 0.01  # or the test could not tell one clip from another


def test_every_form_of_a_recording_is_scored_alike(classifier: SpeechEmotionClassifier, tmp_path: Path):
    wave = tone(8_000)
    path = write_audio(tmp_path / "x.wav", wave, subtype="FLOAT")
    content = path.read_bytes()
    forms = [path, str(path), content, io.BytesIO(content), (RATE, wave), {"array": wave, "sampling_rate": RATE}]
    forms += [{"path": str(path), "bytes": None}, {"path": "elsewhere.wav", "bytes": content}, (RATE, wave[:, None])]
    expected = alone(classifier, path)
    for form in forms:
        np.testing.assert_allclose(values(score(classifier, form)), expected, atol=1e-6)
    for many in (forms[:1] + forms[4:], tuple(forms[:2]), (form for form in forms[:2])):
        for one in score_all(classifier, many):
            np.testing.assert_allclose(values(one), expected, atol=1e-4)
    assert score_all(classifier, []) == []


@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [("x.wav", 8_000, None), ("x.wav", 44_100, "PCM_24"), ("x.mp3", 44_100, None), ("x.opus", 48_000, "OPUS")]
    + [("x.wav", 16_000, "FLOAT"), ("x.flac", 96_000, None), ("x.ogg", 22_050, None)],
)
def test_rates_widths_and_formats_are_those_of_the_reader(
    classifier: SpeechEmotionClassifier, tmp_path: Path, name: str, rate: int, subtype: str | None
):
    stereo = np.stack([tone(rate, rate=rate), tone(rate, 300, rate=rate)], axis=1)
    path = write_audio(tmp_path / name, stereo, rate, subtype)
    np.testing.assert_allclose(values(score(classifier, path)), alone(classifier, path), atol=1e-6)
    assert abs(estimated_samples(path) - RATE) < 2_500


def test_a_clip_below_one_frame_and_silence_are_scored(classifier: SpeechEmotionClassifier):
    for wave in (tone(160), np.zeros(RATE, dtype=np.float32)):
        prediction = score(classifier, (RATE, wave))
        assert np.isfinite(values(prediction)).all()
        assert prediction.seconds == len(wave) / RATE
        np.testing.assert_allclose(values(prediction), alone(classifier, (RATE, wave)), atol=1e-6)


def test_a_front_end_that_sees_more_than_400_samples_gets_them():
    model = build(HubertForGMPATL, conv_kernel=(20, 3, 3, 3, 3, 2, 2))
    assert isinstance(model, HubertForGMPATL)
    score(SpeechEmotionClassifier(model, default_feature_extractor(model.config)), (RATE, tone(405)))


# Folders and bad files


def test_a_folder_is_scored_with_all_below_it_and_gives_a_list(classifier: SpeechEmotionClassifier, tmp_path: Path):
    files = [write_audio(tmp_path / name) for name in ("b.wav", "a/z.flac", "a/B.WAV")]
    (tmp_path / "notes.txt").write_text("no audio")
    predictions = score_all(classifier, tmp_path)
    assert [one.file for one in predictions] == sorted(map(str, files))
    assert list_folder(tmp_path).others == [tmp_path / "notes.txt"]
    mixed = score_all(classifier, [tmp_path / "b.wav", str(tmp_path), (RATE, tone())])
    assert [one.file for one in mixed] == [str(tmp_path / "b.wav"), *sorted(map(str, files)), "an audio array"]
    assert len(score_all(classifier, tmp_path / "a")) == 2


def test_bad_inputs_are_named_with_the_reason_and_the_others_are_unharmed(
    classifier: SpeechEmotionClassifier, tmp_path: Path
):
    good = write_audio(tmp_path / "good.wav", 8_000)
    (tmp_path / "text.wav").write_text("this is no audio at all")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "cut.wav").write_bytes(encoded(8_000)[:5_000])
    (tmp_path / "cut.flac").write_bytes(encoded(80_000, format="FLAC")[:40_000])
    (tmp_path / "film.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + b"\0" * 100)
    write_audio(tmp_path / "nan.wav", np.full(8_000, np.nan, dtype=np.float32), subtype="FLOAT")
    write_audio(tmp_path / "void.wav", np.empty(0, dtype=np.float32))
    (tmp_path / "folder").mkdir()
    names = ["good.wav", "text.wav", "empty.wav", "cut.wav", "cut.flac", "film.m4a", "nan.wav", "void.wav", "no.wav"]
    inputs: list[Any] = [tmp_path / name for name in [*names, "folder", "nul\0.wav"]]
    inputs += [None, {"path": None}, (RATE, np.zeros((2, 2, 2))), (RATE, [[1.0], [1.0, 2.0]]), (0, tone()), good]
    predictions = score_all(classifier, inputs)
    expected = alone(classifier, good)
    for one in (predictions[0], predictions[-1]):
        np.testing.assert_allclose(values(one), expected, atol=1e-4)
    reasons = [
        "not audio",
        "empty",
        "ends early",
        "early",
        "m4a",
        "not finite",
        "no samples",
        "no file",
        "no recordings",
    ]
    for source, one, reason in zip(inputs[1:10], predictions[1:10], reasons, strict=True):
        assert one.error is not None
        assert str(source) in one.error
        assert reason in one.error
        assert "\n" not in one.error
    for one in predictions[1:-1]:
        assert one.error
        assert (one.label, one.scores, one.seconds, one.windows) == (None, {}, None, None)


def test_numbers_without_a_rate_are_refused(classifier: SpeechEmotionClassifier):
    with pytest.raises(RequestError, match="without a sampling rate"):
        classifier(tone())


def test_a_failure_of_the_model_ends_the_call_instead_of_hanging(tmp_path: Path):
    classifier = make_classifier()

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    classifier._scorer.score = fail  # type: ignore[method-assign]
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        classifier([(RATE, tone(seed=number)) for number in range(50)])
    assert threading.active_count() == before


# Batches


def test_batches_are_bounded_in_seconds_and_hold_neighbours_in_length():
    rng = np.random.default_rng(0)
    lengths = rng.integers(400, 20_000, 60).tolist() + [100_000]
    items = [Item(str(number), (RATE, tone(length))) for number, length in enumerate(lengths)]
    batches = list(Reader(items, None, None, 400).batches(batch_seconds=4))
    seen = [piece.item for batch in batches for piece in batch]
    assert sorted(seen) == list(range(61))
    assert seen[0] == 60
    for batch in batches:
        sizes = [len(piece.waveform) for piece in batch]
        padded = max(sizes) * len(sizes)
        assert padded <= 4 * RATE or len(batch) == 1
        assert padded - sum(sizes) <= 0.1 * padded
    assert max(map(len, batches)) > 1


def test_only_a_bounded_part_of_a_folder_is_in_memory(monkeypatch: pytest.MonkeyPatch):
    decoded: list[int] = []
    monkeypatch.setattr(reading, "READ_AHEAD_SECONDS", 5.0)
    monkeypatch.setattr(sources, "read_audio", lambda source: decoded.append(1) or read_audio(source))
    items = [Item(str(number), (RATE, tone(RATE))) for number in range(60)]
    given = 0
    for batch in Reader(items, None, None, 400).batches(batch_seconds=2):
        given += len(batch)
        assert len(decoded) <= given + 6
    assert given == 60


def test_the_next_batch_is_read_while_the_model_works():
    begun = [threading.Event() for _ in range(3)]

    def read(number: int) -> int:
        begun[number].set()
        return number

    for number in prefetch(read, range(3), threads=1):
        if number < 2:
            assert begun[number + 1].wait(5)


def test_what_goes_wrong_in_the_reading_thread_is_raised_in_the_callers():
    def broken(number: int) -> int:
        raise MemoryError("full")

    with pytest.raises(MemoryError, match="full"):
        list(prefetch(broken, range(3), threads=1))


# Loading


def test_a_model_folder_is_loaded_and_used_without_a_network(
    model_folder: Path, classifier: SpeechEmotionClassifier, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    loaded = SpeechEmotionClassifier.from_pretrained(model_folder, device="cpu")
    clip = (RATE, tone())
    np.testing.assert_allclose(values(score(loaded, clip)), values(score(classifier, clip)), atol=1e-6)
    assert loaded.labels == list(EMOTIONS)
    assert loaded.precision == "float32"
    assert not loaded.model.training


def test_models_without_a_trained_emotion_head_are_refused(tmp_path: Path, model_folder: Path):
    build(HubertForGMPATLMultiTask).save_pretrained(tmp_path / "multitask")
    build_backbone().save_pretrained(tmp_path / "backbone")
    (tmp_path / "bare").mkdir()
    for name, message in [
        ("multitask", "MultiTask"),
        ("backbone", "'hubert'"),
        ("bare", "bare"),
        ("none", "no folder"),
    ]:
        with pytest.raises(RequestError, match=message):
            SpeechEmotionClassifier.from_pretrained(tmp_path / name)
    build_backbone("large").save_pretrained(tmp_path / "headless")
    (tmp_path / "headless/config.json").write_text((model_folder / "config.json").read_text())
    with pytest.raises(RequestError, match=r"lacks or has in another shape: classifier\.weight"):
        SpeechEmotionClassifier.from_pretrained(tmp_path / "headless")
    (tmp_path / "headless/model.safetensors").write_bytes(b"torn")
    with pytest.raises(RequestError, match="cannot be loaded"):
        SpeechEmotionClassifier.from_pretrained(tmp_path / "headless")


@pytest.mark.parametrize("device", ["cdua", "cuda:99", "meta"])
def test_devices_that_are_not_there_are_refused(model_folder: Path, device: str):
    with pytest.raises(RequestError, match=device):
        SpeechEmotionClassifier.from_pretrained(model_folder, device=device)


def test_the_encoder_can_compute_in_bfloat16(classifier: SpeechEmotionClassifier):
    model = build(HubertForGMPATL, initializer_range=0.02)  # wild weights would multiply the rounding
    assert isinstance(model, HubertForGMPATL)
    full, half = (
        SpeechEmotionClassifier(model, classifier.feature_extractor, precision=name) for name in ("float32", "bfloat16")
    )
    clip = (RATE, tone(RATE))
    assert 0 < np.abs(values(score(half, clip)) - values(score(full, clip))).max() < 0.02
    with pytest.raises(RequestError, match="float16"):
        make_classifier(precision="float16")
    with pytest.raises(RequestError, match="batch_seconds"):
        make_classifier(batch_seconds=0)


def test_wide_models_get_small_batches_on_a_cpu_and_large_ones_on_an_accelerator():
    narrow, wide = GMPATLConfig(conv_dim=(16,) * 7), GMPATLConfig()
    assert default_batch_seconds(narrow, torch.device("cpu")) == 128
    assert 4 < default_batch_seconds(wide, torch.device("cpu")) < 6
    assert default_batch_seconds(wide, torch.device("cuda")) == 128


def test_a_model_in_training_mode_is_put_in_eval_mode():
    model = build(HubertForGMPATL, hidden_dropout=0.5).train()
    assert isinstance(model, HubertForGMPATL)
    classifier = SpeechEmotionClassifier(model, default_feature_extractor(model.config))
    clip = (RATE, tone())
    assert score(classifier, clip) == score(classifier, clip)


def test_progress_is_shown_on_stderr_and_reaches_its_end(
    classifier: SpeechEmotionClassifier, capsys: pytest.CaptureFixture[str]
):
    bad = np.full(RATE, np.nan, dtype=np.float32)
    classifier([(RATE, tone(RATE)), (RATE, bad), (RATE, tone(2 * RATE))], progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3 s of audio" in err
    classifier((RATE, tone()))
    assert capsys.readouterr().err == ""
