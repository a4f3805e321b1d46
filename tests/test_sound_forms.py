"""The same sound in every form and by every way in: the same scores, or a refusal that says what to do."""

from __future__ import annotations

import io
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset
from transformers import pipeline

from audio_files import RATE, encoded, tone, write_audio
from classifiers import alone, make_classifier, score, score_all, values
from corpus_trees import read_corpus
from gmp_atl_hf import SpeechEmotionClassifier, load_corpus
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data.audio import audio_length, read_audio
from gmp_atl_hf.data.audio_stream import read_blocks
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.inference.sources import estimated_samples, list_folder
from models import EMOTIONS

WAVE = np.round(tone(8_000) * 2**15).astype(np.float32) / 2**15
STEREO = np.stack([WAVE, WAVE], axis=1)


def flac_that_promises(samples: int) -> bytes:
    """A flac of 8,000 samples whose header has another length: its lowest 36 bits before the checksum."""
    content = bytearray(encoded(WAVE, format="FLAC"))
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(content)


def wav_at(rate: int, samples: int = 8_000) -> bytes:
    content = encoded(samples)
    return content[:24] + struct.pack("<I", rate) + content[28:]


FILES = {
    "pcm16.wav": encoded(WAVE),
    "pcm24.wav": encoded(WAVE, subtype="PCM_24"),
    "float.wav": encoded(WAVE, subtype="FLOAT"),
    "double.wav": encoded(WAVE, subtype="DOUBLE"),
    "stereo.wav": encoded(STEREO),
    "six.wav": encoded(np.repeat(STEREO, 3, axis=1)),
    "short.flac": encoded(WAVE, format="FLAC"),
    "no_length.flac": flac_that_promises(0),
    "pipe.wav": encoded(WAVE).replace(b"data" + struct.pack("<I", 16_000), b"data\xff\xff\xff\xff"),
    "really_flac.wav": encoded(WAVE, format="FLAC"),
}
"""One recording without loss in many coats."""

LOSSY = {
    "ulaw.wav": encoded(WAVE, subtype="ULAW"),
    "alaw.wav": encoded(WAVE, subtype="ALAW"),
    "byte.wav": encoded(WAVE, subtype="PCM_U8"),
    "adpcm.wav": encoded(WAVE, subtype="IMA_ADPCM"),
    "telephone.wav": encoded(tone(8_000, rate=8_000), 8_000, subtype="GSM610"),
    "telephone.aiff": encoded(tone(8_000, rate=8_000), 8_000, "AIFF", "GSM610"),
    "nms.wav": encoded(tone(8_000, rate=8_000), 8_000, subtype="NMS_ADPCM_16"),
    "g721.au": encoded(tone(8_000, rate=8_000), 8_000, "AU", "G721_32"),
    "music.ogg": encoded(WAVE, format="OGG"),
    "chat.opus": encoded(WAVE, format="OGG", subtype="OPUS"),
    "phone.mp3": encoded(WAVE, format="MP3"),
    "slow.wav": encoded(tone(4_000, rate=8_000), 8_000),
    "fast.flac": encoded(tone(24_000, rate=48_000), 48_000, "FLAC"),
}


@pytest.fixture(scope="module")
def classifier() -> SpeechEmotionClassifier:
    return make_classifier("base")


@pytest.fixture(scope="module")
def model(classifier: SpeechEmotionClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    classifier.model.save_pretrained(folder)
    classifier.feature_extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(model: Path) -> Callable[[Any], np.ndarray]:
    found: Any = pipeline("speech-emotion-recognition", model=str(model))
    return lambda source: by_label(found(source))


def by_label(rows: Any) -> np.ndarray:
    scores = {row["label"]: row["score"] for row in rows}
    return np.array([scores[name] for name in EMOTIONS])


def csv_of(folder: Path, files: list[str]) -> Path:
    table = folder / "list.csv"
    rows = "".join(f"{file},{'happy' if number % 2 else 'sad'},{number % 3}\n" for number, file in enumerate(files))
    table.write_text("file,emotion,speaker\n" + rows)
    return table


def test_a_file_of_any_kind_has_the_same_scores_by_every_way_in(
    classifier: SpeechEmotionClassifier,
    ours: Callable[[Any], np.ndarray],
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    files = FILES | LOSSY
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    expected = {name: alone(classifier, tmp_path / name) for name in files}
    for name in FILES:
        np.testing.assert_allclose(expected[name], alone(classifier, (RATE, WAVE)), atol=1e-4, err_msg=name)
    found = {name: [ours(str(tmp_path / name))] for name in files}
    ways: list[Callable[[str], Any]] = [
        lambda name: tmp_path / name,
        files.__getitem__,
        lambda name: {"bytes": files[name]},
    ]
    ways += [lambda name: memoryview(files[name]), lambda name: io.BytesIO(files[name])]
    for way in ways:
        for name, one in zip(files, score_all(classifier, [way(name) for name in files]), strict=True):
            found[name].append(values(one))
    for name, content in files.items():
        np.testing.assert_allclose(np.concatenate(list(read_blocks(content))), read_audio(content), atol=1e-6)
        assert audio_length(tmp_path / name) == len(read_audio(content)), name
    assert main(["predict", str(model), *(str(tmp_path / name) for name in files), "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row in rows:
        found[Path(row["file"]).name].append(np.array([row["scores"][name] for name in EMOTIONS]))
    for row in load_corpus("csv", csv_of(tmp_path, list(files))):
        found[row["file"]].append(alone(classifier, row["audio"]))
    for name, several in found.items():
        assert len(several) == 8
        for scores in several:
            np.testing.assert_allclose(scores, expected[name], atol=1e-4, err_msg=name)


def test_an_array_of_any_kind_has_the_same_scores_by_every_way_in(
    classifier: SpeechEmotionClassifier, ours: Callable[[Any], np.ndarray], model: Path
):
    tensor = torch.tensor(WAVE, requires_grad=True)
    plain: list[Any] = [WAVE, WAVE.astype(np.float64), WAVE.tolist(), tensor, tensor.double(), WAVE[::-1][::-1]]
    plain += [(WAVE * 2**15).astype(np.int16), (tensor.detach() * 2**15).short(), (WAVE * 2**31).astype(np.int32)]
    channels = [STEREO, STEREO.T, torch.tensor(STEREO.T), WAVE[:, None], WAVE[None], STEREO.T.tolist()]
    expected = alone(classifier, (RATE, WAVE))
    forms: list[Any] = [(np.int64(RATE), WAVE), {"array": WAVE, "sampling_rate": float(RATE)}]
    forms += [{"path": "nowhere.wav", "bytes": None, "array": WAVE, "sampling_rate": RATE}]
    forms += [(RATE, array) for array in plain + channels]
    forms += [{"raw": array, "sampling_rate": RATE} for array in plain + channels]
    for form, one in zip(forms, score_all(classifier, forms), strict=True):
        np.testing.assert_allclose(values(one), expected, atol=1e-4)
        np.testing.assert_allclose(ours(form), expected, atol=1e-4)
    decoded = SimpleNamespace(data=torch.tensor(np.repeat(STEREO, 3, axis=1).T), sample_rate=RATE)
    decoder = SimpleNamespace(get_all_samples=lambda: decoded)
    np.testing.assert_allclose(ours(decoder), expected, atol=1e-4)
    np.testing.assert_allclose(values(score(classifier, decoder)), expected, atol=1e-4)
    stock: Any = pipeline("audio-classification", model=str(model))
    for form in (*plain[:2], torch.tensor(WAVE), {"raw": WAVE, "sampling_rate": RATE}):
        np.testing.assert_allclose(by_label(stock(form)), expected, atol=1e-4)
    for form in plain + channels:
        if not isinstance(form, list):  # a list is many recordings
            np.testing.assert_allclose(ours(form), expected, atol=1e-4)


def test_many_recordings_are_scored_whatever_holds_them(
    classifier: SpeechEmotionClassifier, model: Path, tmp_path: Path
):
    paths = [str(write_audio(tmp_path / f"{n}.wav", tone(5_000 + 500 * n, 100 * (1 + n)))) for n in range(3)]
    expected = np.stack([alone(classifier, path) for path in paths])
    cells = Dataset.from_dict({"audio": [{"path": path, "bytes": None} for path in paths]})
    column = cells.cast_column("audio", Audio(decode=False))["audio"]
    found: Any = pipeline("speech-emotion-recognition", model=str(model))
    arrays = [read_audio(path) for path in paths]
    for many in (paths, tuple(paths), np.array(paths), column, (path for path in paths), map(str, paths)):
        kept = list(many)
        for again in (kept, tuple(kept), column):
            np.testing.assert_allclose([values(one) for one in score_all(classifier, again)], expected, atol=1e-4)
            np.testing.assert_allclose([by_label(rows) for rows in found(again)], expected, atol=1e-4)
    for many in (arrays, tuple(arrays), map(torch.tensor, arrays), [array.tolist() for array in arrays]):
        np.testing.assert_allclose([by_label(rows) for rows in found(many)], expected, atol=1e-4)
    assert found([]) == []


NO_RATE = "without a sampling rate"
HUGE = torch.zeros(960_000)


@pytest.mark.parametrize(
    "numbers",
    [HUGE, HUGE.numpy(), list(HUGE[:9]), np.zeros((16_000, 2)), np.zeros((16_000, 2)).tolist(), np.zeros(0)]
    + [[0.0, 0.5], (0.0, 0.5, 0.1), [1, 2, 3], np.zeros((2, 3, 4)), np.zeros(9, np.int64), np.float32(0.5), 42]
    + [list(zip(WAVE, WAVE, strict=True)), (RATE, 0.5), ([0.1, 0.2], [0.3, 0.4])]
    + [np.zeros(3, bool), torch.zeros(0), torch.tensor(0.5), iter([0.1, 0.2]), [True], np.zeros(3, complex)],
    ids=lambda value: f"{type(value).__name__}",
)
def test_numbers_that_say_no_rate_are_refused_at_once_and_by_one_sentence(
    classifier: SpeechEmotionClassifier, numbers: Any
):
    started = time.perf_counter()
    with pytest.raises(RequestError, match=NO_RATE) as raised:
        classifier(numbers)
    assert raised.value.expected is not None
    assert "(16000, array)" in str(raised.value.fix)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "samples", [WAVE, torch.from_numpy(WAVE), WAVE.tolist(), STEREO], ids=lambda one: type(one).__name__
)
def test_the_order_of_soundfile_and_torchaudio_is_named(
    classifier: SpeechEmotionClassifier, ours: Callable[[Any], np.ndarray], samples: Any
):
    for refused in (lambda: classifier((samples, RATE)), lambda: ours((samples, RATE))):
        with pytest.raises(RequestError, match="rate comes behind") as raised:
            refused()
        assert "(rate, array)" in str(raised.value.fix) and "sox" not in str(raised.value)


@pytest.mark.parametrize("full_scale", [2.0**15, 2.0**23, 2.0**31, 1e12])
def test_floats_at_the_scale_of_whole_numbers_are_scored(classifier: SpeechEmotionClassifier, full_scale: float):
    found = score(classifier, (RATE, (WAVE / np.abs(WAVE).max() * full_scale).astype(np.float32)))
    np.testing.assert_allclose(values(found), alone(classifier, (RATE, WAVE / np.abs(WAVE).max())), atol=1e-3)


BAD: dict[str, Any] = {
    "clips stacked": ((RATE, np.stack([WAVE] * 4)), "shape (4, 8000)"),
    "clips in columns": ((RATE, torch.zeros(8_000, 3)), "shape (8000, 3)"),
    "a batch": ((RATE, np.zeros((2, 1, 400))), "shape (2, 1, 400)"),
    "nothing": ((RATE, []), "no samples"),
    "no channel": ((RATE, np.zeros((5, 0))), "no samples"),
    "words": ((RATE, ["a", "b"]), "type <U1"),
    "an unknown width": ((RATE, np.zeros(500, dtype=np.int64)), "type int64"),
    "true or false": ((RATE, np.zeros(500, dtype=bool)), "type bool"),
    "complex": ((RATE, np.zeros(500, dtype=complex)), "type complex128"),
    "ragged": ((RATE, [[1.0], [1.0, 2.0]]), "no array of numbers"),
    "NaN": ((RATE, np.full(500, np.nan)), "not finite"),
    "infinite": ((RATE, [0.0, float("-inf")]), "not finite"),
    "too large for float32": ((RATE, np.full(500, 1e300)), "not finite"),
    "too large to square": ((RATE, WAVE * np.float32(1e30)), "too large to compute with"),
    "too large, at another rate": ((8_000, WAVE * np.float32(1e20)), "too large to compute with"),
    "too large downwards": ((RATE, np.stack([WAVE, -1e30 * np.abs(WAVE)])), "too large to compute with"),
    "too large, a file": (encoded(WAVE * np.float32(1e30), subtype="FLOAT"), "too large to compute with"),
    "the rate last": ((WAVE, RATE), "the sampling rate comes behind"),
    "the rate last, torchaudio's": ((torch.from_numpy(STEREO.T.copy()), RATE), "the sampling rate comes behind"),
    "the rate last, numbers": ((WAVE.tolist(), RATE), "the sampling rate comes behind"),
    "an array for a rate": ({"array": WAVE, "sampling_rate": WAVE}, "sampling rate is array"),
    "an empty path": ("", "an empty path"),
    "opposite channels": ((RATE, np.stack([WAVE, -WAVE])), "an audio array cancel each other"),
    "1 Hz": ((1, WAVE), "sampling rate is 1"),
    "2 GHz": ((2**31 - 1, WAVE), "sampling rate is 2147483647"),
    "NaN Hz": ((float("nan"), WAVE), "sampling rate is nan"),
    "half a Hz": ({"array": WAVE, "sampling_rate": 16_000.5}, "sampling rate is 16000.5"),
    "a rate in words": ({"raw": WAVE, "sampling_rate": "16000"}, "sampling rate is '16000'"),
    "no rate": ({"raw": WAVE, "path": "x.wav"}, "x.wav is not a form"),
    "nothing at all": (None, "not a form"),
    "a path that is none": ({"path": 5, "bytes": None}, "not a form"),
    "bytes that are none": ({"path": "x.wav", "bytes": "RIFF"}, "x.wav is not a form"),
    "a row of a table": ({"audio": {"array": WAVE, "sampling_rate": RATE}}, "not a form"),
}


@pytest.mark.parametrize(("source", "words"), BAD.values(), ids=BAD)
def test_what_is_no_recording_is_refused_alike_by_every_way_in(
    classifier: SpeechEmotionClassifier, ours: Callable[[Any], np.ndarray], source: Any, words: str
):
    with pytest.raises(RequestError) as raised:
        read_audio(source)
    assert words in raised.value.found
    assert raised.value.expected is not None
    assert raised.value.fix is not None
    with pytest.raises(RequestError) as by_pipeline:
        ours(source)
    assert str(by_pipeline.value) == str(raised.value)
    bad, good = score_all(classifier, [source, (RATE, WAVE)])
    assert words in str(bad.error)
    np.testing.assert_allclose(values(good), alone(classifier, (RATE, WAVE)), atol=1e-4)


def bad_files(folder: Path) -> dict[str, str]:
    """Files that must not be read, and what is said of each."""
    contents = {
        "1 Hz.wav": (wav_at(1, 1_000_000), "sampling rate is 1"),
        "999 Hz.wav": (wav_at(999), "sampling rate is 999"),
        "2 MHz.wav": (wav_at(2_000_000), "sampling rate is 2000000"),
        "2 GHz.wav": (wav_at(2**31 - 1), "2 GHz.wav"),
        "1 Hz.au": (b".snd" + struct.pack(">5I", 24, 2_000, 3, 1, 1) + bytes(2_000), "sampling rate is 1"),
        "too much.flac": (flac_that_promises(2**36 - 1), "ends early"),
        "much.flac": (flac_that_promises(2**28), "ends early"),
        "empty.wav": (b"", "empty"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.wav")
    return {name: words for name, (_, words) in contents.items()} | {
        "pipe.wav": "is a pipe or device",
        "l" * 256 + ".wav": "File name too long",
        "/".join(["l" * 200] * 25) + "/x.wav": "File name too long",
        "none.wav": "there is no file",
    }


def test_a_file_that_would_hang_or_fill_the_memory_is_named_at_once_by_every_way_in(
    classifier: SpeechEmotionClassifier, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bad = bad_files(tmp_path)
    write_audio(tmp_path / "good.wav", WAVE)
    started = time.perf_counter()
    predictions = score_all(classifier, [*(tmp_path / name for name in bad), tmp_path / "good.wav"], 0.1)
    for (name, words), one in zip(bad.items(), predictions, strict=False):
        assert one.error is not None
        assert str(tmp_path / name) in one.error
        assert words in one.error
    assert predictions[-1].error is None
    for name, words in bad.items():
        for read in (read_audio, audio_length, lambda path: list(read_blocks(path))):
            if read is not audio_length or name != "much.flac":  # as its header says: it is not decoded
                with pytest.raises(RequestError) as raised:
                    read(tmp_path / name)
                assert words in raised.value.found
                assert raised.value.fix is not None
    assert main(["predict", str(model), str(tmp_path)]) == 1
    assert "9 of 10 recordings could not be scored" in capsys.readouterr().err
    corpus = read_corpus("csv", csv_of(tmp_path, [*bad, "good.wav"]), unreadable="drop")
    assert corpus.table["file"][:] == ["good.wav"]
    assert {one.file.removeprefix("csv/") for one in corpus.left_out} == set(bad)
    with pytest.raises(RequestError, match="12 of 13 recordings of csv cannot be read"):
        load_corpus("csv", csv_of(tmp_path, [*bad, "good.wav"]))
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("name", ["\ud800.wav", "nul\0.wav", "x" * 300 + ".wav", "x" * 5_000, "\udcff" * 300])
def test_a_name_that_no_file_can_have_is_said(
    classifier: SpeechEmotionClassifier, ours: Callable[[Any], np.ndarray], name: str
):
    for source in (name, Path(name), {"path": name, "bytes": None}):
        for way in (read_audio, audio_length, ours):
            with pytest.raises(RequestError, match="cannot be opened") as raised:
                way(source)
            assert name in raised.value.found
        prediction: Any = classifier(source)
        assert "cannot be opened" in prediction.error


def test_an_open_file_that_gives_no_bytes_is_refused(
    classifier: SpeechEmotionClassifier, ours: Callable[[Any], np.ndarray], tmp_path: Path
):
    path = write_audio(tmp_path / "x.wav", WAVE)
    with path.open(encoding="utf-8") as text, (tmp_path / "new.wav").open("wb") as written, path.open("rb") as closed:
        closed.close()
        for file, words in ((text, "opened as text"), (written, "cannot be read"), (closed, "cannot be read")):
            for way in (read_audio, ours):
                with pytest.raises(RequestError, match=words):
                    way(file)
            bad, good = score_all(classifier, [file, path])
            assert words in str(bad.error)
            assert good.error is None


def test_a_path_that_is_no_path_to_a_folder_is_not_the_folder_one_is_in(classifier: SpeechEmotionClassifier):
    prediction: Any = classifier("")
    assert not isinstance(prediction, list)
    assert prediction.error is not None


def test_hidden_files_of_a_folder_are_passed_over_and_named_but_read_when_asked_for(
    classifier: SpeechEmotionClassifier, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / ".hidden" / "corpus"
    good = [write_audio(folder / "a/x.wav", WAVE), write_audio(folder / "y.wav", WAVE)]
    hidden = [folder / name for name in ("._y.wav", "a/._x.wav", "__MACOSX/y.wav", ".Trashes/x.wav", "a/.y.wav")]
    for path in hidden:
        write_audio(path, WAVE)
    assert list_folder(folder).recordings == good
    assert list_folder(folder).others == sorted(hidden)
    assert main(["predict", str(model), str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "._" not in out
    assert "passed over" in err
    assert str(sorted(hidden)[0]) in err
    assert len(score_all(classifier, folder)) == 2
    np.testing.assert_allclose(values(score(classifier, hidden[0])), alone(classifier, (RATE, WAVE)), atol=1e-4)


def test_the_length_of_every_form_is_guessed_from_what_it_says():
    for array in (WAVE, STEREO, STEREO.T, torch.tensor(STEREO.T), WAVE.tolist()):
        for form in ((RATE, array), {"raw": array, "sampling_rate": RATE}):
            assert estimated_samples(form) == 8_000
    for content in (FILES["pcm16.wav"], memoryview(FILES["short.flac"])):
        assert estimated_samples(content) == 8_000
        assert estimated_samples(io.BytesIO(content)) == 8_000
    for unknown in (flac_that_promises(0), wav_at(1), (1, WAVE), (RATE, 0.5), (RATE, []), {"path": None}, None):
        assert estimated_samples(unknown) == 0
