"""The demo corpus: reproducible, fair, and honest about what it was made with."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gmp_atl_hf.data.corpora import corpus_reader
from gmp_atl_hf.data.corpora.base import Recording
from gmp_atl_hf.data.corpora.demo.corpus import DemoCorpus, read, synthesise
from gmp_atl_hf.data.corpora.demo.speech import EMOTIONS, SENTENCES, VARIANTS, make_voices
from gmp_atl_hf.errors import RequestError

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason='needs pip install "gmp-atl-hf[demo]"'
)
SMALL = DemoCorpus(speakers=6, sentences=3)


def fingerprint(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "corpus"
    synthesise(root, SMALL, progress=False)
    return root


@pytest.fixture(scope="module")
def recordings(small: Path) -> list[Recording]:
    return list(read(small, speakers=6, sentences=3))


@needs_espeak
def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_audio(small: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "again", SMALL, progress=False)
    synthesise(tmp_path / "other", DemoCorpus(speakers=6, sentences=3, seed=1), progress=False)

    assert fingerprint(tmp_path / "again") == fingerprint(small)
    wavs = {value for name, value in fingerprint(small).items() if name.endswith(".wav")}
    assert not wavs & set(fingerprint(tmp_path / "other").values())


@needs_espeak
def test_a_voice_sounds_the_same_whatever_was_spoken_before_it(tmp_path: Path) -> None:
    from gmp_atl_hf.data.corpora.demo.espeak import Espeak

    def spoken(*before: str) -> bytes:
        for voice in before:
            with Espeak(seed=3) as engine:
                engine.speak("Something else entirely.", voice=voice)
        with Espeak(seed=3) as engine:
            return engine.speak("The cup is on the table.", voice="gmw/en-US+f2").tobytes()

    assert spoken() == spoken("gmw/en-US+whisper", "gmw/en+m3")


@needs_espeak
def test_espeaks_own_random_numbers_follow_the_seed_and_not_the_clock() -> None:
    from gmp_atl_hf.data.corpora.demo.espeak import Espeak

    def whisper(seed: int) -> bytes:
        with Espeak(seed=seed) as engine:
            return engine.speak("The cup is on the table.", voice="gmw/en-US+whisper").tobytes()

    assert whisper(5) == whisper(5)
    assert whisper(5) != whisper(6)


@needs_espeak
def test_clips_are_sixteen_kilohertz_mono_sixteen_bit_and_never_clip(recordings: list[Recording]) -> None:
    for recording in recordings:
        assert recording.path is not None
        info = soundfile.info(recording.path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        clip, _ = soundfile.read(recording.path)
        assert 0.01 < np.abs(clip).max() <= 0.9001
        assert 0.5 < len(clip) / 16_000 < 4


@needs_espeak
def test_every_voice_speaks_the_same_sentences_in_every_emotion(small: Path) -> None:
    with (small / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))

    assert len(rows) == 6 * 4 * 3
    for speaker in {row["speaker"] for row in rows}:
        texts = {
            emotion: [r["text"] for r in rows if r["speaker"] == speaker and r["emotion"] == emotion]
            for emotion in EMOTIONS
        }
        assert len({tuple(spoken) for spoken in texts.values()}) == 1
        assert set(texts["anger"]) <= set(SENTENCES)


@needs_espeak
def test_anger_is_faster_and_brighter_than_neutral_and_sadness_slower_and_duller(recordings: list[Recording]) -> None:
    seconds: dict[str, list[float]] = {emotion: [] for emotion in EMOTIONS}
    brightness: dict[str, list[float]] = {emotion: [] for emotion in EMOTIONS}
    for recording in recordings:
        assert recording.path is not None
        clip, rate = soundfile.read(recording.path)
        power = np.abs(np.fft.rfft(clip)) ** 2
        high = np.fft.rfftfreq(len(clip), 1 / rate) > 1000
        seconds[recording.emotion].append(len(clip) / rate)
        brightness[recording.emotion].append(10 * np.log10(power[high].sum() / power[~high].sum()))

    mean = {emotion: np.mean(values) for emotion, values in seconds.items()}
    assert mean["anger"] < mean["neutral"] < mean["sadness"]
    mean = {emotion: np.mean(values) for emotion, values in brightness.items()}
    assert mean["sadness"] + 3 < mean["neutral"] < mean["anger"] - 3


@needs_espeak
def test_loudness_tells_nothing_about_the_emotion(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    levels: dict[str, list[float]] = {emotion: [] for emotion in EMOTIONS}
    for recording in read(root, speakers=12, sentences=6, progress=False):
        assert recording.path is not None
        clip, _ = soundfile.read(recording.path)
        levels[recording.emotion].append(10 * np.log10(np.mean(clip**2)))

    means = [np.mean(values) for values in levels.values()]
    # 72 clips an emotion with a deviation of 2.2 dB: a standard error of 0.26 dB.
    assert max(means) - min(means) < 1.2
    assert min(np.std(values) for values in levels.values()) > 1.5


def test_voices_are_split_by_gender_and_no_espeak_variant_occurs_in_two_splits() -> None:
    for speakers, expected in ((56, (16, 4, 8)), (6, (1, 1, 1)), (198, (57, 14, 28))):
        voices = make_voices(speakers, 7, seed=0)
        count = Counter((voice.gender, voice.split) for voice in voices)
        for gender in ("female", "male"):
            assert tuple(count[gender, split] for split in ("train", "dev", "test")) == expected
    for seed in range(20):
        homes: dict[str, set[str]] = {}
        for voice in make_voices(56, 7, seed):
            homes.setdefault(voice.espeak.split("+")[1], set()).add(voice.split)
        assert all(len(splits) == 1 for splits in homes.values())
        assert homes.keys() <= {*VARIANTS["female"], *VARIANTS["male"]}


@pytest.mark.parametrize(
    "settings",
    [
        {"speakers": 7},
        {"speakers": 4},
        {"speakers": 200},
        {"sentences": 0},
        {"sentences": 15},
        {"seed": -1},
        {"speakers": 8.0},
        {"sentences": True},
    ],
)
def test_a_setting_out_of_range_is_refused_and_named(settings: dict[str, int]) -> None:
    with pytest.raises(RequestError, match=next(iter(settings))):
        DemoCorpus(**settings)


@needs_espeak
def test_it_is_registered_with_given_splits_and_needs_no_folder_of_its_own(recordings: list[Recording]) -> None:
    reader = corpus_reader("demo")
    assert (reader.info.protocol, reader.info.needs_root) == ("given", False)
    first = recordings[0]
    assert (first.file, first.emotion, first.speaker, first.gender, first.split) == (
        *(recordings[0].path.stem, "anger", "f01", "female", "train"),  # type: ignore[union-attr]
    )
    assert len({recording.file for recording in recordings}) == len(recordings)
    assert {(r.speaker, r.split) for r in recordings if r.gender == "male"} == {
        *(("m01", "train"), ("m02", "dev"), ("m03", "test"))
    }


def test_reading_without_a_folder_is_refused_with_the_key_to_set() -> None:
    with pytest.raises(RequestError, match=r"corpus\.root"):
        read(None)


@needs_espeak
@pytest.mark.parametrize("changed", [{"speakers": 8}, {"sentences": 4}, {"seed": 9}])
def test_a_folder_made_with_other_settings_is_refused_with_the_setting_named(
    small: Path, changed: dict[str, int]
) -> None:
    ((name, value),) = changed.items()
    with pytest.raises(RequestError, match=f"{name} = (3|6|0)\n.*{name} = {value}"):
        read(small, **{"speakers": 6, "sentences": 3, **changed})


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match=r"no demo\.json"):
        read(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@needs_espeak
def test_a_missing_clip_is_named(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    first = next(read(root, speakers=6, sentences=1, progress=False))
    assert first.path is not None
    first.path.unlink()
    with pytest.raises(RequestError, match=f"lacks 1 of the 24 .*{first.file}"):
        read(root, speakers=6, sentences=1)


@needs_espeak
def test_two_at_once_both_succeed_and_leave_nothing_behind(tmp_path: Path) -> None:
    root, found = tmp_path / "corpus", []
    threads = [
        threading.Thread(target=lambda: found.append(list(read(root, speakers=6, sentences=1, progress=False))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 2 and found[0] == found[1]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


@needs_espeak
def test_an_interrupted_synthesis_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(soundfile, "write", full_disk)
    with pytest.raises(OSError, match="no space left"):
        synthesise(tmp_path / "corpus", SMALL, progress=False)
    assert not any(tmp_path.iterdir())


@needs_espeak
def test_the_folder_says_what_it_was_made_with(small: Path) -> None:
    description = json.loads((small / "demo.json").read_text())
    assert (description["speakers"], description["sentences"], description["seed"]) == (6, 3, 0)
    assert description["emotions"] == list(EMOTIONS)
    assert description["espeak_ng"][0].isdigit()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(RequestError, match=r'pip install "gmp-atl-hf\[demo\]"'):
        read(tmp_path / "corpus")
    assert not any(tmp_path.iterdir())


@needs_espeak
def test_an_unknown_voice_is_an_error_and_the_engine_goes_on() -> None:
    from gmp_atl_hf.data.corpora.demo.espeak import Espeak

    with Espeak() as engine:
        with pytest.raises(ValueError, match="no voice 'nobody'"):
            engine.speak("Hello.", voice="nobody")
        assert len(engine.speak("Hello.", voice="gmw/en")) > 0.2 * engine.sample_rate


@needs_espeak
def test_a_dead_or_cut_off_engine_is_an_error_and_not_a_shorter_clip() -> None:
    from gmp_atl_hf.data.corpora.demo.espeak import Espeak

    with Espeak() as engine:
        answers, engine._process.stdout = engine._process.stdout, io.BytesIO(b'{"samples": 9}\n\0\0')
        with pytest.raises(RuntimeError, match="ended with status"):
            engine.speak("Hello.", voice="gmw/en")
        assert answers is not None
        answers.close()

    with Espeak() as engine:
        engine._process.kill()
        with pytest.raises(RuntimeError, match="ended with status"):
            engine.speak("Hello.", voice="gmw/en")
        with pytest.raises(RuntimeError, match="ended with status"):
            engine.speak("Hello again.", voice="gmw/en")
    engine.close()
