"""The recipes and accelerate configurations that come with the package."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from datasets import Audio, Dataset, DatasetDict, Features, Value

from audio_files import encoded
from gmp_atl_hf.data.corpora import MODULES, corpus_reader
from gmp_atl_hf.data.table import read_corpora
from gmp_atl_hf.protocols.settings import ProtocolSettings
from gmp_atl_hf.recipe.recipe import Recipe

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
    known = {field.metadata.get("key", field.name) for field in fields(ProtocolSettings)}
    if isinstance(protocol, dict) and not {*protocol} <= known:
        pytest.skip(f"this version has no {', '.join({*protocol} - known)}")
    recipe = Recipe.from_yaml(FOLDER / f"{name}.yaml")
    assert recipe.name == name
    assert recipe.data.max_seconds
    [info] = {corpus.name: corpus_reader(corpus.name).info for corpus in recipe.corpus}.values()
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
    assert [name for name in RECIPES if name not in page and name != "ablation"] == []
    assert [target for target in linked if not (FOLDER / target).exists()] == []


@pytest.mark.parametrize("path", sorted((FOLDER / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_accelerate_configuration_is_one_that_accelerate_reads(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines
    # Precision is a training argument of the recipe, so that it is part of a step's key.
    assert config.mixed_precision == "no"


CAMEO = ("cafe", "crema_d", "emns", "emozionalmente", "enterface", "jl_corpus", "mesd", "nemo", "oreau", "pavoque")
CAMEO += ("ravdess", "resd", "subesco")
CAMEO_COLUMNS = ("file_id", "audio", "emotion", "transcription", "speaker_id", "gender", "age", "dataset", "language")


def cameo(folder: Path) -> Path:
    """What the Hub has under the name of CAMEO, with a few clips: its splits, its columns, and two without speakers."""
    features = Features({name: Audio() if name == "audio" else Value("string") for name in CAMEO_COLUMNS})
    words = ["anger", "calm", "happiness"]
    words += ["anxiety", "apology", "assertiveness", "concern", "encouragement", "excitement", "poker", "sarcasm"]
    words += ["disgust", "fear", "neutral", "sadness", "surprise"]
    parts = {}
    for split in CAMEO:
        rows: dict[str, Any] = dict.fromkeys(CAMEO_COLUMNS, [""] * len(words))
        rows["file_id"] = [f"{split}-{number}.flac" for number in range(len(words))]
        rows["audio"] = [{"bytes": encoded(500 + number), "path": None} for number in range(len(words))]
        rows["emotion"] = words
        rows["speaker_id"] = [None if split in ("mesd", "resd") else str(number % 2) for number in range(len(words))]
        rows["gender"] = [
            "child" if split == "mesd" else ("female", "male")[number % 2] for number in range(len(words))
        ]
        parts[split] = Dataset(pa.Table.from_pydict(rows, schema=features.arrow_schema))
    DatasetDict(parts).save_to_disk(str(folder))
    return folder


def test_cameo_is_read_with_people_of_one_number_told_apart(tmp_path: Path) -> None:
    recipe = Recipe.from_yaml(FOLDER / "cameo.yaml")
    place = str(cameo(tmp_path / "cameo"))
    entries = [{"name": corpus.name, **corpus.options, "path": place} for corpus in recipe.corpus]
    assert {*CAMEO} - {str(entry["split"]) for entry in entries} == {"mesd", "resd"}
    found = read_corpora(entries, labels=recipe.labels)
    assert len(set(found.table["speaker"])) == 22 and len(set(found.table["corpus"])) == 11
    assert found.table["id"][0] == "cameo-cafe/cafe-0.flac" and found.table["speaker"][0] == "cameo-cafe/0"
    assert found.table.features["emotion"].names == sorted(
        ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
    )
    assert (len(found.table), len(found.left_out)) == (11 * 7, 11 * 9)
    assert set(found.table["gender"]) == {0, 1}
