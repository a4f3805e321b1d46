"""Numbers that no training can work with, or that would train nothing, are refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.recipe.yaml12 import load_yaml
from gmp_atl_hf.run.run import run_recipe
from recipes import refused
from runs import BACKBONE, recipe_dict

NAN, INF = float("nan"), float("inf")
FINETUNE = "stages__finetune__"
BAD: list[tuple[dict[str, Any], str]] = [
    *(({"seeds": [seed]}, "seeds.0") for seed in (2**32, 10**20, 10**4000, -1, 1.5, NAN, True)),
    ({"protocol": {"seed": 10**20}}, "protocol.seed"),
    ({"pseudo_labels": {"seed": 2**32}}, "pseudo_labels.seed"),
    ({"pseudo_labels": {"sample_frames": 10**30}}, "sample_frames"),
    ({"pseudo_labels": {"clusters": [10**25]}}, "clusters"),
    *(({"data": {"max_seconds": value}}, "max_seconds") for value in (0, -1, NAN, INF, 1e300, 10**400)),
    *(
        ({FINETUNE + name: value}, name)
        for name, values in {
            "num_train_epochs": (0, -1, -0.5, NAN, INF, 1e300, "ten"),
            "max_steps": (0, -2, 1.5, 10**20),
            "per_device_train_batch_size": (0, -4, 1.5, "8"),
            "per_device_eval_batch_size": (0, -4),
            "gradient_accumulation_steps": (0, -1),
            "learning_rate": (0, 0.0, -1e-4, NAN, INF, "1e-4"),
            "head_learning_rate": (0, -1, NAN),
            "weight_decay": (-1, NAN),
            "warmup_steps": (-1, INF),
            "max_grad_norm": (-1, NAN),
            "adam_beta1": (1, -0.1, NAN),
            "adam_beta2": (1.0, 2),
            "adam_epsilon": (0, -1),
            "max_seconds": (0, -1, NAN, INF, 1e300),
            "batch_seconds": (0, -1, NAN, INF),
            "early_stopping_patience": (0, -1),
            "logging_steps": (0, -1, NAN),
            "eval_steps": (0, NAN),
            "save_steps": (-1,),
            "save_total_limit": (-1,),
            "dataloader_num_workers": (-1,),
            "dataloader_prefetch_factor": (0,),
            "class_weights": ([0, 0, 0], [NAN, 1, 1], [-1, 1, 1], [INF, 1, 1]),
            "lr_scheduler_kwargs": ({"num_cycles": NAN},),
        }.items()
        for value in values
    ),
    *(
        ({"model": {name: value}}, name)
        for name, values in {
            "hidden_dropout": (1, -0.1, NAN, 7),
            "final_dropout": (1.0,),
            "layerdrop": (1,),
            "mask_time_prob": (-0.1, 1.1, NAN),
            "mask_time_length": (0, -3),
            "mask_time_min_masks": (-1,),
            "mask_feature_length": (0,),
            "mask_feature_prob": (2, INF),
            "am_softmax_scale": (0, -1, NAN, INF),
            "am_softmax_margin": (1, -0.1, NAN),
            "emotion_weight": (-0.1, 1.1, NAN),
            "layer_norm_eps": (0, NAN),
            "initializer_range": (0, -1, NAN),
        }.items()
        for value in values
    ),
    ({"variants": ["direct"], "model": {"frame_weight": -1}}, "`model` has `frame_weight`, which is -1"),
    ({"variants": ["direct"], "stages__finetune__model": {"frame_weight": NAN}}, "`frame_weight`, which is nan"),
    *(
        ({"backbone": {**BACKBONE, name: value}}, name)
        for name, value in {
            "hidden_size": 0,
            "num_hidden_layers": 10**9,
            "conv_stride": [0, 8, 4],
            "conv_kernel": [20, -15, 4],
            "conv_dim": [8, 8, 10**7],
            "num_attention_heads": -2,
            "num_conv_pos_embeddings": 0,
            "conv_pos_batch_norm": True,
        }.items()
    ),
]


@pytest.mark.parametrize(("changes", "named"), BAD, ids=[str(changes)[:60] for changes, _ in BAD])
def test_a_value_that_no_training_can_work_with_is_refused_before_the_corpus_is_read(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError) as caught:  # the corpus is not there, which is not what is said
        run_recipe(Recipe.from_dict(recipe_dict(tmp_path / "nowhere", **changes)), tmp_path / "run")
    said = str(caught.value)
    assert named in said
    assert len(said) < 2_000
    assert not (tmp_path / "run").exists()


def test_a_variant_and_a_search_are_checked_like_the_recipe_itself(tmp_path: Path) -> None:
    searched = {"search": {"stages.finetune.num_train_epochs": [1, 0]}}
    variant = {"variants": [{"name": "none", "set": {"stages.retrain.max_steps": 0}}]}
    for changes, named in ((searched, "num_train_epochs"), (variant, "variant none")):
        with pytest.raises(RequestError, match=named):
            run_recipe(Recipe.from_dict(recipe_dict(tmp_path / "nowhere", **changes)), tmp_path / "run")


def test_a_rate_of_0_is_fine_where_the_heads_have_one_of_their_own(tmp_path: Path) -> None:
    changes = {FINETUNE + "learning_rate": 0.0, FINETUNE + "head_learning_rate": 0.01}
    with pytest.raises(RequestError, match="nothing at"):
        run_recipe(Recipe.from_dict(recipe_dict(tmp_path / "nowhere", **changes)), tmp_path / "run")


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/x", "a.txt", "a.txt/below", "/proc/nothing", "nul\0"])
def test_a_front_end_cache_that_cannot_be_kept_is_refused_before_the_corpus_is_read(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a file")
    with pytest.raises(RequestError, match="front_end_cache"):
        run_recipe(Recipe.from_dict(recipe_dict(tmp_path / "nowhere", data__front_end_cache=place)), tmp_path / "run")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


# ---- YAML that never ends --------------------------------------------------------------------------------------------

ENDLESS = {
    "brackets": "name: " + "[" * 5_000 + "]" * 5_000,
    "mappings": "name: " + "{a: " * 5_000 + "1" + "}" * 5_000,
    "a hundred brackets": "name: " + "[" * 100 + "]" * 100,
    "a list in itself": "name: &a [*a]",
    "references to references": "\n".join(
        ["a0: &a0 [1]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]" for n in range(1, 12))]
    ),
    "digits": "seeds: [" + "9" * 5_000 + "]",
    "more digits": "seeds: [-" + "9" * 50_000 + "]",
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_yaml_that_never_ends_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert main(["run", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gmp-atl: error: {file}") and len(said) < 2_000
    assert main(["run", "demo", "--set", text.partition("\n")[0].replace(": ", "=", 1)]) == 2


def test_a_reference_may_be_used_more_than_once() -> None:
    assert load_yaml("{a: &a [1, 2], b: *a, c: [*a, *a]}", "an example")["c"] == [[1, 2], [1, 2]]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
PATHS = ("seeds", "protocol.seed", "data.max_seconds", "pseudo_labels.layers", "stages", "model", "search", "variants")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PATHS), VALUES)
def test_whatever_stands_in_a_recipe_it_is_read_or_refused(path: str, value: Any) -> None:
    plain: dict[str, Any] = {"name": "mine", "corpus": {"name": "demo"}}
    first, _, second = path.partition(".")
    plain[first] = {second: value} if second else value
    try:
        recipe = Recipe.from_dict(plain)
        recipe.check_field_names()
    except RequestError:
        return
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_names_and_searches_have_an_end() -> None:
    assert "100 at most" in str(refused({"name": "x" * 101, "corpus": {"name": "demo"}}))
    many = {f"stages.finetune.{name}": list(range(1, 40)) for name in ("max_steps", "seed", "num_train_epochs")}
    assert "combinations" in str(refused({"name": "mine", "corpus": {"name": "demo"}, "search": many}))
