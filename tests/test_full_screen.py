"""Every verb that works, with a screen that takes nothing: one sentence, status 1, and the work is not lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from gmp_atl_hf.cli.verbs import main
from runs import SPEAKER_PATTERN, SPLIT, given_split, run, write_corpus, write_recipe


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of two variants, and people whom its model was not trained on."""
    folder = tmp_path_factory.mktemp("full")
    root = write_corpus(folder / "corpus", split=SPLIT, takes=1)
    others = write_corpus(folder / "others", speakers=("f8", "m9"), takes=1, first=6)
    other = {"name": "other", "base": "direct", "set": {"model.emotion_loss": "cross-entropy"}}
    recipe = given_split(root, variants=["direct", other])
    recipe["stages"]["finetune"]["num_train_epochs"] = 1
    run(recipe, folder / "run")
    return {"run": folder / "run", "others": others, "recipe": write_recipe(folder / "recipe.yaml", recipe)}


def words_of(done: dict[str, Path]) -> dict[str, list[Any]]:
    run, others = done["run"], done["others"]
    speaker = f'speaker="{SPEAKER_PATTERN}"'.replace("\\", "\\\\")
    reader = ["--corpus", "folder", "--root", others, "--options", speaker]
    return {
        "run": [done["recipe"], "--output-dir", run],
        "prepare": ["folder", others, "--options", speaker],
        "evaluate": [run / "model", *reader],
        "compare": [run, ":other"],
        "predict": [run / "model", others, "--format", "csv"],
        "card": [run],
        "push": [run, "ana/tones", "--dry-run"],
    }


@pytest.mark.parametrize("verb", words_of({"run": Path(), "others": Path(), "recipe": Path()}))
def test_a_full_screen_is_a_failure_of_one_sentence(
    verb: str, done: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    words = [verb, *map(str, words_of(done)[verb])]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "__stdout__", full)
        status = main(words)
    said = capsys.readouterr().err
    assert status == 1, said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == ("gmp-atl: error: the output cannot be written: [Errno 28] No space left on device")
    monkeypatch.undo()
    assert main(words) == 0
