"""What users of transformers' Trainer are used to: it works here where it has a meaning, else it is refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from transformers import HfArgumentParser, Trainer, TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from gmp_atl_hf.data.columns import replace_column
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.evaluation.calibration import TEMPERATURE_RANGE
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL, HubertForGMPATLFrameClassification
from gmp_atl_hf.training.arguments import GMPATLTrainingArguments
from gmp_atl_hf.training.checks import UNUSED_ARGUMENTS
from gmp_atl_hf.training.trainer import GMPATLTrainer
from models import build_backbone
from tables import feature_extractor, small_model, speech_table, training_arguments

TABLE = speech_table(6)
FRAMES = small_model(HubertForGMPATLFrameClassification)


def trainer_for(folder: Path, model: Any = None, tables: Any = (TABLE, TABLE), **given: Any) -> GMPATLTrainer:
    parameters = {"processing_class": feature_extractor(), **given}
    arguments = parameters.pop("args", None) or training_arguments(folder, max_steps=1)
    return GMPATLTrainer(model or small_model(HubertForGMPATL), arguments, *tables, **parameters)


# ---- the direction of a figure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "more"),
    [
        *((f"{prefix}{figure}", False) for prefix in ("", "eval_") for figure in ("loss", "loss_emotion", "a_loss_x")),
        *((f"{prefix}{figure}", True) for prefix in ("", "eval_") for figure in ("uar", "macro_f1", "accuracy_gender")),
        ("eval_log_loss", False),
        ("ece", False),
    ],
)
def test_the_best_model_is_chosen_by_the_figures_own_direction_unless_told_otherwise(metric: str, more: bool) -> None:
    chosen = GMPATLTrainingArguments(metric_for_best_model=metric)
    assert chosen.greater_is_better is more
    assert dataclasses.replace(chosen).greater_is_better is more
    assert (
        GMPATLTrainingArguments(metric_for_best_model=metric, greater_is_better=not more).greater_is_better is not more
    )


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "loss_emotion"])
def test_the_checkpoint_with_the_least_loss_is_kept(metric: str, tmp_path: Path) -> None:
    every = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    arguments = training_arguments(
        tmp_path, max_steps=4, learning_rate=3e-2, metric_for_best_model=metric, load_best_model_at_end=True, **every
    )
    trainer = trainer_for(tmp_path, args=arguments)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.state.best_metric == min(losses) != max(losses)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize(("metric", "mode"), [("uar", "max"), ("loss", "min")])
def test_a_schedule_that_follows_a_figure_knows_its_direction(metric: str, mode: str, tmp_path: Path) -> None:
    follow = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}
    arguments = training_arguments(tmp_path, metric_for_best_model=metric, **follow)
    trainer = trainer_for(tmp_path, args=arguments)
    trainer.create_optimizer_and_scheduler(5)
    assert trainer.lr_scheduler.mode == mode


def test_a_figure_that_there_is_none_of_is_refused_before_training(tmp_path: Path) -> None:
    def ask(metric: str, tables: Any = (TABLE, TABLE), **given: Any) -> GMPATLTrainer:
        arguments = training_arguments(tmp_path, metric_for_best_model=metric, eval_strategy="epoch")
        return trainer_for(tmp_path, tables=tables, args=arguments, **given)

    with pytest.raises(RequestError, match="metric_for_best_model is 'urr'\n.*uar, war"):
        ask("urr")
    with pytest.raises(RequestError, match="'uar'\n.*a_uar"):
        ask("uar", (TABLE, {"a": TABLE, "b": TABLE}))
    ask("eval_b_uar", (TABLE, {"a": TABLE, "b": TABLE}))
    ask("mine", compute_metrics=lambda _: {"mine": 1.0})


# ---- arguments and parameters ----------------------------------------------------------------------------------------

OTHER_VALUES: dict[str, Any] = {
    "label_smoothing_factor": 0.1,
    "average_tokens_across_devices": False,
    "dataloader_in_order": False,
    "train_sampling_strategy": "group_by_length",
    "length_column_name": "seconds",
    "include_num_input_tokens_seen": "all",
    "include_for_metrics": ["inputs", "loss"],
    "eval_do_concat_batches": False,
    "label_names": ["emotion"],
    "neftune_noise_alpha": 5.0,
    "liger_kernel_config": {"rope": True},
    "parallelism_config": object(),
}


@pytest.mark.parametrize("name", UNUSED_ARGUMENTS)
def test_an_argument_that_nobody_looks_at_is_refused_by_name(name: str, tmp_path: Path) -> None:
    arguments = training_arguments(tmp_path)
    setattr(arguments, name, OTHER_VALUES.get(name, True))
    with pytest.raises(RequestError, match=f"{name} is .*does not look at"):
        trainer_for(tmp_path, args=arguments)


def test_batches_are_not_left_to_accelerate(tmp_path: Path) -> None:
    arguments = training_arguments(tmp_path, accelerator_config=AcceleratorConfig(dispatch_batches=True))
    with pytest.raises(RequestError, match="accelerator_config has dispatch_batches True"):
        trainer_for(tmp_path, args=arguments)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"processing_class": None}, "processing_class is None"),
        ({"model_init": lambda: small_model(HubertForGMPATL)}, "no model_init"),
        ({"compute_loss_func": lambda *_, **__: 0}, "no compute_loss_func"),
        ({"model": build_backbone()}, "model is a HubertModel"),
        ({"tables": (TABLE.to_iterable_dataset(),)}, "the table is a datasets IterableDataset"),
        ({"tables": (TABLE, torch.utils.data.Subset(TABLE, [0]))}, "the table is a torch Subset"),
        ({"tables": (DatasetDict(train=TABLE),)}, "the table is a datasets DatasetDict"),
        ({"tables": (TABLE, {"a": list(TABLE)})}, "the table is a builtins list"),
        (
            {"model": small_model(HubertForGMPATLFrameClassification), "compute_metrics": dict},
            "compute_metrics is given",
        ),
        ({"args": "out"}, "args is a str"),
    ],
)
def test_a_parameter_without_meaning_is_refused_by_name(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said):
        trainer_for(tmp_path, **given)


def test_a_search_and_two_ways_to_choose_rates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="hyperparameter_search"):
        trainer_for(tmp_path).hyperparameter_search(n_trials=2)
    model = small_model(HubertForGMPATL)
    arguments = training_arguments(tmp_path, head_learning_rate=1e-3)
    with pytest.raises(RequestError, match="optimiser of your own"):
        trainer_for(tmp_path, model, args=arguments, optimizers=(torch.optim.SGD(model.parameters(), 0.1), None))
    pickles = training_arguments(tmp_path, push_to_hub=True, hub_strategy="all_checkpoints")
    with pytest.raises(RequestError, match="hub_strategy is 'all_checkpoints'"):
        trainer_for(tmp_path, args=pickles)


def test_several_tables_are_evaluated_by_name(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, tables=(TABLE, {"a": TABLE, "b": TABLE.select([0, 1])}))
    metrics = trainer.evaluate()
    assert metrics["eval_a_uar"] == trainer.evaluate(TABLE)["eval_uar"]
    assert metrics["eval_b_loss"] == pytest.approx(trainer.evaluate(TABLE.select([0, 1]))["eval_loss"])


def test_stock_arguments_get_the_further_fields(tmp_path: Path) -> None:
    stock = TrainingArguments(
        str(tmp_path), use_cpu=True, max_steps=1, metric_for_best_model="loss_emotion", report_to="none"
    )
    trainer = trainer_for(tmp_path, args=stock)
    trainer.train()
    assert trainer.args.freeze_feature_encoder and trainer.args.max_steps == 1
    assert trainer.args.greater_is_better is False


def test_logits_are_preprocessed_as_asked_before_metrics_and_predictions(tmp_path: Path) -> None:
    seen = []

    def accuracy(prediction: Any) -> dict[str, float]:
        seen.append(prediction.predictions.shape)
        return {"same": float((prediction.predictions == prediction.label_ids).mean())}

    model = small_model(HubertForGMPATL)
    trainer = trainer_for(
        tmp_path,
        model,
        compute_metrics=accuracy,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(dim=-1),
    )
    metrics = trainer.evaluate()
    assert metrics["eval_same"] == metrics["eval_war"]
    assert seen == [(len(TABLE),)]
    logits = trainer_for(tmp_path, model).predict(TABLE).predictions
    np.testing.assert_array_equal(trainer.predict(TABLE).predictions, logits.argmax(-1))


@pytest.mark.parametrize("shown", [lambda logits, _: logits.softmax(-1), lambda logits, _: logits.argmax(-1)])
def test_the_temperature_is_that_of_the_models_own_logits(tmp_path: Path, shown: Any) -> None:
    table, model = speech_table(11), small_model(HubertForGMPATL)
    tables, dev = (table.select(range(3)), None), table.select(range(3, 11))
    said = trainer_for(tmp_path, model, tables).predict(dev).predictions.argsort(-1)
    # Right in six of eight, so that the best temperature is not at an end of the range.
    dev = replace_column(dev, "emotion", [*said[:6, -1].tolist(), *said[6:, 0].tolist()])
    found = []
    for preprocess in (None, shown):
        model.config.logit_temperature = 1.0
        found.append(trainer_for(tmp_path, model, tables, preprocess_logits_for_metrics=preprocess).calibrate(dev))
    assert found[0] == found[1]
    assert TEMPERATURE_RANGE[0] < found[0] < TEMPERATURE_RANGE[1] and found[0] != 1.0


def test_loaders_are_set_up_as_asked(tmp_path: Path) -> None:
    workers = {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 3, "dataloader_persistent_workers": True}
    trainer = trainer_for(tmp_path, args=training_arguments(tmp_path, dataloader_pin_memory=False, **workers))
    loader = trainer.get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (1, 3, True)


# ---- command lines ---------------------------------------------------------------------------------------------------


def test_arguments_are_read_from_a_command_line_and_from_files(tmp_path: Path) -> None:
    parser = HfArgumentParser(GMPATLTrainingArguments)
    strategies = "--eval_strategy steps --save_strategy steps --report_to none"
    words = "--output_dir x --class_weights balanced --max_seconds 5 --no_freeze_feature_encoder --save_total_limit 2"
    (read,) = parser.parse_args_into_dataclasses(f"{words} {strategies}".split())
    assert (read.class_weights, read.eval_strategy, read.report_to) == ("balanced", "steps", [])
    assert (read.max_seconds, read.freeze_feature_encoder, read.greater_is_better) == (5.0, False, True)
    (plain,) = parser.parse_args_into_dataclasses(["--output_dir", "x"])
    changed = {"logging_dir", "output_dir"}
    defaults = GMPATLTrainingArguments(output_dir="x").to_dict()
    assert {k for k, v in plain.to_dict().items() if v != defaults[k]} <= changed
    (weighed,) = parser.parse_args_into_dataclasses(["--output_dir", "x", "--class_weights", "[1, 2, 0.5]"])
    given = {"output_dir": "x", "class_weights": [1, 2, 0.5], "metric_for_best_model": "loss"}
    (tmp_path / "a.json").write_text(json.dumps(given))
    for read_file in (parser.parse_json_file, parser.parse_yaml_file):
        (read,) = read_file(str(tmp_path / "a.json"))
        assert read.class_weights == weighed.class_weights == [1.0, 2.0, 0.5]
        assert read.greater_is_better is False


# ---- what does not outlive its model ---------------------------------------------------------------------------------


class Batches(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Two clips as the stock trainer takes them."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_values": torch.randn(4000), "attention_mask": torch.ones(4000).long(), "labels": index}


def test_calibration_and_speakers_do_not_outlive_a_training_by_the_stock_trainer(tmp_path: Path) -> None:
    small_model(HubertForGMPATL, logit_temperature=4.57, seen_speakers=["tones/1"]).save_pretrained(tmp_path / "before")
    model = HubertForGMPATL.from_pretrained(tmp_path / "before", num_labels=5, ignore_mismatched_sizes=True)
    arguments = TrainingArguments(str(tmp_path / "out"), use_cpu=True, max_steps=1, report_to="none")
    Trainer(model, arguments, train_dataset=Batches()).train()
    assert model.config.logit_temperature == 1.0
    assert model.config.seen_speakers == ["tones/1", "unknown"]


def test_only_a_training_ends_a_calibration(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL, logit_temperature=4.57, seen_speakers=["tones/1"])
    trainer = trainer_for(tmp_path, model)
    trainer.evaluate()
    assert (model.config.logit_temperature, model.config.seen_speakers) == (4.57, ["tones/1"])
    trainer.train()
    assert (model.config.logit_temperature, model.config.seen_speakers) == (1.0, ["tones/1", "unknown"])


def test_a_plain_hubert_was_trained_on_nobody_of_a_test(tmp_path: Path) -> None:
    build_backbone().save_pretrained(tmp_path / "plain")
    model = HubertForGMPATL.from_pretrained(tmp_path / "plain", id2label={0: "anger", 1: "neutral", 2: "sadness"})
    table = TABLE.add_column("speaker", ["tones/1"] * len(TABLE))
    trainer_for(tmp_path, model, (table, None), args=training_arguments(tmp_path, max_steps=1)).train()
    assert model.config.seen_speakers == ["tones/1"]
