"""A run keeps one front-end cache for all its steps; it is part of a step's key, and of nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run.plan import plan_run
from recipes import at, refused
from runs import SPLIT, digests, files_of, given_split, read_json, read_lines, results, run, write_corpus

STEPS = ("1-multitask", "2-pseudo-labels", "3-retrain", "4-finetune")
FROZEN = {
    **{f"stages__{stage}__freeze_feature_encoder": True for stage in ("multitask", "retrain", "finetune")},
    **{f"stages__{stage}__num_train_epochs": 1 for stage in ("multitask", "retrain", "finetune")},
}
FOLD = "gmp-atl/seed-0/fold-01"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), split=SPLIT)


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the whole method with its front end frozen throughout; the flag is not mentioned."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(given_split(corpus, variants=["gmp-atl", "direct"], **FROZEN), folder)
    return folder


def inputs(recipe: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    planned = plan_run(Recipe.from_dict(recipe), folder).planned[0]
    return {step.folder.path.name: dict(step.folder.inputs) for step in planned.steps}


def keys(recipe: dict[str, Any], folder: Path) -> dict[str, str]:
    planned = plan_run(Recipe.from_dict(recipe), folder).planned[0]
    return {step.folder.path.name: step.folder.key for step in planned.steps}


def test_one_cache_serves_all_steps_and_variants_and_the_test(corpus: Path, finished: Path) -> None:
    recordings = {file for file in files_of(corpus) if file.endswith(".wav")}
    cached = files_of(finished / "front-end")
    assert len(cached) == len(recordings)
    assert len({file.split("/")[0] for file in cached}) == 1, "one front end"
    for step in STEPS:
        assert read_json(finished / FOLD / step / "step.json")["inputs"]["front_end"] == "float16"


def test_a_cache_that_was_deleted_costs_time_and_nothing_else(
    corpus: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = results(folder)
    shutil.rmtree(folder / "front-end")
    recipe = given_split(corpus, variants=["gmp-atl", "direct"], **FROZEN)
    run(recipe, folder)
    assert "nothing was left to do" in capsys.readouterr().out
    # A step that is made again comes out the same.
    shutil.rmtree(folder / FOLD / "4-finetune")
    (folder / FOLD / "metrics.json").unlink()
    run(recipe, folder)
    assert results(folder) == before


def test_without_the_cache_the_run_is_another_one_with_nearly_the_same_first_stage(
    corpus: Path, finished: Path, tmp_path: Path
) -> None:
    recipe = given_split(corpus, variants=["gmp-atl"], data__front_end_cache=False, **FROZEN)
    run(recipe, tmp_path / "off")
    assert not (tmp_path / "off" / "front-end").exists()
    # Later stages start from cluster numbers, which either stay or jump.
    stage = f"{FOLD}/1-multitask/dev_logits.jsonl"
    scored, expected = (read_lines(folder / stage) for folder in (tmp_path / "off", finished))
    for row, other in zip(scored, expected, strict=True):
        assert row["logits"] != other["logits"]
        np.testing.assert_allclose(row["logits"], other["logits"], atol=0.01)
    with pytest.raises(RequestError, match="front_end"):
        run(recipe, finished)


def test_runs_may_share_a_folder_and_its_place_is_in_no_key(corpus: Path, finished: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shutil.copytree(finished / "front-end", shared)
    before = digests(shared)
    recipe = given_split(corpus, variants=["direct"], data__front_end_cache=str(shared), final=False, **FROZEN)
    run(recipe, tmp_path / "run")
    assert digests(shared) == before
    assert not (tmp_path / "run" / "front-end").exists()
    expected = {name: digest for name, digest in results(finished).items() if name.startswith("direct/")}
    assert {
        name: digest for name, digest in results(tmp_path / "run").items() if name.startswith("direct/")
    } == expected


def test_only_steps_whose_front_end_is_the_backbones_use_the_cache(corpus: Path, tmp_path: Path) -> None:
    def cached(**changes: Any) -> set[str]:
        recipe = given_split(corpus, **{**FROZEN, **changes})
        return {name for name, found in inputs(recipe, tmp_path).items() if "front_end" in found}

    assert cached() == set(STEPS)
    assert cached(stages__multitask__freeze_feature_encoder=False) == {"3-retrain", "4-finetune"}
    assert cached(stages__retrain__freeze_feature_encoder=False) == {"1-multitask", "2-pseudo-labels"}
    assert cached(stages__finetune__freeze_feature_encoder=False) == set(STEPS) - {"4-finetune"}
    assert cached(stages__multitask__freeze_feature_encoder=False, stages__multitask__freeze_encoder=True) == set(
        STEPS
    ), "an encoder that is frozen as a whole"
    assert cached(data__front_end_cache=False) == set()


def test_the_flag_changes_the_key_of_every_step_that_uses_the_cache_and_of_no_other(
    corpus: Path, tmp_path: Path
) -> None:
    frozen = given_split(corpus, **FROZEN)
    on, off = (
        keys({**frozen, "data": {**frozen["data"], "front_end_cache": flag}}, tmp_path) for flag in (True, False)
    )
    assert {step for step in on if on[step] != off[step]} == set(STEPS)
    trained = given_split(corpus)
    on, off = (
        keys({**trained, "data": {**trained["data"], "front_end_cache": flag}}, tmp_path) for flag in (True, False)
    )
    assert on == off


@pytest.mark.parametrize("value", ["false", "", "Off"])
def test_a_quoted_flag_is_not_taken_for_a_folder(value: str) -> None:
    error = refused(at("data.front_end_cache", value))
    assert "data.front_end_cache" in error.found
    assert "without quotes" in str(error.fix)


def test_the_flag_survives_being_written_down() -> None:
    for value in (True, False, "/another/disk"):
        recipe = Recipe.from_dict(at("data.front_end_cache", value))
        assert recipe.data.front_end_cache == value
        assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert "data.front_end_cache" in refused(at("data.front_end_cache", 3)).found


def test_no_variant_may_be_called_as_the_cache_is() -> None:
    assert (
        "front-end" in refused({**at("name", "mine"), "variants": [{"name": "front-end", "set": {"seeds": [1]}}]}).found
    )
