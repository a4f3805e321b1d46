"""A run is not written into a folder that belongs to something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gmp_atl_hf import Recipe, run_recipe
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.pretraining.recipe import PretrainRecipe
from gmp_atl_hf.pretraining.run import run_pretraining

RUN = {"name": "r", "corpus": {"name": "folder", "root": "recordings"}, "backbone": "mini"}
PRETRAINING = {**RUN, "name": "p", "iterations": [{"features": "mfcc", "clusters": [5]}]}


def run(folder: Path) -> None:
    run_recipe(Recipe.from_dict(RUN), folder)


def pretrain(folder: Path) -> None:
    run_pretraining(PretrainRecipe.from_dict(PRETRAINING), folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("start", [run, pretrain])
@pytest.mark.parametrize(
    ("file", "text", "belongs"),
    [
        ("config.json", "{}", "is the folder of a model"),
        ("adapter_config.json", "{}", "is the folder of a model"),
        ("model/seed-0/fold-01/metrics.json", "{}", "holds the test of a model"),
    ],
)
def test_the_folder_of_a_model_or_of_a_test_is_refused(
    tmp_path: Path, start: Callable[[Path], None], file: str, text: str, belongs: str
) -> None:
    place = tmp_path / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    before = contents(tmp_path)
    with pytest.raises(RequestError, match=belongs) as refused:
        start(tmp_path)
    assert refused.value.fix == "choose another --output-dir"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("start", [run, pretrain])
def test_the_folder_of_the_corpus_is_refused_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[[Path], None]
) -> None:
    (tmp_path / "recordings" / "anger").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="is the folder of the corpus"):
        start(tmp_path / "recordings" / "anger" / "..")
    assert [file.name for file in (tmp_path / "recordings").iterdir()] == ["anger"]


@pytest.mark.parametrize(
    ("start", "other", "belongs"),
    [
        (run, PretrainRecipe.from_dict(PRETRAINING), "is the folder of a pre-training"),
        (pretrain, Recipe.from_dict(RUN), "is the folder of a run"),
    ],
)
def test_a_run_and_a_pre_training_do_not_write_over_each_other(
    tmp_path: Path, start: Callable[[Path], None], other: Recipe | PretrainRecipe, belongs: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(other.to_yaml())
    with pytest.raises(RequestError, match=belongs):
        start(tmp_path)
    assert (tmp_path / "recipe.yaml").read_text() == other.to_yaml()


def test_the_folder_of_a_run_of_the_same_kind_is_taken(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(Recipe.from_dict(RUN).to_yaml())
    with pytest.raises(RequestError, match="recordings"):  # the next thing that is wrong: there is no such corpus
        run(tmp_path)
