"""Gradients: the same with checkpointing, and one for every trainable parameter whatever a batch lacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gmp_atl_hf import HubertForGMPATL, HubertForGMPATLFrameClassification, HubertForGMPATLMultiTask
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from models import MODELS, POOLINGS, build, gradients, make_clips, pad
from test_modeling_losses import BATCH, LABELS, all_targets


def take_gradients(model: GMPATLPreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    model(**inputs).loss.backward()
    return gradients(model)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("shape", ["base", "large"])
@pytest.mark.parametrize("model_class", MODELS)
def test_gradient_checkpointing_gives_the_same_gradients(
    model_class: type[GMPATLPreTrainedModel], shape: str, frozen: bool
) -> None:
    model = build(model_class, shape).train()
    if frozen:
        model.freeze_feature_encoder()
    inputs = {**BATCH, **all_targets(model)}
    plain = take_gradients(model, inputs)
    calls = count_layer_passes(model)
    model.activation_checkpointing_enable()
    checkpointed = take_gradients(model, inputs)
    assert calls["passes"] == 2 * model.config.num_hidden_layers  # each layer really ran again
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        assert torch.allclose(value, checkpointed[name], rtol=1e-4, atol=1e-6 + 1e-5 * float(value.abs().max())), name


def count_layer_passes(model: GMPATLPreTrainedModel) -> dict[str, int]:
    calls = {"passes": 0}

    def count(*_: Any) -> None:
        calls["passes"] += 1

    for layer in model.hubert.encoder.layers:
        layer.attention.register_forward_pre_hook(count)  # the layer's own hooks stay outside the checkpoint
    return calls


def test_hidden_states_can_be_recorded_under_checkpointing() -> None:
    model = build(HubertForGMPATL).train()
    plain = model(**BATCH, labels=LABELS, output_hidden_states=True)
    model.activation_checkpointing_enable()
    output = model(**BATCH, labels=LABELS, output_hidden_states=True)
    assert all(torch.equal(one, other) for one, other in zip(plain.hidden_states, output.hidden_states, strict=True))
    output.loss.backward()
    gradients(model)


NOTHING_MASKED = {"mask_time_indices": torch.zeros(3, 27, dtype=torch.bool)}
FRAME_LABELS = torch.ones(3, 27, 2, dtype=torch.long)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("shape", ["base", "large"])
@pytest.mark.parametrize(
    ("model_class", "targets"),
    [
        (HubertForGMPATLMultiTask, {"labels": LABELS}),
        (HubertForGMPATLMultiTask, {"labels": torch.full((3,), -100), "gender_labels": torch.full((3,), -100)}),
        (HubertForGMPATLFrameClassification, {"frame_labels": FRAME_LABELS}),
        (HubertForGMPATLFrameClassification, {"frame_labels": torch.full((3, 27, 2), -100), **NOTHING_MASKED}),
        (HubertForGMPATL, {"labels": LABELS}),
        (HubertForGMPATL, {"labels": torch.full((3,), -100), **NOTHING_MASKED}),
    ],
)
def test_every_trainable_parameter_gets_a_gradient_whatever_a_batch_lacks(
    model_class: type[GMPATLPreTrainedModel], targets: dict[str, Tensor], shape: str, pooling: str
) -> None:
    # Processes that disagree on which parameters have gradients wait for each other for ever.
    model = build(model_class, shape, pooling=pooling).train()
    found = take_gradients(model, {**BATCH, **targets})
    assert all(bool(value.isfinite().all()) for value in found.values())


@pytest.mark.parametrize("frame_head", ["linear", "cosine"])
def test_either_frame_head_gets_gradients_when_nothing_is_masked(frame_head: str) -> None:
    model = build(HubertForGMPATLFrameClassification, frame_head=frame_head).train()
    take_gradients(model, {**BATCH, "frame_labels": FRAME_LABELS, **NOTHING_MASKED})


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_clip_of_one_frame_has_finite_gradients(pooling: str) -> None:
    model = build(HubertForGMPATL, pooling=pooling).train()
    found = take_gradients(model, {**pad(make_clips([400, 9_000])), "labels": LABELS[:2]})
    assert all(bool(value.isfinite().all()) for value in found.values())
    silence = take_gradients(model, {"input_values": torch.zeros(1, 400), "labels": LABELS[:1]})
    assert all(bool(value.isfinite().all()) for value in silence.values())


def test_a_frozen_encoder_trains_the_heads_alone() -> None:
    model = build(HubertForGMPATLMultiTask).train()
    model.freeze_encoder()
    found = take_gradients(model, {**BATCH, **all_targets(model)})
    assert sorted(found) == [
        "emotion_classifier.bias",
        "emotion_classifier.weight",
        "gender_classifier.bias",
        "gender_classifier.weight",
    ]


def test_a_frozen_front_end_trains_all_the_rest() -> None:
    model = build(HubertForGMPATL).train()
    names = {name for name, _ in model.named_parameters()}
    model.freeze_feature_encoder()
    found = take_gradients(model, {**BATCH, **all_targets(model)})
    assert {name for name in names if not name.startswith("hubert.feature_extractor.")} == set(found)
