"""What users of transformers expect of any model: the stock trainer, Auto classes, wrappers, compilers, quantisers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    HubertForSequenceClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from gmp_atl_hf import HubertForGMPATL, HubertForGMPATLFrameClassification, HubertForGMPATLMultiTask
from gmp_atl_hf.checkpoints import default_feature_extractor, load_emotion_model
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.hub.trainer_card import trainer_card
from gmp_atl_hf.modeling.encoding_gmp_atl import GMPATLModel
from models import EMOTIONS, MODELS, build, gradients, make_clips, pad, tiny_hubert_config

SHAPES = pytest.mark.parametrize("shape", ["base", "large"])
BATCH = pad(make_clips([4_000, 9_000]))


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    default_feature_extractor(model.config).save_pretrained(folder)
    return folder


def compute_metrics(eval_pred: Any) -> dict[str, float]:
    """That of the Hugging Face guide to audio classification."""
    predictions = np.argmax(eval_pred.predictions, axis=1)
    return {"accuracy": float(np.mean(predictions == eval_pred.label_ids))}


def test_the_guide_to_audio_classification_trains_and_evaluates_a_checkpoint(tmp_path: Path) -> None:
    # Also the way of transformers' run_audio_classification.py: labels numbered as text, configuration first.
    folder = saved(build(HubertForGMPATL), tmp_path / "model")
    names = ["sad", "happy", "angry"]
    config = AutoConfig.from_pretrained(
        folder,
        num_labels=3,
        label2id={name: str(index) for index, name in enumerate(names)},
        id2label={str(index): name for index, name in enumerate(names)},
        finetuning_task="audio-classification",
    )
    extractor = AutoFeatureExtractor.from_pretrained(folder, return_attention_mask=True)
    model = AutoModelForAudioClassification.from_pretrained(folder, config=config, ignore_mismatched_sizes=True)
    model.freeze_feature_encoder()
    clips = make_clips([4_000, 9_000, 5_000])
    rows = [{**extractor(clip.numpy(), sampling_rate=16_000), "label": index} for index, clip in enumerate(clips)]
    rows = [{**row, "input_values": row["input_values"][0], "attention_mask": row["attention_mask"][0]} for row in rows]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            str(tmp_path), num_train_epochs=1, eval_strategy="epoch", use_cpu=True, report_to=[], save_strategy="no"
        ),
        train_dataset=rows,  # type: ignore[arg-type]
        eval_dataset=rows,  # type: ignore[arg-type]
        processing_class=extractor,
        compute_metrics=compute_metrics,
    )
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] in (0.0, 1 / 3, 2 / 3, 1.0)
    predicted = trainer.predict(rows).predictions  # type: ignore[arg-type]
    trainer.save_model(str(tmp_path / "trained"))
    spoken = pipeline("audio-classification", model=str(tmp_path / "trained"))(clips[0].numpy(), top_k=1)
    assert spoken[0]["label"] == names[int(predicted[0].argmax())]


@pytest.mark.parametrize("stale", [False, True], ids=["", "with the code's place of a classifier"])
@pytest.mark.parametrize("model_class", MODELS[:2])
def test_a_head_that_was_never_trained_is_refused(model_class: Any, stale: bool, tmp_path: Path) -> None:
    folder = saved(build(model_class), tmp_path)
    if stale:
        fields = json.loads((folder / "config.json").read_text())
        fields["auto_map"]["AutoModelForAudioClassification"] = "modeling_gmp_atl.HubertForGMPATL"
        (folder / "config.json").write_text(json.dumps(fields))
    for trust in (None, True):
        for load in (
            lambda trust=trust: AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=trust),
            lambda trust=trust: pipeline("audio-classification", model=str(folder), trust_remote_code=trust),
            lambda trust=trust: pipeline("speech-emotion-recognition", model=str(folder), trust_remote_code=trust),
        ):
            with pytest.raises(ValueError, match=f"has no trained emotion head: it is a {model_class.__name__}"):
                load()
    with pytest.raises(RequestError, match=model_class.__name__):
        load_emotion_model(str(folder))
    # By its own name the class begins a new head, as every step of the method does.
    assert HubertForGMPATL.from_pretrained(folder).config.emotions == list(EMOTIONS)


@pytest.mark.parametrize("model_class", MODELS)
def test_the_tag_of_a_pushed_model_is_a_task_that_loads_it(model_class: Any) -> None:
    state: Any = SimpleNamespace(best_metric=None, global_step=1)
    args: Any = SimpleNamespace(metric_for_best_model=None, seed=0)
    task = "audio-classification" if model_class is HubertForGMPATL else "feature-extraction"
    assert f"pipeline_tag: {task}\n" in trainer_card(build(model_class), state, args, "someone/model")


@pytest.mark.parametrize("model_class", MODELS)
@torch.no_grad()
def test_the_encoder_of_every_model_gives_embeddings(model_class: Any, tmp_path: Path) -> None:
    model = build(model_class)
    encoder = AutoModel.from_pretrained(saved(model, tmp_path))
    assert type(encoder) is GMPATLModel
    output = encoder(**BATCH)
    assert torch.equal(output.last_hidden_state, model.encode(**BATCH).last_hidden_state)
    assert output.frame_mask.sum(1).tolist() == [12, 27]


@pytest.mark.parametrize("keywords", [{"output_attention": True}, {"labls": torch.zeros(2)}])
def test_an_argument_that_nobody_knows_is_refused_unless_it_is_none(keywords: dict[str, Any]) -> None:
    model = build(HubertForGMPATL)
    with pytest.raises(TypeError, match=next(iter(keywords))):
        model(**BATCH, **keywords)
    assert torch.equal(model(**BATCH, **dict.fromkeys(keywords)).logits, model(**BATCH).logits)


def test_labels_may_come_in_a_column_of_their_own() -> None:
    labels, genders = torch.tensor([1, -100]), torch.tensor([1, 0])
    for model_class, given in (
        (HubertForGMPATL, {"labels": labels}),
        (HubertForGMPATLMultiTask, {"labels": labels, "gender_labels": genders}),
    ):
        for fields in ({}, {"emotion_loss": "cross-entropy"}):
            model = build(model_class, **fields)
            columns = {name: value[:, None] for name, value in given.items()}
            assert torch.equal(model(**BATCH, **columns).loss, model(**BATCH, **given).loss)


@pytest.mark.parametrize("task", [TaskType.SEQ_CLS, TaskType.FEATURE_EXTRACTION])
@pytest.mark.parametrize("reentrant", [False, True])
@SHAPES
def test_adapters_of_any_task_are_trained(shape: str, task: Any, reentrant: bool) -> None:
    torch.manual_seed(0)
    model = build(HubertForGMPATL, shape)
    logits = model(**BATCH).logits
    adapted: Any = get_peft_model(model, LoraConfig(task_type=task, target_modules=["q_proj"], init_lora_weights=False))
    adapted.gradient_checkpointing_enable({"use_reentrant": reentrant})
    adapted.train()
    output = adapted(**BATCH, labels=torch.tensor([0, 1]))
    assert not torch.equal(output.logits, logits)
    output.loss.backward()
    assert all(grad.abs().sum() > 0 for name, grad in gradients(adapted).items() if "lora" in name)


@pytest.mark.parametrize("frozen", ["nothing", "first convolution", "front end"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("model_class", MODELS)
@SHAPES
def test_no_gradient_is_lost_to_checkpointing(shape: str, model_class: Any, padded: bool, frozen: str) -> None:
    # In float64: in float32 the order of sums, which threads change, alone differs by more than the bound.
    model = build(model_class, shape, frame_targets="all").double().train()
    if frozen == "front end":
        model.freeze_feature_encoder()
    elif frozen == "first convolution":
        model.hubert.feature_extractor.conv_layers[0].requires_grad_(False)
    batch = dict(BATCH) if padded else {"input_values": torch.stack(make_clips([9_000, 9_000]))}
    batch["input_values"] = batch["input_values"].double()
    targets = {"labels": torch.tensor([0, 1])}
    if model_class is HubertForGMPATLFrameClassification:
        targets = {"frame_labels": torch.randint(0, 5, (2, 27, 2))}
    found = []
    for settings in (None, {"use_reentrant": True}, {"use_reentrant": False}):
        if settings is not None:
            model.gradient_checkpointing_enable(settings)
        model(**batch, **targets).loss.backward()
        found.append(gradients(model))
    for others in found[1:]:
        assert found[0].keys() == others.keys()
        for name, grad in found[0].items():
            torch.testing.assert_close(others[name], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_freezing_the_base_model_leaves_the_heads() -> None:
    for model_class in MODELS:
        model = build(model_class)
        model.freeze_base_model()
        assert {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad}.isdisjoint(
            {"hubert"}
        )
        assert any(value.requires_grad for value in model.parameters())


@SHAPES
@torch.no_grad()
def test_a_quantised_model_computes_nearly_the_same(shape: str) -> None:
    for model_class, field in ((HubertForGMPATL, "logits"), (HubertForGMPATLMultiTask, "gender_logits")):
        model = build(model_class, shape)
        quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        assert type(quantised.hubert.feature_projection.projection) is not torch.nn.Linear
        close = torch.nn.functional.cosine_similarity(quantised(**BATCH)[field], model(**BATCH)[field])
        assert float(close.min()) > 0.9


@torch.no_grad()
def test_weights_of_eight_bits_do_not_round_what_goes_into_them() -> None:
    class EightBits(torch.nn.Linear):
        """As bitsandbytes has it: whole numbers and a scale."""

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            assert values.is_floating_point()
            return torch.nn.functional.linear(values, self.weight.float() * self.scale, self.bias)

    model = build(HubertForGMPATL)
    logits = model(**BATCH).logits
    for module in list(model.hubert.modules()):
        if type(module) is torch.nn.Linear:
            module.__class__, module.scale = EightBits, module.weight.abs().max() / 127
            rounded = (module.weight / module.scale).round().to(torch.int8)
            module.weight = torch.nn.Parameter(rounded, requires_grad=False)
    assert float(torch.nn.functional.cosine_similarity(model(**BATCH).logits, logits).min()) > 0.95


@torch.no_grad()
def test_the_whole_model_is_one_graph() -> None:
    model = build(
        HubertForGMPATL, num_hidden_layers=1
    )  # base shape, padded: the group norm looks at every clip's length
    compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(**BATCH).logits, model(**BATCH).logits, atol=1e-4)


def test_attributes_are_those_of_the_stock_classifier() -> None:
    stock = HubertForSequenceClassification(tiny_hubert_config())
    for model_class in MODELS:
        model = build(model_class)
        assert [name for name in dir(stock) if not name.startswith("_") and not hasattr(model, name)] in (
            [],
            ["classifier", "projector"],
            ["projector"],
        )
