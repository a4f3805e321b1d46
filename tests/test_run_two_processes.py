"""A run under `accelerate launch` with two processes is the run of one process with the same clips in each update."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import gmp_atl_hf
from foreign import make_foreign
from gmp_atl_hf.run_folder.lock import only_run_in
from gmp_atl_hf.stress.stress import stress_model
from pretrainings import pretrain, pretrain_dict, write_speech
from runs import (
    EMOTIONS,
    SPEAKER_PATTERN,
    SPLIT,
    files_of,
    given_split,
    read_json,
    read_lines,
    run,
    write_corpus,
    write_recipe,
)
from teachers import make_teacher

SOURCE = Path(gmp_atl_hf.__file__).parents[1]
DROPOUTS = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout")
FOLD = "gmp-atl/seed-0/fold-01"


def launch(*words: str, told: bool = True) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `gmp-atl` in two processes, told to use the processor or not."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": str(told).lower(),
    }
    # Port 0: any free one.
    options = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "gmp_atl_hf.cli", *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, complained = process.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher then ends its processes, which killing it would not
        process.wait(30)
        raise
    return process.returncode, said, complained


@pytest.mark.slow
@pytest.mark.two_processes
def test_two_processes_run_as_one_does(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    recipe = given_split(
        root,
        variants=["gmp-atl", "multitask-only"],
        backbone__layerdrop=0.0,
        **{f"backbone__{name}": 0.0 for name in DROPOUTS},
        **{f"stages__{stage}__num_train_epochs": 1 for stage in ("multitask", "retrain", "finetune")},
        **{f"stages__{stage}__learning_rate": 1e-4 for stage in ("multitask", "retrain", "finetune")},
    )
    run(recipe, tmp_path / "one")
    for stage in recipe["stages"].values():
        stage["per_device_train_batch_size"] = 3
    file = write_recipe(tmp_path / "two.yaml", recipe)
    status, said, complained = launch("run", str(file), "--output-dir", str(tmp_path / "two"))
    assert status == 0, complained[-4_000:]
    assert said.count("Report:") == 1, "every process speaks"

    one, two = tmp_path / "one", tmp_path / "two"
    # Runs of tests leave pictures out, those in processes of their own do not.
    assert {name for name in files_of(two) if not name.startswith("figures/")} == files_of(one)
    assert read_json(two / "multitask-only/seed-0/fold-01/1-multitask/step.json")["same_as"]
    for step in ("1-multitask", "3-retrain", "4-finetune"):
        note = read_json(two / FOLD / step / "step.json")
        assert note["manner"] == {"processes": 2}, "only one process was started"
        trained, expected = (read_json(folder / FOLD / step / "training.json") for folder in (two, one))
        assert trained["updates"] == expected["updates"] == 3
        assert trained["best_step"] == expected["best_step"]
        weights, reference = (load_file(folder / FOLD / step / "model.safetensors") for folder in (two, one))
        for name, value in reference.items():
            torch.testing.assert_close(weights[name], value, atol=1e-4, rtol=0, msg=lambda text, n=name: f"{n}: {text}")
    labels = [pq.read_table(folder / FOLD / "2-pseudo-labels/labels.parquet").to_pylist() for folder in (two, one)]
    assert labels[0] == labels[1]
    predicted, expected = (read_lines(folder / FOLD / "predictions.jsonl") for folder in (two, one))
    for row, other in zip(predicted, expected, strict=True):
        assert {**row, "scores": None} == {**other, "scores": None}
        np.testing.assert_allclose(list(row["scores"].values()), list(other["scores"].values()), atol=1e-3)
    for variant, summary in read_json(one / "report.json")["variants"].items():
        assert read_json(two / "report.json")["variants"][variant]["uar"] == summary["uar"]


@pytest.mark.two_processes
def test_two_processes_complain_once(tmp_path: Path) -> None:
    recipe = given_split(write_corpus(tmp_path / "corpus", split=SPLIT), pseudo_labels__clusters=[9_000])
    file = write_recipe(tmp_path / "recipe.yaml", recipe)
    status, _, complained = launch("run", str(file), "--output-dir", str(tmp_path / "run"))
    assert status != 0
    assert complained.count("gmp-atl: error: ") == 1
    assert "9000 clusters" in complained
    assert not (tmp_path / "run").exists()


@pytest.mark.two_processes
@pytest.mark.parametrize("told", [True, False])
def test_two_processes_are_refused_a_folder_in_which_another_run_works(tmp_path: Path, told: bool) -> None:
    file = write_recipe(tmp_path / "recipe.yaml", given_split(write_corpus(tmp_path / "corpus", split=SPLIT)))
    (tmp_path / "run").mkdir()
    with only_run_in(tmp_path / "run", SimpleNamespace(is_main_process=True, num_processes=1)):
        status, _, complained = launch("run", str(file), "--output-dir", str(tmp_path / "run"), told=told)
    assert status != 0
    assert complained.count("another run is working in") == 1, complained[-4_000:]
    assert "exitcode: 2" in complained or "exitcode  : 2" in complained
    assert 'Traceback (most recent call last):\n  File "/' not in complained.split("another run is working in")[0]
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
@pytest.mark.two_processes
def test_two_processes_learn_of_a_teacher_as_one_does(tmp_path: Path) -> None:
    recipe = pretrain_dict(
        write_speech(tmp_path / "speech"),
        backbone__do_stable_layer_norm=True,
        model={"mask_time_prob": 0.0, "frame_targets": "all", **dict.fromkeys(DROPOUTS, 0.0), "layerdrop": 0.0},
        arguments={"use_cpu": True, "per_device_train_batch_size": 6, "learning_rate": 1e-4},
        iterations=[
            {
                "features": "teacher",
                "teacher": str(make_teacher("whisper", tmp_path / "teacher")),
                "layers": [2],
                "objective": "regression",
                "start": "teacher",
                "num_train_epochs": 1,
            }
        ],
        precision="float32",
    )
    pretrain(recipe, tmp_path / "one")
    recipe["arguments"]["per_device_train_batch_size"] = 3
    words = ["pretrain", str(write_recipe(tmp_path / "two.yaml", recipe)), "--output-dir", str(tmp_path / "two")]
    status, _, complained = launch(*words)
    assert status == 0, complained
    ours, theirs = (load_file(tmp_path / name / "model/model.safetensors") for name in ("two", "one"))
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, rtol=1e-4, atol=1e-5, msg=key)
    said = [{file.name for file in (tmp_path / name / "_teacher-states").rglob("*.npy")} for name in ("two", "one")]
    assert said[0] == said[1]


@pytest.mark.slow
@pytest.mark.two_processes
def test_two_processes_test_and_stress_a_model_as_one_does(tmp_path: Path) -> None:
    corpus = {"name": "folder", "root": str(write_corpus(tmp_path / "corpus")), "speaker": SPEAKER_PATTERN}
    model = make_foreign("hubert", tmp_path / "someones", EMOTIONS)
    alone = stress_model(model, corpus, conditions=["white-0", "silence"])
    words = [str(model), "--corpus", "folder", "--root", corpus["root"], "--json"]
    words += ["--options", f"speaker={SPEAKER_PATTERN}"]
    status, said, complained = launch("stress", *words, "--conditions", "white-0,silence", told=False)
    assert status == 0, complained
    for ours, expected in zip(json.loads(said)["conditions"], alone["conditions"], strict=True):
        # Clips come in other batches, which may change the last digits of a score.
        assert ours.pop("score_change") == pytest.approx(expected.pop("score_change"), rel=1e-5)
        assert ours == expected
    status, said, complained = launch("evaluate", *words, told=False)
    assert status == 0, complained
    assert json.loads(said)["variants"]["model"]["uar"]["pooled"] == alone["conditions"][0]["uar"], "said once"
