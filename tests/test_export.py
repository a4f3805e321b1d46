"""A model as ONNX: exact at any length and in padded batches, without torch, or not written at all."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from scipy.special import softmax

from gmp_atl_hf import HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.modeling.heads_gmp_atl import Standardization
from models import EMOTIONS, build, make_clips, pad

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx`")
pytest.importorskip("onnxscript", reason="the extra `onnx`")

EXAMPLE = Path(__file__).parents[1] / "examples" / "classify_onnx.py"
SECONDS = (0.5, 3.0, 12.0)

WITHOUT_TORCH = """
import runpy, sys
blocked = ("torch", "transformers", "gmp_atl_hf", "scipy", "soxr", "librosa")
for name in blocked:
    sys.modules[name] = None  # any import of it now fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module", params=["base", "large"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Model folder, ONNX file and what the command said, of a base (group norm) and a large (layer norm) shape.

    The base one reads a sum of its layers, standardised.
    """
    folder = tmp_path_factory.mktemp(request.param)
    fields = {"readout": "sum", "standardize": True} if request.param == "base" else {}
    model = build(HubertForGMPATL, request.param, pooling="statistics", logit_temperature=3.0, **fields)
    if isinstance(model.standardization, Standardization):
        model.standardization.fit(torch.randn(9, 64) + 1)
    model.save_pretrained(folder / "model")
    default_feature_extractor(model.config).save_pretrained(folder / "model")
    command = [sys.executable, "-m", "gmp_atl_hf.cli", "export", str(folder / "model"), str(folder / "model.onnx")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr and "INFO" not in run.stderr, run.stderr
    return folder / "model", folder / "model.onnx", run.stdout


def load(folder: Path) -> HubertForGMPATL:
    return HubertForGMPATL.from_pretrained(folder).eval()


def test_logits_are_the_models_own_at_any_length_and_in_a_padded_batch(exported: tuple[Path, Path, str]) -> None:
    folder, file, _ = exported
    model, session = load(folder), onnxruntime.InferenceSession(file)
    # Lengths that the export has not looked at either.
    lengths = [*(round(16_000 * seconds) for seconds in SECONDS), 400, 23_457]
    clips = make_clips(lengths, seed=5)
    with torch.no_grad():
        expected = torch.cat([model(clip[None]).logits for clip in clips]).numpy()
    for clip, wanted in zip(clips, expected, strict=True):
        inputs = {"input_values": clip[None].numpy(), "attention_mask": np.ones((1, len(clip)), np.int64)}
        assert np.abs(session.run(["logits"], inputs)[0][0] - wanted).max() < 1e-4
    # Padding that is not silence shows who looks at it.
    together = session.run(["logits"], {name: values.numpy() for name, values in pad(clips, filling=0.7).items()})[0]
    assert np.abs(together - expected).max() < 1e-4
    assert np.ptp(expected, axis=0).max() > 0.01


def test_a_speakers_statistics_may_be_given_and_score_as_in_the_classifier(tmp_path: Path) -> None:
    from gmp_atl_hf.inference.onnx_export import _quantize, export_onnx

    model: Any = build(HubertForGMPATL, standardize=True, pooling="statistics", logit_temperature=3.0)
    clips = make_clips([16_000, 30_000, 9_000], seed=5)
    recordings = [(16_000, clip.numpy()) for clip in clips]
    classifier = SpeechEmotionClassifier(model, default_feature_extractor(model.config))
    model.standardization.fit(torch.randn(9, 64) + 1)
    with pytest.warns(UserWarning, match="several emotions"):
        speaker = classifier.adapt(recordings[1:])
    report = export_onnx(model, classifier.feature_extractor, tmp_path / "x.onnx", speakers=True)
    assert report.differences["a speaker's statistics"] < 1e-4
    settings = json.loads(report.settings.read_text())
    assert settings["model"] == speaker.model
    given = dict(zip(settings["speaker_inputs"], (speaker.mean, speaker.deviation), strict=True))
    inputs = {"input_values": clips[0][None].numpy(), "attention_mask": np.ones((1, 16_000), np.int64)}
    wanted, plain = classifier(recordings[0], speaker=speaker), classifier(recordings[0])
    for content, error in ((report.path.read_bytes(), 1e-4), (_quantize(report.path.read_bytes()), 0.02)):
        session = onnxruntime.InferenceSession(content)
        for each, scores in ((inputs, plain.scores), ({**inputs, **given}, wanted.scores)):
            found = softmax(session.run(["logits"], each)[0][0])
            assert found == pytest.approx(list(scores.values()), abs=error)
    assert np.abs(np.subtract(list(wanted.scores.values()), list(plain.scores.values()))).max() > 0.03


def test_a_model_without_statistics_takes_none_of_a_speaker(
    exported: tuple[Path, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = exported
    if "large" in str(folder):
        assert main(["export", str(folder), str(tmp_path / "x.onnx"), "--speakers"]) == 2
        assert "standardize: false" in capsys.readouterr().err


def test_the_example_scores_like_the_classifier_without_torch(exported: tuple[Path, Path, str], tmp_path: Path) -> None:
    folder, file, _ = exported
    clips = [*make_clips([round(16_000 * seconds) for seconds in SECONDS], seed=5), make_clips([160], seed=6)[0]]
    files = [tmp_path / f"{number}.wav" for number in range(len(clips))]
    for path, clip in zip(files, clips, strict=True):
        soundfile.write(path, 0.2 * clip.numpy(), 16_000, subtype="FLOAT")
    command = [sys.executable, "-I", "-c", WITHOUT_TORCH, str(EXAMPLE), str(file), *map(str, files)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    expected = SpeechEmotionClassifier.from_pretrained(folder)(files)
    assert isinstance(expected, list)
    for line, prediction in zip(run.stdout.splitlines(), expected, strict=True):
        words = line.split()[1:]
        found = dict(zip(words[::2], map(float, words[1::2]), strict=True))
        assert found == pytest.approx(prediction.scores, abs=1e-4)


def test_the_example_is_short_and_needs_three_packages() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    code = text.split('"""', 2)[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    imported = {line.split()[1].split(".")[0] for line in code.splitlines() if line.startswith(("import", "from"))}
    assert imported == {"json", "sys", "pathlib", "numpy", "onnxruntime", "soundfile"}


def test_labels_and_settings_lie_beside_the_file_and_inside_it(exported: tuple[Path, Path, str]) -> None:
    folder, file, said = exported
    settings = json.loads(file.with_suffix(".json").read_text())
    assert settings["labels"] == list(EMOTIONS)
    assert settings["normalise"] == ("large" in str(folder))
    assert (settings["sampling_rate"], settings["shortest_samples"]) == (16_000, 400)
    inside = json.loads(onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map["gmp_atl"])
    assert inside["labels"] == settings["labels"]
    assert set(settings["largest_logit_differences"]) == {"shortest", "0.5 s", "3 s", "12 s", "padded batch"}
    assert "padded batch" in said and str(file) in said


def test_int8_says_what_it_costs_and_keeps_clips_apart(
    exported: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gmp_atl_hf.inference import onnx_export as export
    from gmp_atl_hf.inference.onnx_export import describe_export, export_onnx

    folder, exact, _ = exported
    monkeypatch.setattr(export, "_convert", lambda *_: exact.read_bytes())  # made once is enough
    model, file = load(folder), tmp_path / "small.onnx"
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    report = export_onnx(model, default_feature_extractor(model.config), file, int8=True)
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == (handlers, level)
    assert report.int8 is not None
    assert file.stat().st_size < exact.stat().st_size
    assert 0 < report.int8.largest_score_difference < 0.05
    assert "scores differ by up to" in describe_export(report)
    session = onnxruntime.InferenceSession(file)
    clips = make_clips((8_000, 48_000, 30_000), seed=5)
    together = session.run(["logits"], {name: values.numpy() for name, values in pad(clips).items()})[0]
    for clip, beside in zip(clips, together, strict=True):
        inputs = {"input_values": clip[None].numpy(), "attention_mask": np.ones((1, len(clip)), np.int64)}
        assert np.abs(session.run(["logits"], inputs)[0][0] - beside).max() < 1e-3


def test_a_file_that_scores_otherwise_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: tuple[Path, Path, str]
) -> None:
    from gmp_atl_hf.inference import onnx_export as export

    folder, exact, _ = exported
    other = exact.read_bytes()
    monkeypatch.setattr(export, "_convert", lambda *_: other)
    model = load(folder)
    with torch.no_grad():
        model.classifier.weight += 0.1
    with pytest.raises(RuntimeError, match="was not written: logits differ"):
        export.export_onnx(model, default_feature_extractor(model.config), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_json_that_is_no_export_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    assert main(["export", str(tmp_path), str(tmp_path / "config.onnx")]) == 2
    assert "config.json is there" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == '{"model_type": "hubert"}'


def test_an_earlier_export_may_be_replaced(exported: tuple[Path, Path, str]) -> None:
    folder, file, _ = exported
    assert main(["export", str(folder), str(file)]) == 0


@pytest.mark.parametrize(
    ("output", "expected"),
    [("model.bin", "ends in .onnx"), ("nowhere/model.onnx", "cannot be written")],
)
def test_a_wrong_place_is_refused_at_once(
    output: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), str(tmp_path / output)]) == 2
    assert expected in capsys.readouterr().err
    assert main(["export", str(tmp_path / "nothing"), str(tmp_path / "model.onnx")]) == 2
    assert "there is no folder" in capsys.readouterr().err
