from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import HfArgumentParser

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.recipe.checks import check_names, known_fields
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.recipe.sections import CorpusSpec, PseudoLabelSpec, StageSpec, StagesSpec, VariantSpec
from gmp_atl_hf.recipe.yaml12 import dump_yaml, load_yaml
from gmp_atl_hf.training.arguments import GMPATLTrainingArguments
from recipes import SMALL, at, recipe, refused

# YAML as people read it


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1.0e-4", 1e-4),
        (".5", 0.5),
        ("3.", 3.0),
        ("-3", -3),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("no", "no"),
        ("Yes", "Yes"),
        ("off", "off"),
        ("03", "03"),
        ("08a01Fa", "08a01Fa"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e5x", "1e5x"),
        ("'3'", "3"),
    ],
)
def test_a_plain_word_in_yaml_is_what_people_take_it_for(text: str, value: Any) -> None:
    read = load_yaml(f"a: {text}", "a test")["a"]
    assert read == value
    assert type(read) is type(value)


def test_a_key_given_twice_is_refused_with_both_lines() -> None:
    with pytest.raises(RequestError, match="`seeds` is given twice, on line 2 and on line 4"):
        load_yaml("name: a\nseeds: [0]\nfinal: true\nseeds: [1]\n", "r.yaml")


def test_a_key_given_twice_deep_inside_is_refused_too() -> None:
    with pytest.raises(RequestError, match="`skip` is given twice, on line 3 and on line 4"):
        load_yaml("stages:\n  finetune:\n    skip: true\n    skip: false\n", "r.yaml")


def test_a_merged_mapping_may_be_overridden() -> None:
    text = "base: &b {x: 1, y: 2}\none: {<<: *b, x: 3}"
    assert load_yaml(text, "r.yaml")["one"] == {"x": 3, "y": 2}


def test_text_that_is_no_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(RequestError, match=r"r\.yaml, line 2 is not YAML"):
        load_yaml("name: a\nb: c: d\n", "r.yaml")


def test_yaml_cannot_make_python_objects() -> None:
    with pytest.raises(RequestError, match="not YAML"):
        load_yaml("a: !!python/object/apply:os.getcwd []", "r.yaml")


TRAPS = {
    "texts": ["no", "03", "1e-4", "true", "null", "", "~", "<<", "1_000", "0x1F", "12:30", "2024-01-01", "=", "a: b"],
    "numbers": [1e-5, 1e22, 0.1, 1.0, 10, -3, 0, float("inf")],
    "others": [True, None, {}, [], {"a": [[1], [2]]}, "ünïcode", "two\nlines", "x" * 300],
}


def test_what_is_written_is_read_back_exactly() -> None:
    back = load_yaml(dump_yaml(TRAPS), "a test")
    assert back == TRAPS
    assert [type(x) for x in back["numbers"]] == [type(x) for x in TRAPS["numbers"]]


def test_other_yaml_readers_see_the_same_values() -> None:
    assert yaml.safe_load(dump_yaml(TRAPS)) == TRAPS


# Reading and writing recipes


def test_a_recipe_is_two_lines_at_least() -> None:
    made = recipe()
    assert made.corpus == (CorpusSpec("demo"),)
    assert made.variant_names == ("gmp-atl", "direct")
    assert made.pseudo_labels.clusters == (50, 100, 500)


FULL: dict[str, Any] = {
    "name": "full",
    "corpus": [{"name": "emodb", "root": "data/x"}, {"name": "folder", "root": "y", "pattern": "(?P<speaker>..).wav"}],
    "labels": {"no": "03", "anger": None},
    "data": {"max_seconds": 4, "short_clips": "pad"},
    "protocol": {"kind": "group-k-fold", "folds": 3, "dev_speakers": 1},
    "backbone": {"hidden_size": 16, "num_hidden_layers": 3, "conv_dim": [8, 8], "layer_norm_eps": 1e-5},
    "model": {"pooling": "attention", "am_softmax_scale": 15},
    "pseudo_labels": {"layers": [-1, 1], "clusters": [5]},
    "stages": {
        "multitask": {"learning_rate": 1e-4, "model": {"emotion_weight": 0.5}},
        "finetune": {"start": "backbone", "lr_scheduler_kwargs": {"a": [1, {"b": "no"}]}},
    },
    "seeds": [0, 7],
    "variants": ["gmp-atl", {"name": "k2", "base": "tapt", "set": {"pseudo_labels.clusters": [2]}}],
    "final": False,
}


@pytest.mark.parametrize("plain", [SMALL, FULL], ids=["small", "full"])
def test_a_recipe_survives_being_written_and_read(plain: dict[str, Any], tmp_path: Path) -> None:
    made = Recipe.from_dict(plain)
    assert Recipe.from_dict(made.to_dict()) == made
    file = tmp_path / "recipe.yaml"
    file.write_text(made.to_yaml(), encoding="utf-8")
    again = Recipe.from_yaml(file)
    assert again == made
    assert again.to_yaml() == made.to_yaml()


def test_settings_at_their_default_that_say_nothing_are_not_written() -> None:
    plain = recipe().to_dict()
    assert "root" not in plain["corpus"]
    assert "model" not in plain["stages"]["finetune"]
    assert plain["data"]["max_seconds"] == 10.0


def test_python_and_yaml_make_the_same_recipe() -> None:
    in_python = Recipe(
        name="mine",
        corpus=(CorpusSpec("folder", root="y", options={"pattern": "x"}),),
        pseudo_labels=PseudoLabelSpec(clusters=(5, 6)),
        stages=StagesSpec(finetune=StageSpec(arguments={"learning_rate": 1e-3})),
        variants=(VariantSpec("k2", set={"pseudo_labels.clusters": (2,)}),),
    )
    text = """
    name: mine
    corpus: {name: folder, root: y, pattern: x}
    pseudo_labels: {clusters: [5, 6]}
    stages: {finetune: {learning_rate: 1e-3}}
    variants: [{name: k2, set: {pseudo_labels.clusters: [2]}}]
    """
    assert Recipe.from_dict(load_yaml(text, "a test")) == in_python


def test_python_values_are_checked_like_those_of_a_file() -> None:
    with pytest.raises(RequestError, match=r"`pseudo_labels\.clusters` is 5"):
        replace(recipe(), pseudo_labels=PseudoLabelSpec(clusters=5))  # type: ignore[arg-type]


def test_a_recipe_does_not_change_when_the_dict_it_came_from_does() -> None:
    plain = {**SMALL, "model": {"pooling": "mean", "deep": [1]}}
    made = Recipe.from_dict(plain)
    plain["model"]["deep"].append(2)
    assert made.model == {"pooling": "mean", "deep": [1]}


def test_an_empty_section_means_its_defaults() -> None:
    made = Recipe.from_dict(load_yaml("name: mine\ncorpus: {name: demo}\ndata:\nmodel:\nstages: {retrain: }", "a test"))
    assert made == recipe()


@pytest.mark.parametrize("missing", ["name", "corpus"])
def test_a_recipe_without_name_or_corpus_is_refused(missing: str) -> None:
    assert f"no `{missing}`" in str(refused({key: value for key, value in SMALL.items() if key != missing}))


def test_a_corpus_without_a_name_is_refused() -> None:
    assert "`corpus` has no `name`" in str(refused({"name": "mine", "corpus": {"root": "x"}}))


# Unknown keys, with suggestions


@pytest.mark.parametrize(
    ("dotted", "where", "suggestion"),
    [
        ("protocl", "the recipe", "protocol"),
        ("pseudo-labels", "the recipe", "pseudo_labels"),
        ("data.max_second", "`data`", "max_seconds"),
        ("protocol.fold", "`protocol`", "folds"),
        ("pseudo_labels.clustres", "`pseudo_labels`", "clusters"),
        ("stages.finetuning", "`stages`", "finetune"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_one(dotted: str, where: str, suggestion: str) -> None:
    error = refused(at(dotted, 1))
    assert error.found == f"unknown key `{dotted.rsplit('.', 1)[-1]}` in {where}"
    assert error.expected is not None
    assert suggestion in error.expected
    assert error.fix == f"did you mean `{suggestion}`?"


def test_an_unknown_key_of_a_variant_is_refused_with_the_nearest_right_one() -> None:
    error = refused({**SMALL, "variants": [{"name": "a", "sets": {"x": 1}}]})
    assert "unknown key `sets` in `variants.0`" in error.found
    assert error.fix == "did you mean `set`?"


def test_an_unknown_path_in_a_variant_is_refused_with_the_variants_name() -> None:
    error = refused({**SMALL, "variants": [{"name": "k9", "set": {"pseudo_labels.clustres": [9]}}]})
    assert error.found == "variant k9: unknown key `clustres` in `pseudo_labels`"
    assert error.fix == "did you mean `clusters`?"


def test_a_key_nothing_like_a_known_one_gets_no_suggestion() -> None:
    assert refused(at("data.zzz", 1)).fix is None


@pytest.mark.parametrize(("dotted", "rest"), [("corpus.options", "options"), ("stages.retrain.arguments", "arguments")])
def test_further_keys_stand_directly_in_their_section(dotted: str, rest: str) -> None:
    error = refused(at(dotted, {"x": 1}))
    assert f"unknown key `{rest}`" in error.found
    assert "directly in" in str(error.expected)


def test_a_key_that_is_no_text_is_refused() -> None:
    assert "the key 1, a whole number" in refused({**SMALL, 1: 2}).found  # type: ignore[dict-item]
    error = refused({**SMALL, "labels": {True: "anger"}})
    assert "`labels` has the key true" in error.found


def test_python_options_cannot_hide_a_field_of_their_own_class() -> None:
    with pytest.raises(RequestError, match="has the key `skip`"):
        replace(recipe(), stages=StagesSpec(finetune=StageSpec(arguments={"skip": True})))


# Kinds and ranges


@pytest.mark.parametrize(
    ("dotted", "value", "found", "expected", "fix"),
    [
        ("name", 3, "`name` is 3, a whole number", "text", 'name: "3", in quotes'),
        ("final", "no", "`final` is 'no', text", "true or false", "final: false"),
        ("final", 1, "`final` is 1, a whole number", "true or false", None),
        ("seeds", 0, "`seeds` is 0, a whole number", "a list of whole numbers", "seeds: [0]"),
        ("seeds", [True], "`seeds.0` is true, which is true or false", "a whole number", None),
        ("seeds", None, "`seeds` is empty", "a list of whole numbers", None),
        ("seeds", ["0"], "`seeds.0` is '0', text", "a whole number", "0, without quotes"),
        ("pseudo_labels.sample_frames", 5e5, "500000.0, a number", "a whole number", "sample_frames: 500000"),
        ("data.max_seconds", "ten", "`data.max_seconds` is 'ten', text", "a number or null", None),
        ("data.max_seconds", True, "`data.max_seconds` is true", "a number", None),
        ("data.max_seconds", float("nan"), "`data.max_seconds` is nan", "a number", None),
        ("data.augment", "noise", "`data.augment` is 'noise', text", "none", None),
        ("data", [1], "`data` is [1], a list", "a mapping with `max_seconds`", None),
        ("model", "mean", "`model` is 'mean', text", "a mapping", None),
        ("backbone", 5, "`backbone` is 5, a whole number", "text or a mapping", None),
        ("backbone", {}, "`backbone` is empty", "a mapping", "at least one entry"),
        ("backbone", "", "`backbone` is empty", "text", None),
        ("labels", {}, "`labels` is empty", "a mapping", None),
        ("labels.anger", 3, "`labels.anger` is 3, a whole number", "text", 'anger: "3", in quotes'),
        ("stages.finetune", True, "`stages.finetune` is true", "a mapping with `skip`", None),
        ("corpus", [], "`corpus` is empty", "a list of mappings", None),
        ("corpus", "demo", "`corpus` is 'demo', text", "a list of mappings", None),
        ("corpus.root", 3, "`corpus.root` is 3", "text", None),
        ("variants", [3], "`variants.0` is 3, a whole number", "a mapping with `name`", None),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_what_was_expected(
    dotted: str, value: Any, found: str, expected: str, fix: str | None
) -> None:
    error = refused(at(dotted, value) if "." in dotted else {**SMALL, dotted: value})
    assert found in error.found
    assert expected in str(error.expected)
    if fix is not None:
        assert fix in str(error.fix)


def test_a_kind_of_protocol_is_suggested() -> None:
    error = refused(at("protocol.kind", "leave-one-speaker"))
    assert error.fix == "did you mean `leave-one-speaker-out`?"


@pytest.mark.parametrize(
    ("dotted", "value", "words"),
    [
        ("data.max_seconds", 0, "at least 0.025"),
        ("protocol.dev_speakers", -1, "at least 0"),
        ("pseudo_labels.clusters", [50, 1], "at least 2"),
        ("pseudo_labels.clusters", [], "at least one entry"),
        ("pseudo_labels.clusters", [5, 5], "`pseudo_labels.clusters` has 5 twice"),
        ("pseudo_labels.layers", [0], "there is no 0"),
        ("seeds", [-1], "`seeds.0` is -1"),
        ("seeds", [], "`seeds` is empty"),
        ("seeds", [1, 2, 1], "has 1 twice"),
        ("variants", [], "`variants` is an empty list"),
        ("variants", ["direct", "direct"], "has `direct` twice"),
        ("name", "My Run", "it names a folder"),
        ("name", "../x", "it names a folder"),
        ("corpus", [{"name": "demo"}, {"name": "demo"}], "`corpus` has the same entry twice"),
    ],
)
def test_a_value_out_of_range_is_refused(dotted: str, value: Any, words: str) -> None:
    assert words in str(refused(at(dotted, value)))


def test_whole_numbers_are_numbers_too() -> None:
    seconds = Recipe.from_dict(at("data.max_seconds", 4)).data.max_seconds
    assert seconds == 4.0
    assert isinstance(seconds, float)


def test_a_label_may_be_dropped() -> None:
    assert recipe(labels={"anger": None, "fear": "fear"}).labels == {"anger": None, "fear": "fear"}


def test_a_number_of_folds_belongs_to_group_k_fold() -> None:
    assert "protocol.folds" in str(refused(at("protocol.folds", 3)))
    assert recipe(protocol={"kind": "group-k-fold", "folds": 3}).protocol.num_folds == 3


# Environment variables


def test_environment_variables_and_the_home_folder_are_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECH", "/data/speech")
    monkeypatch.setenv("HOME", "/home/somebody")
    made = recipe(corpus=[{"name": "a", "root": "${SPEECH}/a"}, {"name": "b", "root": "~/b"}], backbone="${SPEECH}/h")
    assert [corpus.root for corpus in made.corpus] == ["/data/speech/a", "/home/somebody/b"]
    assert made.backbone == "/data/speech/h"


def test_an_environment_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    error = refused(at("corpus.root", "${NOT_THERE}/a"))
    assert "`corpus.root` is '${NOT_THERE}/a', and the environment variable NOT_THERE is not set" in error.found
    assert "export NOT_THERE=" in str(error.fix)


def test_other_texts_keep_their_dollar_signs() -> None:
    assert recipe(corpus={"name": "folder", "pattern": "${x}$"}).corpus[0].options == {"pattern": "${x}$"}


def test_a_command_line_parser_of_the_arguments_changes_no_recipe() -> None:
    HfArgumentParser(GMPATLTrainingArguments)  # replaces the types of the fields
    known_fields.cache_clear()
    fields = {"layer_decay": None, "report_to": ["none"], "max_seconds": None}
    check_names(fields, "`stages.finetune`", known_fields()[2])
