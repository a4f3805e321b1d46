"""Wrong values of training arguments: the argument, what it may be, and a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.run.stages import make_arguments
from gmp_atl_hf.training.arguments import GMPATLTrainingArguments
from gmp_atl_hf.training.optimizer_checks import refuse_unusable_optimizer
from runs import recipe_dict, write_recipe


def refused(**settings: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        make_arguments(Path("unused"), 0, {"learning_rate": 1e-4, **settings}, evaluate=True)
    return caught.value


@pytest.mark.parametrize(
    ("name", "value", "may_be", "fix"),
    [
        ("lr_scheduler_type", "cosin", "one of linear, cosine, ", "did you mean `cosine`?"),
        ("optim", "adamw_trch", "one of adamw_torch, ", "did you mean `adamw_torch`?"),
        ("eval_strategy", "ever", "one of no, steps, epoch", "leave eval_strategy out for its default"),
        ("save_strategy", False, "one of no, steps, epoch, best", "leave save_strategy out for its default"),
        ("class_weights", "balance", '"balanced", a list of numbers, or none', "did you mean `balanced`?"),
        ("augment", "sped", "one of none, speed, sound", "did you mean `speed`?"),
        ("layer_decay", 2, "a number above 0, at most 1, or none", "leave layer_decay out for the default"),
    ],
)
def test_a_wrong_value_is_answered_with_what_it_may_be(name: str, value: object, may_be: str, fix: str) -> None:
    error = refused(**{name: value})
    assert error.found == f"{name} is {value!r}"
    assert str(error.expected).startswith(may_be) and str(error.fix).startswith(fix)


def test_an_error_of_transformers_is_told_with_the_arguments_that_it_speaks_of() -> None:
    assert refused(bf16=True, fp16=True).fix == "leave bf16 or fp16 out for the default, or correct it"
    assert "learning_rate" not in refused(warmup_steps=-2).found
    # It names none of them: then all are shown.
    unnamed = refused(debug="everything")
    assert '"debug": "everything"' in unnamed.found and unnamed.fix is not None


def test_a_tracker_that_is_not_there_is_told_once() -> None:
    assert str(refused(report_to="nobody")).count("expected:") == 1


@pytest.mark.parametrize(
    ("settings", "also"),
    [
        ({"eval_strategy": "no"}, ""),
        ({"save_strategy": "no"}, ""),
        ({"save_strategy": "steps"}, "; or eval_strategy: epoch and save_strategy: epoch"),
        ({"eval_strategy": "steps"}, "; or eval_strategy: steps and save_strategy: steps"),
    ],
)
def test_a_choice_of_the_best_that_nothing_is_known_of_has_a_way_out(settings: dict[str, str], also: str) -> None:
    error = refused(**settings)
    assert error.fix == f"load_best_model_at_end: false keeps the last step instead of the best one{also}"
    make_arguments(Path("unused"), 0, {**settings, "load_best_model_at_end": False}, evaluate=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"save_strategy": "best"},
        {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 5, "save_steps": 5},
        {"average_epochs": 2, "eval_strategy": "no"},
        {"lr_scheduler_type": "cosine", "optim": "sgd", "logging_strategy": "no"},
    ],
)
def test_settings_that_fit_together_are_taken(settings: dict[str, Any]) -> None:
    assert isinstance(make_arguments(Path("unused"), 0, settings, evaluate=True), GMPATLTrainingArguments)


def test_a_run_names_the_stage_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", recipe_dict(tmp_path / "nothing"))
    words = ["run", str(recipe), "--output-dir", str(tmp_path / "run")]
    assert main([*words, "--set", "stages.finetune.eval_strategy=no"]) == 2
    told = capsys.readouterr().err
    assert "stages.finetune: eval_strategy is 'no', and save_strategy is 'epoch'" in told
    assert "fix: load_best_model_at_end: false" in told


@pytest.mark.parametrize(
    ("settings", "found", "fix"),
    [
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type is 'cosine_with_min_lr': ", "linear, or"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "lr_scheduler_type is 'warmup_stable_decay': ", "linear, or"),
        ({"lr_scheduler_kwargs": {"foo": 1}}, "lr_scheduler_type is 'linear': ", "linear, or"),
        ({"optim": "galore_adamw"}, "optim is 'galore_adamw': ", "optim: adamw_torch"),
        ({"learning_rate": -1.0}, "lr_scheduler_type is 'linear': Invalid learning rate", "linear, or"),
        ({"optim_args": "foo"}, "optim_args is 'foo'", "momentum=0.9"),
        ({"log_level": "foo"}, "log_level is 'foo'", "leave log_level out"),
        ({"max_seconds": 0.001}, "max_seconds is 0.001", "max_seconds"),
    ],
)
def test_what_would_fail_when_the_training_begins_is_refused_before(
    settings: dict[str, Any], found: str, fix: str
) -> None:
    with pytest.raises(RequestError) as caught:
        arguments = make_arguments(Path("unused"), 0, settings, evaluate=True)
        refuse_unusable_optimizer(arguments)
    assert caught.value.found.startswith(found) and fix in str(caught.value.fix)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}},
        {"lr_scheduler_type": "polynomial", "optim": "sgd"},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"min_lr": [1e-6, 1e-7]}},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "learning_rate": 0.0, "log_level": "info"},
    ],
)
def test_schedules_and_optimisers_that_can_be_made_are_taken(settings: dict[str, Any]) -> None:
    arguments = make_arguments(Path("unused"), 0, settings, evaluate=True)
    refuse_unusable_optimizer(arguments)


def test_a_recipe_with_such_a_setting_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "x.yaml", recipe_dict(tmp_path))
    assert main(["run", str(recipe), "--set", "stages.finetune.lr_scheduler_type=cosine_with_min_lr"]) == 2
    said = capsys.readouterr().err
    assert "finetune" in said and "lr_scheduler_type is 'cosine_with_min_lr'" in said


@pytest.mark.parametrize(
    ("name", "usual"),
    [("lr", "learning_rate"), ("batch_size", "per_device_train_batch_size"), ("epochs", "num_train_epochs")],
)
def test_names_that_arguments_have_elsewhere_are_understood(
    name: str, usual: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "x.yaml", recipe_dict(tmp_path))
    assert main(["run", str(recipe), "--set", f"stages.finetune.{name}=3"]) == 2
    assert f"did you mean `{usual}`?" in capsys.readouterr().err


def test_a_corpus_that_is_one_word_is_told_how_to_write_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path / "x.yaml", recipe_dict(tmp_path))
    assert main(["run", str(recipe), "--set", "corpus=mine.py"]) == 2
    assert "fix: corpus: {name: mine.py}" in capsys.readouterr().err
