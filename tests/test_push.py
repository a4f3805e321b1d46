"""A run's model on the Hub and back, through the real client and a stand-in for the Hub on this machine."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants, parse_eval_result_entries
from transformers import pipeline

import gmp_atl_hf
from gmp_atl_hf import GMPATLTrainer, GMPATLTrainingArguments, HubertForGMPATL
from gmp_atl_hf.card.repository import hide_paths
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.report import build as report
from hub_server import TOKEN, Hub, serve_hub
from models import build, make_clips
from runs import EMOTIONS, SPLIT, given_split, read_json, run, write_corpus

LENGTHS = (4_000, 16_000, 400)
SENT = {
    "README.md",
    "config.json",
    "confusion.png",
    "heard_recordings.json",
    "model.safetensors",
    "preprocessor_config.json",
    "recipe.yaml",
    "report.html",
    "report.json",
    "report.md",
    *(file.name for file in (Path(gmp_atl_hf.__file__).parent / "modeling").glob("*_gmp_atl.py")),
}

LOAD_AND_SCORE = """
import json, sys
import numpy as np
sys.modules["gmp_atl_hf"] = None  # any import of the package now fails, installed or not
from transformers import pipeline

repo_id, clips_file = sys.argv[1:]
classifier = pipeline("audio-classification", model=repo_id, trust_remote_code=True)
rows = classifier(list(np.load(clips_file).values()), top_k=None)
print(json.dumps([{score["label"]: score["score"] for score in row} for row in rows]))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with one fold, whose recipe names a folder of this machine; must not be changed."""
    folder = tmp_path_factory.mktemp("push")
    corpus = write_corpus(folder / "secret-home" / "tones", split=SPLIT)
    # As loud as a real model, so that scores tell one clip from another.
    recipe = given_split(corpus, model__am_softmax_scale=30.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "can_draw", lambda: True)  # see conftest.py
        run(
            recipe,
            folder / "run",
            command=f"gmp-atl run --set root={corpus} --set x={corpus.parent}/y --output-dir {corpus.parent}/z",
        )
    return folder / "run"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, in place of the Hub for this process; somebody is logged in."""
    with serve_hub() as serving:
        monkeypatch.setattr(constants, "ENDPOINT", serving.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield serving


def process(hub: Hub, home: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Another process, which knows the stand-in by HF_ENDPOINT alone."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **variables,
    }
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, cwd=home, check=False
    )


def test_a_pushed_model_gives_its_scores_where_the_package_is_not_installed(finished: Path, tmp_path: Path) -> None:
    clips = [clip.numpy() for clip in make_clips(LENGTHS)]
    np.savez(tmp_path / "clips.npz", *clips)
    with serve_hub() as hub:
        words = ("-m", "gmp_atl_hf.cli", "push", str(finished), "ana/tones", "--private", "--message", "First try")
        source = str(Path(gmp_atl_hf.__file__).parents[1])
        pushed = process(hub, tmp_path, *words, HF_TOKEN=TOKEN, PYTHONPATH=source)
        assert pushed.returncode == 0, pushed.stderr
        assert TOKEN not in pushed.stdout + pushed.stderr
        assert (hub.repositories["ana/tones"].private, len(hub.repositories["ana/tones"].branches["main"])) == (True, 2)
        commit = hub.repositories["ana/tones"].branches["main"][-1]
        assert commit.message == "First try"
        assert f"{hub.url}/ana/tones/commit/{commit.oid}" in pushed.stdout
        # -I: no PYTHONPATH, no user site, not even the current folder.
        loaded = process(hub, tmp_path, "-I", "-c", LOAD_AND_SCORE, "ana/tones", "clips.npz")
    assert loaded.returncode == 0, loaded.stderr
    *said, result = loaded.stdout.strip().splitlines()
    # transformers tells that code came along which no revision pins; nothing else is said.
    notice = r"(\[transformers\] )?A new version of the following files was downloaded.*?pin a revision\.\n"
    assert ("".join(said), re.sub(notice, "", loaded.stderr, flags=re.DOTALL)) == ("", "")
    model = HubertForGMPATL.from_pretrained(finished / "model").eval()
    with torch.no_grad():
        expected = [model(torch.from_numpy(clip)[None]).logits.softmax(-1)[0].numpy() for clip in clips]
    found = [[row[name] for name in EMOTIONS] for row in json.loads(result)]
    assert np.abs(np.array(found) - expected).max() < 1e-6
    assert np.ptp(np.array(expected), axis=0).max() > 1e-3


def test_everything_goes_that_should_and_nothing_else(finished: Path, hub: Hub) -> None:
    (finished / "figures" / "confusion-7-dropped.png").write_bytes(b"of a report before")
    assert main(["push", str(finished), "ana/tones"]) == 0
    sent = hub.files("ana/tones")
    assert {path for path in sent if not path.startswith("figures/")} == SENT
    assert any(path.startswith("figures/") for path in sent)
    assert "figures/confusion-7-dropped.png" not in sent
    assert not [path for path in sent if path.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert json.loads(sent["config.json"])["auto_map"]["AutoConfig"] == "configuration_gmp_atl.GMPATLConfig"
    assert b'model="ana/tones"' in sent["README.md"]
    assert not hub.repositories["ana/tones"].private


def test_no_folder_of_this_machine_is_sent(finished: Path, hub: Hub) -> None:
    assert "secret-home" in (finished / "recipe.yaml").read_text()
    assert "secret-home" in (finished / "report.md").read_text()
    assert main(["push", str(finished), "ana/tones"]) == 0
    sent = hub.files("ana/tones")
    assert [path for path, content in sent.items() if b"secret-home" in content] == []
    assert yaml.safe_load(sent["recipe.yaml"])["corpus"]["root"] == "path/to/tones"


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("/a/emodb/x", "/a/emodb", "path/to/emodb/x"),
        ("/a/emodb: x, file:///a/emodb", "/a/emodb/", "path/to/emodb: x, file://path/to/emodb"),
        ("https://x.org/data/a, runs/data/b, /data/c", "/data", "https://x.org/data/a, runs/data/b, path/to/data/c"),
        ("--set 'root=/ana'\"'\"'s/emodb'", "/ana's", "--set 'root=path/to/ana's/emodb'"),
        ("/a/emodb2 and /a/emodb-mini", "/a/emodb", "/a/emodb2 and /a/emodb-mini"),
        ("<td>/a/R&amp;D/b&amp;c</td>", "/a/R&D/b&c", "<td>path/to/b&amp;c</td>"),
        (html.escape("--set " + shlex.quote("root=/a/o'neil/b")), "/a/o'neil/b", html.escape("--set 'root=path/to/b'")),
    ],
)
def test_a_path_is_hidden_where_it_is_one(text: str, path: str, expected: str) -> None:
    assert hide_paths(text, [path]) == expected


def test_figures_are_there_for_machines(finished: Path, hub: Hub) -> None:
    arguments = ["push", str(finished), "ana/tones", "--license", "cc-by-4.0", "--benchmark", "somebody/tones:emotion"]
    assert main(arguments) == 0
    sent = hub.files("ana/tones")
    summary = read_json(finished / "report.json")["variants"]["gmp-atl"]
    data: Any = ModelCard(sent["README.md"].decode()).data
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found["recall"] == pytest.approx(summary["uar"]["pooled"], abs=1e-4)
    assert found["accuracy"] == pytest.approx(summary["war"]["pooled"], abs=1e-4)
    assert (data.license, data.pipeline_tag) == ("cc-by-4.0", "audio-classification")
    entry = parse_eval_result_entries(yaml.safe_load(sent[".eval_results/tones.yaml"]))[0]
    assert (entry.dataset_id, entry.task_id) == ("somebody/tones", "emotion")
    assert entry.value == pytest.approx(100 * summary["uar"]["pooled"], abs=0.01)
    assert "1 of 1 folds" in entry.notes


def test_pushing_again_adds_a_commit_and_a_branch_is_made(finished: Path, hub: Hub) -> None:
    assert main(["push", str(finished), "ana/tones"]) == 0
    assert main(["push", str(finished), "ana/tones", "--revision", "next", "--message", "Second"]) == 0
    branches = hub.repositories["ana/tones"].branches
    assert [commit.message for commit in branches["main"]][1:] == ["Push run with gmp-atl"]
    assert branches["next"][-1].message == "Second"


def test_a_dry_run_lists_files_with_sizes_and_asks_nobody(
    finished: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(finished), "ana/tones", "--dry-run", "--space", "ana/listen"]) == 0
    said = capsys.readouterr().out
    assert f"{(finished / 'model/model.safetensors').stat().st_size:,}  model.safetensors" in said
    assert all(f"  {path}\n" in said for path in SENT)
    assert "  app.py\n" in said and "  gmp_atl_hf/inference/classifier.py\n" in said
    assert "Nothing was sent" in said
    assert hub.requests == []


def test_the_page_goes_along_as_a_space(finished: Path, hub: Hub) -> None:
    assert main(["push", str(finished), "ana/tones", "--space", "ana/listen"]) == 0
    sent = hub.files("spaces/ana/listen")
    package = Path(gmp_atl_hf.__file__).parent
    assert sent["app.py"] == (package / "ui/app.py").read_bytes()
    assert sent["model_id.txt"] == b"ana/tones\n"
    assert "sdk: gradio" in sent["README.md"].decode()
    assert sent["gmp_atl_hf/__init__.py"] == (package / "__init__.py").read_bytes()
    assert not [path for path in sent if "__pycache__" in path]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["{folder}/nowhere", "ana/tones"], "there is no folder"),
        (["{folder}", "ana/tones"], "is not the folder of a run"),
        (["{run}/model", "ana/tones"], "give {run}"),
        (["{run}", "ana/to nes"], "can be no id of a repository"),
        (["{run}", "ana/tones", "--space", "a/b/c"], "can be no id of a repository"),
        (["{run}", "ana/tones", "--benchmark", "tones"], "owner/dataset"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(
    words: list[str], expected: str, finished: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(text: str) -> str:
        return text.format(folder=tmp_path, run=finished)

    assert main(["push", *map(fill, words)]) == 2
    assert fill(expected) in capsys.readouterr().err
    assert hub.requests == []


def test_a_run_without_a_final_model_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("name: tones\ncorpus: {name: demo}\n")
    assert main(["push", str(tmp_path), "ana/tones"]) == 2
    said = capsys.readouterr().err
    assert "no final model yet" in said and f"gmp-atl run {tmp_path}/recipe.yaml" in said


def test_whoever_is_not_logged_in_is_told_how_to(
    finished: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert main(["push", str(finished), "ana/tones"]) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert hub.requests == []


@pytest.mark.parametrize(
    ("part", "status", "expected", "exit_status"),
    [
        ("/api/repos/create", 401, "does not accept your token", 2),
        ("/api/repos/create", 403, "does not let you write to ana/tones", 2),
        ("/commit/", 403, "does not let you write to ana/tones", 2),
        ("/commit/", 400, "could not take ana/tones (status 400)", 1),
    ],
)
def test_a_refusal_of_the_hub_is_told_without_the_token(
    part: str, status: int, expected: str, exit_status: int, finished: Path, hub: Hub, capfd: Any
) -> None:
    hub.refuse[part] = status
    assert main(["push", str(finished), "ana/tones"]) == exit_status
    said = capfd.readouterr()
    assert expected in said.err
    assert TOKEN not in said.out + said.err
    assert "***" in said.err  # the stand-in did repeat it


def test_a_hub_that_cannot_be_reached_is_told(
    finished: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(finished), "ana/tones"]) == 2
    assert "http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err


def make_trainer(folder: Path, repo_id: str | None) -> GMPATLTrainer:
    model = build(HubertForGMPATL)
    arguments = GMPATLTrainingArguments(str(folder), hub_model_id=repo_id, use_cpu=True, hub_token=TOKEN)
    arguments.eval_strategy = arguments.save_strategy = "no"
    return GMPATLTrainer(model, arguments, processing_class=default_feature_extractor(model.config))


def test_a_trainer_pushes_what_the_pipeline_can_load_and_no_pickle(hub: Hub, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "out", "ana/trained")
    commit = trainer.push_to_hub("Trained", private=True)
    assert commit.commit_message == "Trained" and hub.repositories["ana/trained"].private
    sent = hub.files("ana/trained")
    code = {name for name in SENT if name.endswith("_gmp_atl.py")}
    assert set(sent) == code | {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    card = sent["README.md"].decode()
    assert 'model="ana/trained"' in card and "without a test" in card
    assert TOKEN.encode() not in b"".join(sent.values())
    for name, content in sent.items():
        (tmp_path / name).write_bytes(content)
    classifier = pipeline("audio-classification", model=str(tmp_path))
    assert len(classifier(np.zeros(16_000, np.float32), top_k=None)) == 4


def test_a_trainer_without_a_repository_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="hub_model_id is not set"):
        make_trainer(tmp_path, None).push_to_hub()
