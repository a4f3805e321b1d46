"""The recipes and accelerate configurations that come with the package."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from audio_files import tone, write_audio
from corpus_trees import read_corpus
from gmp_atl_hf.data.corpora import MODULES, corpus_reader
from gmp_atl_hf.data.corpora import from_file as outside
from gmp_atl_hf.data.corpora.base import REGISTERED
from gmp_atl_hf.recipe.recipe import ProtocolSpec, Recipe

FOLDER = Path(__file__).parent.parent / "recipes"
NOT_RUNS = {"pretrain-mini", "pretrain-mini-mfcc", "pretrain-small"}
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in NOT_RUNS)
WITHOUT_ONE = {"csv", "folder", "hub", "ravdess-song", "esd", "esd-zh"}


def plain(name: str) -> dict[str, object]:
    read: dict[str, object] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return read


def test_every_corpus_has_a_recipe() -> None:
    assert {*MODULES} - WITHOUT_ONE <= {*RECIPES}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_fits_its_corpus(name: str) -> None:
    protocol = plain(name).get("protocol")
    known = {field.name for field in fields(ProtocolSpec)}
    if isinstance(protocol, dict) and not {*protocol} <= known:
        pytest.skip(f"this version has no {', '.join({*protocol} - known)}")
    recipe = Recipe.from_yaml(FOLDER / f"{name}.yaml")
    assert recipe.name == name
    assert recipe.data.max_seconds
    [corpus] = recipe.corpus
    info = corpus_reader(corpus.name).info
    if info.expected:
        assert recipe.labels is not None
        assert {*recipe.labels} == {*info.expected}
    if info.protocol == "leave-one-session-out" or info.name in ("tess", "savee", "meld"):
        assert recipe.protocol.kind == info.protocol
    recipe.check_field_names()


def test_the_page_of_recipes_names_every_recipe_and_every_file_it_names_is_there() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    linked = {target for target in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in target}
    assert {f"{name}.yaml" for name in RECIPES if name in MODULES} <= linked
    assert [name for name in RECIPES if name not in page] == []
    assert [target for target in linked if not (FOLDER / target).exists()] == []


def test_the_example_of_a_corpus_on_the_page_of_recipes_works(tmp_path: Path) -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    [example] = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "register_corpus" in code]
    assert len(example.splitlines()) < 60
    (tmp_path / "mine.py").write_text(example, encoding="utf-8")
    for seed, name in enumerate(("f03_happy_12", "m04_angry_1", "m04_sleepy_1", "notes")):
        write_audio(tmp_path / "data" / f"{name}.wav", tone(1_000, seed=seed))
    try:
        corpus = read_corpus(str(tmp_path / "mine.py"), tmp_path / "data")
    finally:
        REGISTERED.pop("mine", None)
        outside._LOADED.clear()
    assert corpus.table["id"][:] == ["mine/f03_happy_12", "mine/m04_angry_1"]
    assert corpus.table["speaker"][:] == ["mine/f03", "mine/m04"]
    assert [one.file for one in corpus.left_out] == ["mine/m04_sleepy_1.wav", "mine/notes.wav"]
    assert "mine has 2 speakers instead of 12" in corpus.problems


@pytest.mark.parametrize("path", sorted((FOLDER / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_accelerate_configuration_is_one_that_accelerate_reads(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines
    # Precision is a training argument of the recipe, so that it is part of a step's key.
    assert config.mixed_precision == "no"
