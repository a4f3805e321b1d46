"""What the settings do to a training, and which requests are refused before it starts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import ClassLabel, Dataset, Value

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import (
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from gmp_atl_hf.run.stages import make_arguments
from gmp_atl_hf.training import bfloat16_on_cpu as attention
from gmp_atl_hf.training import checks
from gmp_atl_hf.training.arguments import GMPATLTrainingArguments
from gmp_atl_hf.training.trainer import GMPATLTrainer
from tables import LABELS, changed, feature_extractor, small_model, speech_table, training_arguments, weights_of

TABLE = speech_table(9)


def trainer_for(model: Any, folder: Path, table: Any = TABLE, **fields: Any) -> GMPATLTrainer:
    return GMPATLTrainer(
        model, training_arguments(folder, **{"max_steps": 3, **fields}), table, processing_class=feature_extractor()
    )


def losses(trainer: GMPATLTrainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# ---- refused before training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_class", "column"),
    [
        (HubertForGMPATL, "audio"),
        (HubertForGMPATL, "num_samples"),
        (HubertForGMPATL, "emotion"),
        (HubertForGMPATLMultiTask, "emotion"),
        (HubertForGMPATLFrameClassification, "gmp_layer1_k7"),
    ],
)
@pytest.mark.parametrize("role", ["train_dataset", "eval_dataset"])
def test_a_missing_column_is_named(model_class: Any, column: str, role: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"no column {column}; it has .*id.*\n  expected: {column}: ") as caught:
        GMPATLTrainer(
            small_model(model_class),
            training_arguments(tmp_path),
            processing_class=feature_extractor(),
            **{role: TABLE.remove_columns(column)},
        )
    assert ("attach_pseudo_labels" in str(caught.value)) == column.startswith("gmp_")


def test_every_missing_pseudo_label_column_is_named(tmp_path: Path) -> None:
    table = TABLE.remove_columns(["gmp_layer1_k5", "gmp_layer1_k7"])
    with pytest.raises(RequestError, match="gmp_layer1_k5, gmp_layer1_k7"):
        trainer_for(small_model(HubertForGMPATLFrameClassification), tmp_path, table)


def test_a_table_of_other_emotions_or_another_order_is_refused(tmp_path: Path) -> None:
    for names in (["anger", "neutral"], LABELS[::-1]):
        model = small_model(HubertForGMPATL, id2label=dict(enumerate(names)), label2id=None)
        with pytest.raises(RequestError, match="the table's emotions are .*'sadness'.* the model's are"):
            trainer_for(model, tmp_path)


@pytest.mark.parametrize("kind", ["string", "int64"])
def test_emotions_that_are_text_or_numbers_are_told_to_be_encoded(kind: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no emotion of datasets.ClassLabel(.|\n)*class_encode_column"):
        trainer_for(small_model(HubertForGMPATL), tmp_path, TABLE.cast_column("emotion", Value(kind)))


@pytest.mark.parametrize(
    ("given", "found"), [("mini", "processing_class is 'mini'"), ([], "processing_class is of type list")]
)
def test_what_is_no_feature_extractor_is_refused(given: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"{found}(.|\n)*load_feature_extractor"):
        GMPATLTrainer(small_model(HubertForGMPATL), training_arguments(tmp_path), TABLE, processing_class=given)


def test_a_front_end_cache_that_is_a_file_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "call.wav").write_text("kept")
    trainer = GMPATLTrainer(
        small_model(HubertForGMPATL),
        training_arguments(tmp_path / "out", max_steps=1, freeze_feature_encoder=True),
        TABLE,
        processing_class=feature_extractor(),
        front_end_cache=tmp_path / "call.wav",
    )
    with pytest.raises(RequestError, match="front_end_cache is .*call.wav.*, which is no folder"):
        trainer.train()
    assert (tmp_path / "call.wav").read_text() == "kept"


def test_a_table_with_the_genders_the_other_way_round_is_refused(tmp_path: Path) -> None:
    features = TABLE.features.copy()
    features["gender"] = ClassLabel(names=["male", "female"])
    with pytest.raises(RequestError, match="genders are .*'male', 'female'"):
        trainer_for(small_model(HubertForGMPATLMultiTask), tmp_path, TABLE.cast(features))


def with_values(column: str, *values: Any) -> Dataset:
    """The table with other values in the first rows of a column."""
    stored = [*values, *TABLE[column][len(values) :]]
    place = TABLE.column_names.index(column)
    field = TABLE.data.schema.field(column)
    return Dataset(TABLE.data.table.set_column(place, field, pa.array(stored, field.type)))


@pytest.mark.parametrize(
    ("model_class", "column", "values", "found", "expected"),
    [
        (HubertForGMPATL, "emotion", (2, None, -1), "2 of 9 .* tones/1 has None, tones/2 has -1", "from 0 to 2 in"),
        (HubertForGMPATLMultiTask, "emotion", (3, -100), "2 of 9 .* tones/0 has 3, tones/1 has -100", "anger, neu"),
        (HubertForGMPATLMultiTask, "gender", (None, 1, -1, 2), "2 of 9 .* tones/2 has -1", "None where not known"),
        (HubertForGMPATLFrameClassification, "gmp_layer1_k5", ([-100, 4], [0, 6]), "1 of 9 .* tones/1 has 6", "to 4 "),
        (HubertForGMPATLFrameClassification, "gmp_layer1_k7", ([6], [-1] * 9), "1 of 9 .* tones/1 has -1", "0 to 6 "),
        (HubertForGMPATLFrameClassification, "gmp_layer1_k7", (None, [6, None]), "2 of 9 .* tones/1 has None", "-100"),
        (HubertForGMPATL, "num_samples", (None, 0), "2 of 9 .* tones/0 has None, tones/1 has 0", "above 0"),
    ],
)
@pytest.mark.parametrize("role", ["train_dataset", "eval_dataset"])
def test_rows_that_cannot_be_used_are_counted_and_named(
    model_class: Any, column: str, values: Any, found: str, expected: str, role: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=rf"{found}.*\n  expected: .*{expected}.*\n  fix: ") as caught:
        GMPATLTrainer(
            small_model(model_class),
            training_arguments(tmp_path),
            processing_class=feature_extractor(),
            **{role: with_values(column, *values)},
        )
    assert column in caught.value.found


def test_rows_are_found_by_their_place_in_a_table_that_was_put_in_another_order(tmp_path: Path) -> None:
    table = with_values("gmp_layer1_k5", [9], [0, 9]).select([8, 1, 0, 7])
    with pytest.raises(RequestError, match=r"2 of 4 .* tones/1 has 9, tones/0 has 9"):
        trainer_for(small_model(HubertForGMPATLFrameClassification), tmp_path, table)


def test_a_table_without_emotions_gets_scores_but_one_with_some_gets_no_figures_of_a_part(tmp_path: Path) -> None:
    trainer = trainer_for(small_model(HubertForGMPATL), tmp_path)
    none, some = with_values("emotion", *[None] * 9), with_values("emotion", None)
    output = trainer.predict(none)
    assert output.predictions.shape == (9, 3) and "test_war" not in output.metrics
    for call, table in ((trainer.evaluate, none), (trainer.evaluate, some), (trainer.predict, some)):
        with pytest.raises(RequestError, match="of 9 rows cannot be used by their emotion: tones/0 has None"):
            call(table)


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no rows"):
        trainer_for(small_model(HubertForGMPATL), tmp_path, TABLE.select([]))


def test_a_frame_model_without_scales_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no frame_scales"):
        trainer_for(small_model(HubertForGMPATLFrameClassification, frame_scales={}), tmp_path)


def test_early_stopping_on_frame_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="early_stopping_patience is 2"):
        trainer_for(small_model(HubertForGMPATLFrameClassification), tmp_path, early_stopping_patience=2)


def test_a_table_to_predict_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no column num_samples"):
        trainer_for(small_model(HubertForGMPATL), tmp_path).predict(TABLE.remove_columns("num_samples"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_seconds", 0),
        ("batch_seconds", -1.0),
        ("head_learning_rate", 0.0),
        ("head_epochs", -1),
        ("layer_decay", 0.0),
        ("layer_decay", 1.5),
        ("early_stopping_patience", 0),
        ("class_weights", "even"),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{field} is .*expected"):
        GMPATLTrainingArguments(output_dir=str(tmp_path), **{field: value})


def test_class_weights_of_the_wrong_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 numbers for 3 emotions"):
        trainer_for(small_model(HubertForGMPATL), tmp_path, class_weights=[1.0, 2.0])


@pytest.mark.parametrize(
    ("field", "value"),
    [("label_smoothing_factor", 0.1), ("dataloader_drop_last", True), ("train_sampling_strategy", "group_by_length")],
)
def test_an_argument_that_would_change_nothing_is_refused(field: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"{field} is {value!r}, which this trainer does not look at"):
        trainer_for(small_model(HubertForGMPATL), tmp_path, **{field: value})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_loaded_in_half_precision_is_trained_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL).to(dtype)
    with pytest.warns(UserWarning, match=f"parameters are {dtype}; they are trained in float32"):
        trainer = trainer_for(model, tmp_path)
    assert all(np.isfinite(losses(trainer)))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_model_in_half_precision_may_be_evaluated_as_it_is(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL).to(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GMPATLTrainer(model, training_arguments(tmp_path), None, TABLE, processing_class=feature_extractor())
    assert model.dtype == torch.bfloat16


# ---- what is trained, and how fast -----------------------------------------------------------------------------------


def test_balanced_weights_are_clips_over_emotions_times_clips_of_the_emotion(tmp_path: Path) -> None:
    table = TABLE.remove_columns("emotion").add_column("emotion", [0, 0, 0, 0, 0, 0, 1, 1, 2])
    table = table.cast_column("emotion", ClassLabel(names=LABELS))
    trainer = trainer_for(small_model(HubertForGMPATL), tmp_path, table, class_weights="balanced")
    assert trainer.class_weights is not None
    assert trainer.class_weights.tolist() == pytest.approx([9 / (3 * 6), 9 / (3 * 2), 9 / (3 * 1)])
    frames = trainer_for(small_model(HubertForGMPATLFrameClassification), tmp_path, class_weights="balanced")
    assert frames.class_weights is None


@pytest.mark.parametrize("times", [1, 2])
def test_heads_learn_at_their_own_rate(times: int, tmp_path: Path) -> None:
    model = small_model(HubertForGMPATLMultiTask)
    trainer = trainer_for(
        model, tmp_path, learning_rate=1e-5, head_learning_rate=1e-2, weight_decay=0.1, warmup_steps=2
    )
    for _ in range(times):
        trainer.train()
        rates: dict[int, tuple[float, float]] = {
            id(parameter): (group["initial_lr"], group["weight_decay"])
            for group in trainer.optimizer.param_groups
            for parameter in group["params"]
        }
        assert len(rates) == len(list(model.parameters()))
        for name, parameter in model.named_parameters():
            assert rates[id(parameter)][0] == (1e-5 if name.startswith("hubert.") else 1e-2), name
        assert rates[id(model.gender_classifier.weight)][1] == 0.1
        assert rates[id(model.gender_classifier.bias)][1] == 0.0
        trainer.optimizer = None


@pytest.mark.parametrize("model_class", [HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification, HubertForGMPATL])
def test_every_parameter_gets_a_gradient_so_that_processes_need_not_look_for_others(
    model_class: Any, tmp_path: Path
) -> None:
    model = small_model(model_class)
    trainer = trainer_for(model, tmp_path)
    assert trainer.args.ddp_find_unused_parameters is False
    # An empty batch, as a process gets it when there are fewer clips than batches.
    trainer = trainer_for(model, tmp_path, TABLE.remove_columns("gender").select([0]), gradient_accumulation_steps=2)
    batches = list(trainer.get_train_dataloader())
    assert [batch.get("labels", batch.get("frame_labels")).max().item() == -100 for batch in batches] == [False, True]
    trainer.compute_loss(model.train(), batches[1]).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


def test_unused_parameters_are_looked_for_where_asked_or_where_layers_drop(tmp_path: Path) -> None:
    assert trainer_for(
        small_model(HubertForGMPATL), tmp_path, ddp_find_unused_parameters=True
    ).args.ddp_find_unused_parameters
    assert trainer_for(small_model(HubertForGMPATL, layerdrop=0.1), tmp_path).args.ddp_find_unused_parameters is None


@pytest.mark.parametrize(
    ("fields", "frozen"),
    [
        ({"freeze_feature_encoder": True}, "hubert.feature_extractor."),
        ({"freeze_feature_encoder": True, "freeze_encoder": True}, "hubert."),
        ({"freeze_feature_encoder": False}, None),
    ],
)
def test_what_is_frozen_stays_and_everything_else_learns(
    fields: dict[str, bool], frozen: str | None, tmp_path: Path
) -> None:
    model = small_model(HubertForGMPATL)
    before = weights_of(model)
    trainer_for(model, tmp_path, learning_rate=1e-2, **fields).train()
    expected = {name for name in before if frozen is None or not name.startswith(frozen)}
    assert changed(before, weights_of(model)) == expected


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_gradient_checkpointing_changes_memory_and_nothing_else(tmp_path: Path) -> None:
    fields = {"learning_rate": 1e-3, "class_weights": "balanced"}
    # With dropout, so that the second forward pass must draw the same.
    plain, saving = (small_model(HubertForGMPATLMultiTask, dropout=0.2) for _ in range(2))
    expected = losses(trainer_for(plain, tmp_path, **fields))
    assert losses(trainer_for(saving, tmp_path, gradient_checkpointing=True, **fields)) == pytest.approx(
        expected, rel=1e-6
    )
    assert any(
        module.gradient_checkpointing for module in saving.modules() if hasattr(module, "gradient_checkpointing")
    )
    for name, value in weights_of(plain).items():
        torch.testing.assert_close(saving.state_dict()[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("model_class", [HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification, HubertForGMPATL])
def test_half_precision_trains_with_losses_near_those_of_full_precision(model_class: Any, tmp_path: Path) -> None:
    # A layer norm over the eight channels of the other tests would make rounding large, and so would a scale of 30.
    fields = {"conv_dim": (48,) * 7, "am_softmax_scale": 5.0}
    full = losses(trainer_for(small_model(model_class, **fields), tmp_path))
    model = small_model(model_class, **fields)
    half_trainer = trainer_for(model, tmp_path, bf16=True)
    half = losses(half_trainer)
    assert half_trainer.accelerator.mixed_precision == "bf16"
    assert np.isfinite(half).all()
    assert half != full, "autocast was not on"
    assert half == pytest.approx(full, rel=0.15)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert np.isfinite(half_trainer.evaluate(TABLE)["eval_loss"])


def test_loader_workers_change_nothing(tmp_path: Path) -> None:
    alone, helped = (
        losses(trainer_for(small_model(HubertForGMPATL, dropout=0.2), tmp_path, dataloader_num_workers=workers))
        for workers in (0, 2)
    )
    assert alone == helped


def test_several_gpus_in_one_process_are_not_used_together(tmp_path: Path) -> None:
    arguments = training_arguments(tmp_path)
    assert arguments.n_gpu <= 1
    arguments._n_gpu = 2  # as on a machine with two
    trainer = GMPATLTrainer(small_model(HubertForGMPATL), arguments, TABLE, processing_class=feature_extractor())
    assert trainer.args.n_gpu == 1
    assert arguments.n_gpu == 2


def test_same_seed_same_training_and_another_seed_another(tmp_path: Path) -> None:
    def trained(seed: int) -> dict[str, torch.Tensor]:
        model = small_model(HubertForGMPATL, dropout=0.2)
        trainer_for(model, tmp_path, seed=seed).train()
        return weights_of(model)

    first = trained(1)
    assert changed(first, trained(1)) == set()
    assert changed(first, trained(2)) != set()


def test_bf16_without_a_gpu_means_the_processors(tmp_path: Path) -> None:
    arguments = make_arguments(tmp_path, 0, {"bf16": True}, evaluate=False)
    assert arguments.bf16 and arguments.use_cpu != torch.accelerator.is_available()


def test_a_model_that_is_trained_further_says_whom_it_was_trained_on_since(tmp_path: Path) -> None:
    nameless = speech_table(6)
    table = nameless.add_column("speaker", [f"tones/{number % 2}" for number in range(6)])
    model = small_model(HubertForGMPATL)
    model.config.seen_speakers = ["other/old"]
    arguments = training_arguments(tmp_path, max_steps=1)
    GMPATLTrainer(model, arguments, table, table, feature_extractor()).train()
    assert model.config.seen_speakers == ["other/old", "tones/0", "tones/1"]
    GMPATLTrainer(model, arguments, nameless, nameless, feature_extractor()).train()
    assert model.config.seen_speakers == ["other/old", "tones/0", "tones/1", "unknown"]
    model.config.seen_speakers = None  # as in a model that is older than the record
    GMPATLTrainer(model, arguments, table, {"a": table}, feature_extractor()).train()
    assert model.config.seen_speakers == ["tones/0", "tones/1", "unknown"]


@pytest.mark.parametrize(
    ("fields", "has_it", "chosen", "in_training"),
    [
        ({"bf16": True}, True, "sdpa", "eager"),
        ({"bf16": True}, False, "sdpa", "sdpa"),
        ({}, True, "sdpa", "sdpa"),
        ({"bf16": True}, True, "eager", "eager"),
    ],
)
def test_fused_attention_gives_way_where_its_half_precision_is_slow(
    fields: dict[str, bool],
    has_it: bool,
    chosen: str,
    in_training: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "has_native_bfloat16", lambda: has_it)
    model = small_model(HubertForGMPATL)
    model.set_attn_implementation(chosen)
    seen: set[tuple[bool, str]] = set()
    model.register_forward_pre_hook(lambda *_: seen.add((model.training, model.config._attn_implementation)))
    trainer = trainer_for(model, tmp_path, **fields)
    trainer.train()
    trainer.evaluate(TABLE)
    assert seen == {(True, in_training), (False, chosen)}


@pytest.mark.parametrize("has_it", [True, False])
def test_bf16_on_a_processor_without_it_is_warned_of(
    has_it: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "has_native_bfloat16", lambda: has_it)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer_for(small_model(HubertForGMPATL), tmp_path, bf16=True)
        trainer_for(small_model(HubertForGMPATL), tmp_path)
    assert sum("bf16: false" in str(warning.message) for warning in caught) == (not has_it)
