"""The model folder in fresh processes: with the package, and without it by `trust_remote_code`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor, pipeline

import gmp_atl_hf
from gmp_atl_hf import HubertForGMPATL
from models import EMOTIONS, build, make_clips

LENGTHS = (4_000, 16_000, 9_123, 400)

LOAD_AND_SCORE = """
import json, sys
import numpy as np
folder, clips_file, trusted = sys.argv[1], sys.argv[2], sys.argv[3] == "trusted"
if trusted:
    sys.modules["gmp_atl_hf"] = None  # any import of the package now fails, installed or not
else:
    import gmp_atl_hf
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline

more = {"trust_remote_code": True} if trusted else {}
clips = list(np.load(clips_file).values())
model = AutoModelForAudioClassification.from_pretrained(folder, **more).eval()
extractor = AutoFeatureExtractor.from_pretrained(folder)
encoder = AutoModel.from_pretrained(folder, **more)
assert type(encoder).__name__ == "GMPATLModel"
assert type(encoder).__module__.split(".")[0] == type(model).__module__.split(".")[0]
found = {"class": type(model).__name__, "module": type(model).__module__, "auto": [], "pipeline": {}}
with torch.no_grad():
    for clip in clips:
        inputs = extractor(clip, sampling_rate=16000, return_tensors="pt")
        found["auto"].append(model(**inputs).logits.softmax(-1)[0].tolist())
classifier = pipeline("audio-classification", model=folder, **more)
for size in (1, 2):
    rows = [{s["label"]: s["score"] for s in row} for row in classifier(clips, batch_size=size)]
    found["pipeline"][size] = [[row[name] for name in model.config.label2id] for row in rows]
clips[1][7] = np.nan
try:
    classifier(clips[1])
except ValueError as error:
    found["refused"] = str(error)
found["package"] = sys.modules.get("gmp_atl_hf") is not None
print(json.dumps(found))
"""


def save(folder: Path, shape: str) -> HubertForGMPATL:
    normalised = {"standardize": True, "speaker_normalization": "speaker"} if shape == "large" else {}
    model = build(HubertForGMPATL, shape, pooling="attention", logit_temperature=3.0, **normalised)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=shape == "large").save_pretrained(folder)
    return model


def score_in_a_fresh_process(folder: Path, how: str) -> tuple[dict[str, Any], str]:
    """What `LOAD_AND_SCORE` finds, and all that it says besides."""
    clips = folder.parent / "clips.npz"
    np.savez(clips, *(clip.numpy() for clip in make_clips(LENGTHS)))
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")},
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder.parent / "huggingface"),
        # transformers draws a bar "Loading weights" on stderr for every model; nothing else may appear there.
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if how == "package":
        environment["PYTHONPATH"] = str(Path(gmp_atl_hf.__file__).parents[1])
    command = [sys.executable, "-c", LOAD_AND_SCORE, str(folder), str(clips), "trusted" if how == "remote" else "-"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    *said, result = run.stdout.strip().splitlines()
    return json.loads(result), "".join(said) + run.stderr


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[float]]]:
    """A saved model and the scores it should give, from the waveforms one by one."""
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    model = save(folder, "base")
    with torch.no_grad():
        return folder, [model(clip[None]).logits.softmax(-1)[0].tolist() for clip in make_clips(LENGTHS)]


@pytest.mark.parametrize("how", ["package", "remote"])
def test_a_saved_model_gives_its_scores_in_a_fresh_process_without_a_word(
    how: str, expected: tuple[Path, list[list[float]]]
) -> None:
    folder, scores = expected
    found, said = score_in_a_fresh_process(folder, how)
    assert said == ""
    assert found["class"] == "HubertForGMPATL"
    assert found["package"] == (how == "package")
    assert found["module"].startswith("gmp_atl_hf." if how == "package" else "transformers_modules.")
    assert "row 0 of input_values" in found["refused"]
    assert "NaN or infinity" in found["refused"]
    assert np.abs(np.array(found["auto"]) - scores).max() < 1e-6
    assert np.abs(np.array(found["pipeline"]["1"]) - scores).max() < 1e-6
    assert np.abs(np.array(found["pipeline"]["2"]) - scores).max() < 1e-5
    spread = np.ptp(np.array(scores), axis=0)
    assert spread.max() > 0.05  # the clips do differ, and so would a model with other weights


@pytest.mark.parametrize("shape", ["base", "large"])
def test_the_pipeline_gives_the_same_at_any_batch_size(shape: str, tmp_path: Path) -> None:
    save(tmp_path, shape)
    classifier = pipeline("audio-classification", model=str(tmp_path))
    clips = [clip.numpy() for clip in make_clips(LENGTHS)]
    one_by_one, in_pairs = (classifier(clips, batch_size=size) for size in (1, 2))
    for alone, beside in zip(one_by_one, in_pairs, strict=True):
        assert {row["label"] for row in alone} == set(EMOTIONS)
        wanted = {row["label"]: row["score"] for row in alone}
        assert all(abs(wanted[row["label"]] - row["score"]) < 1e-5 for row in beside)


def test_a_model_folder_holds_all_the_code_it_needs_and_no_pickle(expected: tuple[Path, list[list[float]]]) -> None:
    folder, _ = expected
    names = {path.name for path in folder.iterdir()}
    code = {path.name for path in (Path(gmp_atl_hf.__file__).parent / "modeling").glob("*_gmp_atl.py")}
    assert names == code | {"config.json", "model.safetensors", "preprocessor_config.json"}
    written = json.loads((folder / "config.json").read_text())
    assert written["auto_map"] == {
        "AutoConfig": "configuration_gmp_atl.GMPATLConfig",
        "AutoModel": "encoding_gmp_atl.GMPATLModel",
        "AutoModelForAudioClassification": "modeling_gmp_atl.HubertForGMPATL",
    }
