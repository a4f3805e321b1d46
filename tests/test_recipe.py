from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.recipe import (
    CorpusSpec,
    PseudoLabelSpec,
    Recipe,
    StageSpec,
    StagesSpec,
    VariantSpec,
    find_recipe,
    packaged_recipes,
)
from gmp_atl_hf.recipe_checks import MODEL_OWNED, RUN_OWNED
from gmp_atl_hf.recipe_convert import describe, did_you_mean, known_names
from gmp_atl_hf.recipe_variants import BUILT_IN_VARIANTS, NOT_PER_VARIANT, parse_override
from gmp_atl_hf.recipe_yaml import dump_yaml, load_yaml

SMALL: dict[str, Any] = {"name": "mine", "corpus": {"name": "demo"}}


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_dict({**SMALL, **changes})


def at(dotted: str, value: Any) -> dict[str, Any]:
    """A small recipe with one value at a dotted path."""
    plain: dict[str, Any] = {**SMALL, "corpus": dict(SMALL["corpus"])}
    place, keys = plain, dotted.split(".")
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    return plain


def refused(plain: Mapping[str, Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        Recipe.from_dict(plain)
    return caught.value


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


def test_a_resolved_variant_can_be_written_as_a_dict() -> None:
    plain = recipe().resolve("direct").to_dict()
    assert plain["variants"] == []
    assert plain["stages"]["retrain"]["skip"] is True


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
        ("data.max_seconds", 0, "a number above 0"),
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
    assert recipe(protocol={"kind": "group-k-fold", "folds": 3}).protocol.folds == 3


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


# Variants


def test_built_in_variants_are_what_they_say() -> None:
    made = recipe(variants=list(BUILT_IN_VARIANTS))
    performed = {name: made.resolve(name).stages.performed for name in made.variant_names}
    assert performed == {
        "gmp-atl": ("multitask", "retrain", "finetune"),
        "direct": ("finetune",),
        "direct-long": ("finetune",),
        "tapt": ("retrain", "finetune"),
        "multitask-only": ("multitask", "finetune"),
    }
    assert made.resolve("tapt").pseudo_labels.source == "backbone"
    assert made.resolve("direct-long").stages.finetune.same_updates_as_all
    assert not made.resolve("direct").stages.finetune.same_updates_as_all


def test_fine_tuning_starts_from_the_last_stage_performed_before_it() -> None:
    made = recipe(variants=list(BUILT_IN_VARIANTS))
    starts = {name: made.resolve(name).stages.start_of("finetune") for name in made.variant_names}
    assert starts == {
        "gmp-atl": "retrain",
        "direct": "backbone",
        "direct-long": "backbone",
        "tapt": "retrain",
        "multitask-only": "multitask",
    }
    assert made.resolve("gmp-atl").stages.start_of("retrain") == "backbone"


def test_a_variant_sets_what_it_says_and_nothing_else() -> None:
    made = recipe(variants=["gmp-atl", {"name": "k2", "set": {"pseudo_labels.clusters": [2]}}])
    whole, k2 = made.resolve("gmp-atl"), made.resolve("k2")
    assert k2.pseudo_labels.clusters == (2,)
    assert replace(k2, pseudo_labels=whole.pseudo_labels) == whole


def test_a_variant_comes_on_top_of_its_base() -> None:
    made = recipe(variants=[{"name": "d2", "base": "direct", "set": {"stages.finetune.learning_rate": 1e-3}}])
    assert made.resolve("d2").stages.performed == ("finetune",)
    assert made.resolve("d2").stages.finetune.arguments == {"learning_rate": 1e-3}


def test_a_variant_can_reach_into_a_backbone_from_scratch_and_into_empty_sections() -> None:
    sets = {"backbone.hidden_size": 8, "stages.finetune.model.am_softmax_scale": 5}
    made = recipe(backbone={"hidden_size": 16}, variants=[{"name": "a", "set": sets}])
    assert made.resolve("a").backbone == {"hidden_size": 8}
    assert made.resolve("a").stages.finetune.model == {"am_softmax_scale": 5}


@pytest.mark.parametrize("shared", NOT_PER_VARIANT)
def test_what_variants_share_cannot_be_set_by_one_of_them(shared: str) -> None:
    error = refused({**SMALL, "variants": [{"name": "a", "set": {shared: 1}}]})
    assert f"changes `{shared}`" in error.found


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("drect", "did you mean `direct`?"),
        ({"name": "k50"}, "no built-in variant and sets nothing"),
        ({"name": "direct", "set": {"data.augment": "none"}}, "a name of its own"),
        ({"name": "a", "base": "tatp", "set": {"data.augment": "none"}}, "did you mean `tapt`?"),
        ({"name": "A B", "set": {"data.augment": "none"}}, "it names a folder"),
        ({"name": "model", "set": {"data.augment": "none"}}, "no folder that every run has"),
        ({"name": "a", "set": {"name.x": 1}}, "changes `name.x`"),
        ({"name": "a", "set": {"data.augment.x": 1}}, "`data.augment` is 'none', text"),
        ({"name": "a", "set": {"pseudo_labels.layers.7": 1}}, "is a list of 1"),
        ({"name": "a", "set": {"pseudo_labels.layers": [0]}}, "variant a: `pseudo_labels.layers.0` is 0"),
    ],
)
def test_a_wrong_variant_is_refused(variant: Any, words: str) -> None:
    assert words in str(refused({**SMALL, "variants": [variant]}))


def test_asking_for_a_variant_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(RequestError, match="one of gmp-atl, direct"):
        recipe().resolve("tapt")


# Overrides of the command line


def test_overrides_are_applied_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: mine\ncorpus: {name: demo}\n")
    overrides = ["seeds=[1]", "stages.finetune.learning_rate=1e-4", "seeds=[2, 3]", "data.max_seconds=null"]
    made = Recipe.from_yaml(file, overrides)
    assert made.seeds == (2, 3)
    assert made.stages.finetune.arguments == {"learning_rate": 1e-4}
    assert made.data.max_seconds is None


def test_an_override_reaches_one_corpus_of_several(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: mine\ncorpus: [{name: a}, {name: b}]\n")
    assert Recipe.from_yaml(file, ["corpus.1.root=x"]).corpus[1].root == "x"


@pytest.mark.parametrize("text", ["seeds", "=3", "a..b=1", ".a=1"])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"key\.path=value"):
        parse_override(text)


def test_an_override_keeps_everything_after_the_first_equals_sign() -> None:
    assert parse_override("corpus.pattern=a=b") == ("corpus.pattern", "a=b")


def test_a_typo_in_an_override_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="did you mean `clusters`"):
        Recipe.from_yaml("demo", ["pseudo_labels.clustres=[5]"])


# Parts that contradict each other


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({"multitask": {"skip": True}}, "pseudo_labels: {source: backbone}"),
        ({name: {"skip": True} for name in ("multitask", "retrain", "finetune")}, "all three stages"),
        ({"multitask": {"start": "retrain"}}, "`stages.multitask.start` is retrain, which does not come before it"),
        ({"multitask": {"start": "multitask"}}, "which does not come before it"),
        ({"retrain": {"start": "retrain"}}, "which does not come before it"),
        ({"retrain": {"skip": True}, "finetune": {"start": "retrain"}}, "which `skip: true` leaves out"),
        ({"multitask": {"same_updates_as_all": True}}, "`stages.finetune` only"),
        ({"retrain": {"same_updates_as_all": True}}, "`stages.finetune` only"),
    ],
)
def test_stages_that_contradict_each_other_are_refused(stages: Any, words: str) -> None:
    error = refused({**SMALL, "stages": stages, "variants": ["gmp-atl"]})
    assert words in str(error)
    assert error.found.startswith("variant gmp-atl: ")


def test_retraining_may_start_from_the_multi_task_model() -> None:
    made = recipe(stages={"retrain": {"start": "multitask"}}, variants=["gmp-atl"])
    assert made.resolve("gmp-atl").stages.start_of("retrain") == "multitask"


def test_a_variant_whose_parts_contradict_each_other_is_refused_from_the_start() -> None:
    error = refused({**SMALL, "stages": {"finetune": {"start": "retrain"}}})
    assert error.found.startswith("variant direct: `stages.finetune.start` is retrain")


@pytest.mark.parametrize(
    ("layers", "words"), [([-4], "the backbone has 3 transformer layers"), ([4], "1 to 3"), ([-1, 3], "the same one")]
)
def test_layers_that_a_backbone_from_scratch_does_not_have_are_refused(layers: list[int], words: str) -> None:
    plain = {**SMALL, "backbone": {"num_hidden_layers": 3}, "pseudo_labels": {"layers": layers}}
    assert words in str(refused(plain))
    assert Recipe.from_dict({**plain, "variants": ["direct"]}).variant_names == ("direct",)  # needs no layer


# Names that are passed on to transformers


def check(**changes: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        recipe(**changes).check_field_names()
    return caught.value


def test_names_that_exist_pass() -> None:
    recipe(
        backbone={"hidden_size": 16, "layer_norm_eps": 1e-5},
        model={"pooling": "mean", "hidden_dropout": 0},
        stages={"finetune": {"learning_rate": 1e-3, "num_train_epochs": 3, "eval_strategy": "no"}},
    ).check_field_names()


@pytest.mark.parametrize(
    ("changes", "where", "suggestion"),
    [
        ({"backbone": {"hiden_size": 16}}, "`backbone`", "`hidden_size`"),
        ({"model": {"poling": "mean"}}, "`model`", "`pooling`"),
        ({"stages": {"retrain": {"model": {"frame_haed": "x"}}}}, "`stages.retrain.model`", "`frame_head`"),
        ({"stages": {"finetune": {"learning_rat": 1}}}, "`stages.finetune`", "`learning_rate`"),
        ({"stages": {"finetune": {"skp": True}}}, "`stages.finetune`", "`skip`"),
        ({"backbone": {"pooling": "mean"}}, "`backbone`", "it belongs to `model`"),
        ({"model": {"learning_rate": 1e-3}}, "`model`", "it belongs to a stage"),
        ({"stages": {"finetune": {"am_softmax_scale": 3}}}, "`stages.finetune`", "it belongs to `model`"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_right_one(
    changes: dict[str, Any], where: str, suggestion: str
) -> None:
    error = check(**changes)
    assert f"in {where}" in error.found
    assert suggestion in str(error.fix)


def test_an_unknown_field_of_a_variant_is_refused_with_its_name() -> None:
    error = check(variants=["gmp-atl", {"name": "a", "set": {"stages.finetune.learning_rat": 1}}])
    assert error.found == "variant a: unknown key `learning_rat` in `stages.finetune`"


@pytest.mark.parametrize(("name", "instead"), RUN_OWNED.items())
def test_what_the_run_sets_itself_is_refused_in_stages(name: str, instead: str) -> None:
    error = check(stages={"finetune": {name: 1}})
    assert f"`stages.finetune` sets `{name}`" in error.found
    assert error.fix == instead


@pytest.mark.parametrize(("name", "instead"), MODEL_OWNED.items())
def test_what_the_run_sets_itself_is_refused_in_models(name: str, instead: str) -> None:
    for changes in ({"model": {name: 1}}, {"backbone": {name: 1}}, {"stages": {"retrain": {"model": {name: 1}}}}):
        assert check(**changes).fix == instead


def test_every_name_the_run_owns_exists() -> None:
    from gmp_atl_hf.modeling.configuration_gmp_atl import GMPATLConfig
    from gmp_atl_hf.training.arguments import GMPATLTrainingArguments

    assert set(RUN_OWNED) <= {item.name for item in fields(GMPATLTrainingArguments)}
    assert all(hasattr(GMPATLConfig(), name) for name in MODEL_OWNED)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": {"finetune": {"freeze_feature_encoder": "no"}}}, "`freeze_feature_encoder`, which is 'no', text"),
        ({"stages": {"finetune": {"learning_rate": "fast"}}}, "a number"),
        ({"stages": {"finetune": {"max_steps": True}}}, "a whole number"),
        ({"backbone": {"hidden_size": 1.5}}, "a whole number"),
        ({"model": {"emotion_weight": "0.9"}}, "a number"),
    ],
)
def test_a_field_of_a_plainly_wrong_kind_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in str(check(**changes))


# Files


def test_every_packaged_recipe_loads_with_all_names_right() -> None:
    assert {"demo", "emodb"} <= set(packaged_recipes())
    for name in packaged_recipes():
        made = Recipe.from_yaml(name)
        assert made.name == name
        made.check_field_names()
        assert Recipe.from_dict(made.to_dict()) == made


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="did you mean `demo`"):
        find_recipe("dmo")
    with pytest.raises(RequestError, match="it is a folder"):
        find_recipe(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xfe", "not UTF-8"), (b"- a\n", "no `key: value`"), (b"", "no `key: value`")]
)
def test_a_file_that_is_no_recipe_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(content)
    with pytest.raises(RequestError, match=words):
        Recipe.from_yaml(file)


def test_reading_a_recipe_loads_nothing_beyond_the_package_and_yaml() -> None:
    code = (
        "import sys, gmp_atl_hf; before = set(sys.modules)\n"
        "import gmp_atl_hf.cli; from gmp_atl_hf.recipe import Recipe; Recipe.from_yaml('demo')\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted((new - set(sys.stdlib_module_names)) | {'datasets', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) <= {"yaml", "_yaml", "gmp_atl_hf"}


# Words


@pytest.mark.parametrize(
    ("name", "known", "answer"),
    [
        ("clustres", ["layers", "clusters"], "did you mean `clusters`?"),
        ("Pseudo-Labels", ["pseudo_labels"], "did you mean `pseudo_labels`?"),
        ("speaker", ["leave-one-speaker-out", "given"], "did you mean `leave-one-speaker-out`?"),
        ("xyz", ["layers"], "or else"),
        (3, ["layers"], "or else"),
    ],
)
def test_suggestions(name: object, known: list[str], answer: str) -> None:
    assert did_you_mean(name, known, "or else") == answer


def test_names_are_listed() -> None:
    assert known_names(["a"]) == "a"
    assert known_names(iter(["a", "b"])) == "one of a, b"


def test_long_lists_are_not_shown_whole() -> None:
    assert describe(list(range(100))) == "a list of 100"
