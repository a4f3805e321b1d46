"""The pipeline task `speech-emotion-recognition`: the stock task's results, also of what that task cannot take."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HubertForSequenceClassification, pipeline

import gmp_atl_hf
from audio_files import RATE, encoded, tone, write_audio
from classifiers import make_classifier, score, values
from gmp_atl_hf import SpeechEmotionClassifier
from gmp_atl_hf.errors import RequestError
from models import EMOTIONS, listen, tiny_hubert_config

TASK = "speech-emotion-recognition"


@pytest.fixture(scope="module", params=["base", "large"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    classifier = make_classifier(request.param)
    classifier.model.save_pretrained(path)
    classifier.feature_extractor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    return pipeline("audio-classification", model=str(folder))


@pytest.fixture(scope="module")
def ours(folder: Path) -> Any:
    return pipeline(TASK, model=str(folder))


def close(first: Any, second: Any, tolerance: float = 1e-6) -> None:
    assert [row["label"] for row in first] == [row["label"] for row in second]
    np.testing.assert_allclose([row["score"] for row in first], [row["score"] for row in second], atol=tolerance)


@pytest.mark.parametrize(
    ("argument", "fix"),
    [
        ("windw", "did you mean `window`"),
        ("topk", "did you mean `top_k`"),
        ("hopp", "`hop`"),
        ("speaker", "leave it out"),
    ],
)
def test_a_misspelt_argument_is_refused_and_the_right_one_named(ours: Any, folder: Path, argument: str, fix: str):
    for refused in (lambda: ours(tone(), **{argument: 3}), lambda: pipeline(TASK, model=str(folder), **{argument: 3})):
        with pytest.raises(RequestError, match=f"no argument {argument}") as raised:
            refused()
        assert fix in str(raised.value.fix)


def test_arrays_give_the_results_of_the_stock_task_with_every_argument(stock: Any, ours: Any):
    clips = [tone(length, pitch=100 * (1 + number)) for number, length in enumerate((8_000, 400, 12_345, 9_000))]
    for options in ({}, {"top_k": 2}, {"top_k": None}, {"top_k": 99}, {"batch_size": 3}, {"function_to_apply": "none"}):
        theirs, found = stock(clips, **options), ours(clips, **options)
        for one, other in zip(theirs, found, strict=True):
            close(one, other, 1e-5 if "batch_size" in options else 1e-6)
    close(stock(clips[0], function_to_apply="sigmoid"), ours(clips[0], function_to_apply="sigmoid"))
    single: list[Any] = [clips[0].astype(np.float64), torch.from_numpy(clips[0])]
    single += [{"array": clips[0], "sampling_rate": RATE}, {"raw": clips[0], "sampling_rate": RATE, "path": "x"}]
    for form in single:
        close(stock(form), ours(form))
    close(next(iter(stock(clip for clip in clips))), next(iter(ours(clip for clip in clips))))
    with pytest.raises(ValueError, match="function_to_apply"):
        ours(clips[0], function_to_apply="square")


def test_it_loads_without_a_word(folder: Path):
    with listen() as messages:
        found = pipeline(TASK, model=str(folder))
    assert messages == []
    assert found.task == TASK


def test_what_the_stock_task_cannot_take_gives_the_scores_of_the_classifier(folder: Path, ours: Any, tmp_path: Path):
    classifier = SpeechEmotionClassifier.from_pretrained(folder, device="cpu")
    stereo = np.stack([tone(22_050, rate=22_050), tone(22_050, 300, rate=22_050)], axis=1)
    path = write_audio(tmp_path / "x.flac", stereo, 22_050)
    forms: list[Any] = [path, str(path), path.read_bytes(), write_audio(tmp_path / "x.mp3", tone(30_000))]
    forms += [write_audio(tmp_path / "x.opus", tone(48_000, rate=48_000), 48_000, "OPUS"), (22_050, stereo)]
    forms += [{"array": stereo, "sampling_rate": 22_050}, {"path": str(path), "bytes": None}, (RATE, tone(123))]
    for form in forms:
        wanted = dict(zip(EMOTIONS, values(score(classifier, form)), strict=True))
        found = ours(form if not isinstance(form, tuple) else {"array": form[1], "sampling_rate": form[0]})
        assert {row["label"]: row["score"] for row in found} == pytest.approx(wanted, abs=1e-4)
    decoder = SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=torch.tensor(stereo.T), sample_rate=22_050))
    for form in ({"array": stereo.T, "sampling_rate": 22_050}, decoder):
        close(ours(form), ours(path), 1e-3)  # the file is rounded to 16 bits


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_long_recording_is_scored_in_windows_of_a_minute_or_as_asked(
    folder: Path, ours: Any, tmp_path: Path, batch_size: int
):
    classifier = SpeechEmotionClassifier.from_pretrained(folder, device="cpu")
    long = write_audio(tmp_path / "long.wav", np.concatenate([tone(70 * RATE), 0.1 * tone(25 * RATE, 900)]))
    short = write_audio(tmp_path / "short.wav", tone(5_000))
    for options in ({}, {"window": 0.5, "hop": 0.2}):
        paths = [str(short), str(long), str(short)] if not options else [str(short)] * 3
        wanted = [values(score(classifier, path, *options.values())) for path in paths]
        for rows, scores in zip(ours(paths, batch_size=batch_size, **options), wanted, strict=True):
            by_label = {row["label"]: row["score"] for row in rows}
            np.testing.assert_allclose([by_label[name] for name in EMOTIONS], scores, atol=1e-4)


def test_what_a_call_may_be_given_the_pipeline_may_be_given_at_once(folder: Path, ours: Any):
    options = {"window": 0.5, "hop": 0.2}
    close(pipeline(TASK, model=str(folder), **options)(tone(20_000)), ours(tone(20_000), **options))


def test_bad_recordings_are_refused_by_name(ours: Any, tmp_path: Path):
    (tmp_path / "text.wav").write_text("no audio")
    for bad, message in [
        (str(tmp_path / "text.wav"), "text.wav is not audio"),
        (str(tmp_path / "none.wav"), "there is no file"),
        (np.full(RATE, np.nan, dtype=np.float32), "not finite"),
        (np.zeros((2, 2, 2)), "shape"),
        ({"path": None}, "not a form of audio"),
    ]:
        with pytest.raises(RequestError, match=message):
            ours(bad)
    with pytest.raises(RequestError, match="skipped"):
        ours(tone(), window=1, hop=2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_an_address_is_fetched(ours: Any, server: str, tmp_path: Path):
    (tmp_path / "x.wav").write_bytes(encoded(9_000))
    close(ours(f"{server}/x.wav"), ours(str(tmp_path / "x.wav")))


def test_models_of_others_work_too(tmp_path: Path):
    torch.manual_seed(0)
    model = HubertForSequenceClassification(tiny_hubert_config("large", num_labels=3)).eval()
    extractor = make_classifier("large").feature_extractor
    clip = tone(7_000)
    theirs = pipeline("audio-classification", model=model, feature_extractor=extractor)
    close(theirs(clip), pipeline(TASK, model=model, feature_extractor=extractor)(clip))
    extractor.sampling_rate = 8_000
    with pytest.raises(RequestError, match="8000 Hz"):
        pipeline(TASK, model=model, feature_extractor=extractor)


def test_announcing_the_task_loads_none_of_it():
    code = "import sys, gmp_atl_hf; print([m for m in sys.modules if m.startswith('gmp_atl_hf.')])"
    environment = {**os.environ, "PYTHONPATH": str(Path(gmp_atl_hf.__file__).parents[1])}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "inference.pipeline_task" in out.stdout
    assert "inference.pipeline'" not in out.stdout
    assert "data.audio" not in out.stdout
