from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from gmp_atl_hf.errors import RequestError, did_you_mean, known_names
from gmp_atl_hf.pretraining.recipe import PretrainRecipe
from gmp_atl_hf.recipe.checks import MODEL_OWNED, MODEL_UNUSED, RUN_OWNED
from gmp_atl_hf.recipe.convert import describe
from gmp_atl_hf.recipe.overrides import parse_override
from gmp_atl_hf.recipe.packaged import find_recipe, packaged_recipes
from gmp_atl_hf.recipe.recipe import NOT_PER_VARIANT, Recipe
from gmp_atl_hf.recipe.variants import BUILT_IN_VARIANTS
from recipes import SMALL, recipe, refused

ABLATIONS = (
    "no-gender",
    "single-scale",
    "last-layer",
    "two-layers",
    "per-emotion",
    "per-gender",
    "all-frames",
    "windows",
    "retrain-from-multitask",
    "cross-entropy",
    "frozen-encoder",
    "averaged",
    "shuffled-labels",
    "oracle-labels",
)

# Variants


def test_built_in_variants_are_what_they_say() -> None:
    made = recipe(variants=list(BUILT_IN_VARIANTS))
    performed = {name: made.method(name).stages.performed for name in made.variant_names}
    assert performed == {
        "gmp-atl": ("multitask", "retrain", "finetune"),
        "direct": ("finetune",),
        "direct-long": ("finetune",),
        "tapt": ("retrain", "finetune"),
        "multitask-only": ("multitask", "finetune"),
        "joint": ("multitask", "finetune"),
        **dict.fromkeys(ABLATIONS, ("multitask", "retrain", "finetune")),
    }
    assert made.method("tapt").pseudo_labels.source == "backbone"
    assert made.method("direct-long").stages.finetune.same_updates_as_all
    assert not made.method("direct").stages.finetune.same_updates_as_all


def test_fine_tuning_starts_from_the_last_stage_performed_before_it() -> None:
    made = recipe(variants=list(BUILT_IN_VARIANTS))
    starts = {name: made.method(name).stages.start_of("finetune") for name in made.variant_names}
    assert starts == {
        "gmp-atl": "retrain",
        "direct": "backbone",
        "direct-long": "backbone",
        "tapt": "retrain",
        "multitask-only": "multitask",
        "joint": "backbone",
        **dict.fromkeys(ABLATIONS, "retrain"),
    }
    assert made.method("gmp-atl").stages.start_of("retrain") == "backbone"
    assert made.method("retrain-from-multitask").stages.start_of("retrain") == "multitask"


@pytest.mark.parametrize("name", BUILT_IN_VARIANTS)
def test_a_built_in_variant_is_a_name_for_a_set_of_overrides_and_nothing_more(name: str) -> None:
    if not BUILT_IN_VARIANTS[name]:
        return
    made = recipe(variants=[name, {"name": "own", "set": dict(BUILT_IN_VARIANTS[name])}])
    assert made.method(name) == made.method("own") != recipe().method("gmp-atl")


def test_each_ablation_changes_one_part_of_the_method() -> None:
    made = recipe(variants=["gmp-atl", *ABLATIONS])
    whole = made.method("gmp-atl")
    for name in ABLATIONS:
        one = made.method(name)
        one.check_field_names()
        parts = [
            part
            for part in ("multitask", "retrain", "finetune")
            if getattr(one.stages, part) != getattr(whole.stages, part)
        ]
        # Labels of a second cannot be told apart behind a mask of a fifth of one, so these two go together.
        changed = 2 if name == "windows" else 1
        assert len(parts) + (one.pseudo_labels != whole.pseudo_labels) == changed
        assert replace(one, stages=whole.stages, pseudo_labels=whole.pseudo_labels) == whole


def test_a_control_changes_nothing_but_the_frame_labels() -> None:
    made = recipe(variants=["gmp-atl", "shuffled-labels", "oracle-labels"])
    assert [made.method(name).pseudo_labels.control for name in made.variant_names] == ["none", "shuffled", "oracle"]


def test_oracle_labels_need_no_model_to_take_them_from() -> None:
    without = {"stages.multitask.skip": True}
    made = recipe(variants=[{"name": "oracle", "base": "oracle-labels", "set": without}])
    assert made.method("oracle").stages.performed == ("retrain", "finetune")
    shuffled = {"name": "shuffled", "base": "shuffled-labels", "set": without}
    assert "a model that exists" in str(refused({**SMALL, "variants": [shuffled]}))


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("windows", [], "`pseudo_labels.windows` is empty"),
        ("windows", [0.5, 0.5], "0.5 twice"),
        ("windows", [0.03], "a window of 0.03 seconds"),
        ("windows", 0.5, "pseudo_labels.windows: [0.5]"),
        ("windows", [100], "at most 60"),
        ("normalize", "voice", "speaker"),
        ("control", "random", "shuffled"),
    ],
)
def test_settings_of_frame_labels_that_mean_nothing_are_refused(setting: str, value: Any, named: str) -> None:
    assert named in str(refused({**SMALL, "pseudo_labels": {setting: value}}))


def test_a_stage_may_start_part_of_the_way() -> None:
    made = recipe(variants=[{"name": "half-way", "set": {"stages.finetune.start_weight": 0.5}}])
    assert made.method("half-way").stages.finetune.start_weight == 0.5
    assert "at most 1" in str(refused({**SMALL, "stages": {"finetune": {"start_weight": 1.5}}}))


def test_the_recipe_of_the_ablation_has_every_part_of_the_method_in_it() -> None:
    made = Recipe.from_yaml("ablation")
    assert {*ABLATIONS, "gmp-atl", "direct", "direct-long", "tapt", "multitask-only", "joint"} <= set(
        made.variant_names
    )
    assert made.variant_names[0] == "gmp-atl"
    assert Recipe.from_yaml("iemocap").method("gmp-atl").stages == made.method("gmp-atl").stages


def test_a_variant_sets_what_it_says_and_nothing_else() -> None:
    made = recipe(variants=["gmp-atl", {"name": "k2", "set": {"pseudo_labels.clusters": [2]}}])
    whole, k2 = made.method("gmp-atl"), made.method("k2")
    assert k2.pseudo_labels.clusters == (2,)
    assert replace(k2, pseudo_labels=whole.pseudo_labels) == whole


def test_a_variant_shares_every_section_that_it_leaves_as_it_is() -> None:
    made = recipe(variants=["direct", {"name": "k2", "set": {"pseudo_labels.clusters": [2]}}])
    assert made.method("direct") is made.method("direct")
    assert made.method("direct").pseudo_labels is made.pseudo_labels
    assert made.method("k2").stages is made.stages


def test_a_variant_comes_on_top_of_its_base() -> None:
    made = recipe(variants=[{"name": "d2", "base": "direct", "set": {"stages.finetune.learning_rate": 1e-3}}])
    assert made.method("d2").stages.performed == ("finetune",)
    assert made.method("d2").stages.finetune.arguments == {"learning_rate": 1e-3}


def test_a_variant_can_reach_into_a_backbone_from_scratch_and_into_empty_sections() -> None:
    sets = {"backbone.hidden_size": 8, "stages.finetune.model.am_softmax_scale": 5}
    made = recipe(backbone={"hidden_size": 16}, variants=[{"name": "a", "set": sets}])
    assert made.method("a").backbone == {"hidden_size": 8}
    assert made.method("a").stages.finetune.model == {"am_softmax_scale": 5}


@pytest.mark.parametrize("shared", NOT_PER_VARIANT)
def test_what_variants_share_cannot_be_set_by_one_of_them(shared: str) -> None:
    error = refused({**SMALL, "variants": [{"name": "a", "set": {shared: 1}}]})
    assert f"changes `{shared}`" in error.found


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("drect", "did you mean `direct`?"),
        ({"name": "k50"}, "no built-in variant and sets nothing"),
        ("replay", "{name: replay, set: {replay: {root: data/speech}}}"),
        ({"name": "direct", "set": {"data.augment": "none"}}, "a name of its own"),
        ({"name": "a", "base": "tatp", "set": {"data.augment": "none"}}, "did you mean `tapt`?"),
        ({"name": "A B", "set": {"data.augment": "none"}}, "it names a folder"),
        ({"name": "model", "set": {"data.augment": "none"}}, "no folder that every run has"),
        ({"name": "a", "set": {"name.x": 1}}, "changes `name.x`"),
        ({"name": "a", "set": {"data.augment.x": 1}}, "`data.augment` is 'none', text"),
        ({"name": "a", "set": {"pseudo_labels.layers.7": 1}}, "is a list of 1"),
        ({"name": "a", "set": {"pseudo_labels.layers.²": 1}}, "is a list of 1"),
        ({"name": "a", "set": {"pseudo_labels.layers": [0]}}, "variant a: `pseudo_labels.layers.0` is 0"),
    ],
)
def test_a_wrong_variant_is_refused(variant: Any, words: str) -> None:
    assert words in str(refused({**SMALL, "variants": [variant]}))


def test_asking_for_a_variant_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(RequestError, match="one of gmp-atl, direct"):
        recipe().method("tapt")


# Overrides of the command line


def test_overrides_are_applied_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: mine\ncorpus: {name: demo}\n")
    overrides = ["seeds=[1]", "stages.finetune.learning_rate=1e-4", "seeds=[2, 3]", "data.max_seconds=null"]
    made = Recipe.from_yaml(file, overrides)
    assert made.seeds == (2, 3)
    assert made.stages.finetune.arguments == {"learning_rate": 1e-4}
    assert made.data.max_seconds is None


def test_an_override_changes_one_of_the_places_that_share_an_anchor(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    stages = "multitask: &s {num_train_epochs: 1, model: {dropout: 0.1}}, retrain: *s, finetune: {<<: *s}"
    file.write_text(f"name: mine\ncorpus: {{name: demo}}\nstages: {{{stages}}}\n")
    overrides = ["stages.finetune.num_train_epochs=7", "stages.finetune.model.dropout=0.3", "stages.retrain.skip=true"]
    made = Recipe.from_yaml(file, overrides).stages
    assert [one.arguments["num_train_epochs"] for one in (made.multitask, made.retrain, made.finetune)] == [1, 1, 7]
    assert [one.model["dropout"] for one in (made.multitask, made.retrain, made.finetune)] == [0.1, 0.1, 0.3]
    assert [one.skip for one in (made.multitask, made.retrain, made.finetune)] == [False, True, False]


def test_an_override_changes_one_iteration_of_several_that_share_an_anchor(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    iterations = "[&i {features: mfcc, clusters: [4], num_train_epochs: 2}, *i]"
    file.write_text(f"name: mine\ncorpus: {{name: demo}}\nbackbone: mini\niterations: {iterations}\n")
    made = PretrainRecipe.from_yaml(file, ["iterations.1.num_train_epochs=7"])
    assert [one.arguments["num_train_epochs"] for one in made.iterations] == [2, 7]


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
    assert made.method("gmp-atl").stages.start_of("retrain") == "multitask"


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


@pytest.mark.parametrize(("name", "instead"), MODEL_UNUSED.items())
def test_what_no_model_looks_at_is_refused_in_models_and_allowed_in_a_backbone(name: str, instead: str) -> None:
    for changes in ({"model": {name: 1}}, {"stages": {"finetune": {"model": {name: 1}}}}):
        assert check(**changes).fix == instead
    from gmp_atl_hf.modeling.configuration_gmp_atl import GMPATLConfig

    recipe(backbone={name: getattr(GMPATLConfig(), name)}).check_field_names()


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
        if name.startswith("pretrain-"):
            continue  # another kind of recipe: see test_pretraining.py
        made = Recipe.from_yaml(name)
        assert made.name == name
        made.check_field_names()
        assert Recipe.from_dict(made.to_dict()) == made


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="did you mean `demo`"):
        find_recipe("dmo")
    with pytest.raises(RequestError, match="it is a folder"):
        find_recipe(tmp_path)
    with pytest.raises(RequestError) as caught:
        Recipe.from_yaml("unknown")
    assert "emodb" in str(caught.value) and "pretrain-" not in str(caught.value)
    with pytest.raises(RequestError) as caught:
        PretrainRecipe.from_yaml("unknown")
    assert "pretrain-mini" in str(caught.value) and "emodb" not in str(caught.value)


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
        "import gmp_atl_hf.cli; from gmp_atl_hf.recipe.recipe import Recipe; Recipe.from_yaml('demo')\n"
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
