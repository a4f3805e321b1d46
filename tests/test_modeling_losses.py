"""The losses against numbers computed by hand, and where they must be silent: missing labels, margins, precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gmp_atl_hf import HubertForGMPATL, HubertForGMPATLFrameClassification, HubertForGMPATLMultiTask
from gmp_atl_hf.modeling.heads_gmp_atl import POOLING_CLASSES
from gmp_atl_hf.modeling.losses_gmp_atl import (
    am_softmax_sums,
    combine_parts,
    count_labels,
    cross_entropy_sums,
    frame_cross_entropy_sums,
)
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from models import EMOTIONS, MODELS, SCALES, build, gradients, make_clips, pad

BATCH = pad(make_clips([4_000, 9_000, 6_000]))
FRAMES = 27
LABELS = torch.tensor([2, 0, 3])
GENDERS = torch.tensor([1, -100, 0])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.25])


def frame_targets(seed: int = 0) -> dict[str, Tensor]:
    """Frame labels with -100 on padding and on one unknown frame, and masks of different size for each clip."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.zeros(3, FRAMES, dtype=torch.bool)
    for row, frames in enumerate((12, 27, 18)):
        valid[row, :frames] = True
    columns = [torch.randint(k, (3, FRAMES), generator=generator) for k in SCALES.values()]
    labels = torch.stack(columns, -1).masked_fill(~valid[:, :, None], -100)
    labels[1, 5, 0] = -100
    masks = torch.rand(3, FRAMES, generator=generator) < torch.tensor([0.2, 0.5, 0.8])[:, None]
    masks[1, 5] = True
    return {"frame_labels": labels, "mask_time_indices": masks}


def all_targets(model: GMPATLPreTrainedModel) -> dict[str, Tensor]:
    if isinstance(model, HubertForGMPATLFrameClassification):
        return frame_targets()
    genders = {"gender_labels": GENDERS} if isinstance(model, HubertForGMPATLMultiTask) else {}
    return {"labels": LABELS, "class_weights": WEIGHTS, **genders}


# AM-Softmax


def test_am_softmax_of_two_classes_by_hand() -> None:
    part = am_softmax_sums(torch.tensor([[0.5, 0.1]]), torch.tensor([0]), scale=10.0, margin=0.2)
    # -log(e^(10·0.3) / (e^(10·0.3) + e^(10·0.1))) = log(1 + e^-2)
    assert part.sums.tolist() == pytest.approx([math.log(1 + math.exp(-2))])
    assert part.counts.tolist() == part.correct.tolist() == [1.0]


def test_a_margin_of_zero_is_a_scaled_cosine_softmax() -> None:
    cosines = torch.rand(6, 4) * 2 - 1
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    wanted = functional.cross_entropy(30 * cosines, labels, reduction="none")
    assert torch.allclose(am_softmax_sums(cosines, labels, 30.0, 0.0).sums, wanted)


def test_a_hit_is_counted_without_the_margin() -> None:
    part = am_softmax_sums(torch.tensor([[0.5, 0.4]]), torch.tensor([0]), scale=10.0, margin=0.3)
    assert part.correct.tolist() == [1.0]
    assert float(part.sums) > math.log(2)  # with the margin the other class would have won


@pytest.mark.parametrize("training", [False, True])
def test_the_margin_is_in_the_loss_in_training_only_and_never_in_the_logits(training: bool) -> None:
    model = build(HubertForGMPATL, am_softmax_scale=12.0, am_softmax_margin=0.4).train(training)
    output = model(**BATCH, labels=LABELS)
    encoded = model.encode(**BATCH)
    pooled = model.pooling(encoded.last_hidden_state, encoded.frame_mask)
    cosines = functional.normalize(pooled, dim=-1) @ functional.normalize(model.classifier.weight, dim=-1).T
    assert torch.allclose(output.logits, 12.0 * cosines, atol=1e-5)
    margin = 0.4 if training else 0.0
    scaled = 12.0 * (cosines - margin * functional.one_hot(LABELS, 4))
    assert output.loss.item() == pytest.approx(functional.cross_entropy(scaled, LABELS).item(), rel=1e-5)
    assert torch.equal(output.logits, model(**BATCH).logits)


@pytest.mark.parametrize("emotion_loss", ["am-softmax", "cross-entropy"])
@pytest.mark.parametrize("model_class", [HubertForGMPATL, HubertForGMPATLMultiTask])
def test_the_temperature_divides_the_logits_and_leaves_the_loss_alone(
    model_class: type[GMPATLPreTrainedModel], emotion_loss: str
) -> None:
    plain = build(model_class, emotion_loss=emotion_loss)
    warm = build(model_class, emotion_loss=emotion_loss, logit_temperature=2.5)
    one, other = plain(**BATCH, labels=LABELS), warm(**BATCH, labels=LABELS)
    assert torch.allclose(one.logits / 2.5, other.logits)
    assert one.loss.item() == other.loss.item()


def test_cross_entropy_is_a_choice_with_a_linear_head() -> None:
    model = build(HubertForGMPATL, emotion_loss="cross-entropy").train()
    output = model(**BATCH, labels=LABELS, class_weights=WEIGHTS)
    assert isinstance(model.classifier, torch.nn.Linear)
    wanted = functional.cross_entropy(output.logits, LABELS, WEIGHTS)
    assert output.loss.item() == pytest.approx(wanted.item(), rel=1e-5)


# Multi-task


def test_the_multitask_loss_is_the_weighted_sum_of_two_means() -> None:
    model = build(HubertForGMPATLMultiTask, emotion_weight=0.7).train()
    output = model(**BATCH, labels=LABELS, gender_labels=GENDERS)
    emotion = functional.cross_entropy(output.logits, LABELS)
    gender = functional.cross_entropy(output.gender_logits, GENDERS)  # -100 is ignored there too: two clips count
    assert output.loss.item() == pytest.approx((0.7 * emotion + 0.3 * gender).item(), rel=1e-5)
    assert output.loss_counts.tolist() == [[1, 1], [1, 0], [1, 1]]
    assert model.loss_parts == ("emotion", "gender")


@pytest.mark.parametrize("task", ["labels", "gender_labels"])
def test_either_task_trains_the_encoder(task: str) -> None:
    model = build(HubertForGMPATLMultiTask).train()
    targets = {name: torch.full((3,), -100) for name in ("labels", "gender_labels")}
    model(**BATCH, **{**targets, task: torch.tensor([1, 0, 1])}).loss.backward()
    found = gradients(model)
    assert found["hubert.encoder.layers.0.attention.q_proj.weight"].any()
    assert bool(found["emotion_classifier.weight"].any()) == (task == "labels")
    assert bool(found["gender_classifier.weight"].any()) == (task == "gender_labels")


@pytest.mark.parametrize("genders", [None, torch.full((3,), -100)])
def test_without_any_gender_that_part_is_nothing_and_its_head_gets_a_gradient_of_zero(genders: Tensor | None) -> None:
    model = build(HubertForGMPATLMultiTask).train()
    output = model(**BATCH, labels=LABELS, gender_labels=genders)
    assert output.loss.item() == pytest.approx(0.9 * functional.cross_entropy(output.logits, LABELS).item(), rel=1e-5)
    assert output.loss_sums[:, 1].tolist() == output.loss_counts[:, 1].tolist() == [0.0, 0.0, 0.0]
    output.loss.backward()
    found = gradients(model)
    assert not found["gender_classifier.weight"].any() and not found["gender_classifier.bias"].any()
    assert found["emotion_classifier.weight"].any()


# Frames


@pytest.mark.parametrize("frame_head", ["linear", "cosine"])
@pytest.mark.parametrize("chosen", ["masked", "all"])
def test_the_frame_loss_is_the_sum_over_scales_of_the_mean_over_chosen_frames(chosen: str, frame_head: str) -> None:
    model = build(HubertForGMPATLFrameClassification, frame_targets=chosen, frame_head=frame_head).train()
    targets = frame_targets()
    output = model(**BATCH, **targets)
    frame_logits = model(**BATCH, mask_time_indices=targets["mask_time_indices"]).frame_logits
    labels = targets["frame_labels"]
    if chosen == "masked":
        labels = labels.masked_fill(~targets["mask_time_indices"][:, :, None], -100)
    total = 0.0
    for scale, logits in enumerate(frame_logits):
        wanted = labels[:, :, scale]
        total += functional.cross_entropy(logits.transpose(1, 2), wanted).item()
        assert output.loss_counts[:, scale].tolist() == (wanted != -100).sum(1).tolist()
        assert output.correct[:, scale].tolist() == (logits.argmax(-1) == wanted).sum(1).tolist()
    assert output.loss.item() == pytest.approx(total, rel=1e-5)
    assert output.loss_counts[1, 0] == output.loss_counts[1, 1] - 1  # the unknown frame of the first scale


def test_the_cosine_frame_head_gives_cosines_over_a_temperature() -> None:
    model = build(HubertForGMPATLFrameClassification, frame_head="cosine")
    assert all(logits.abs().max().item() <= 10.0 + 1e-4 for logits in model(**BATCH).frame_logits)


@pytest.mark.parametrize("mask", [None, torch.zeros(3, FRAMES, dtype=torch.bool)])
def test_nothing_masked_is_a_loss_of_nothing(mask: Tensor | None) -> None:
    model = build(HubertForGMPATLFrameClassification).train()
    output = model(**BATCH, frame_labels=frame_targets()["frame_labels"], mask_time_indices=mask)
    assert output.loss.item() == 0.0
    assert not output.loss_counts.any()


@pytest.mark.parametrize("columns", [1, 3])
def test_labels_of_other_scales_are_refused_with_both_shapes(columns: int) -> None:
    model = build(HubertForGMPATLFrameClassification)
    with pytest.raises(ValueError, match=rf"\(3, 27, {columns}\).*\(3, 27, 2\).*gmp_layer2_k5"):
        model(**BATCH, frame_labels=torch.zeros(3, FRAMES, columns, dtype=torch.long))


def test_labels_one_frame_short_are_refused() -> None:
    model = build(HubertForGMPATLFrameClassification)
    with pytest.raises(ValueError, match=r"\(3, 26, 2\).*\(3, 27, 2\)"):
        model(**BATCH, frame_labels=torch.zeros(3, FRAMES - 1, 2, dtype=torch.long))


# All of them


@pytest.mark.parametrize("model_class", MODELS)
def test_when_everything_is_ignored_the_loss_is_zero_and_so_are_the_gradients(
    model_class: type[GMPATLPreTrainedModel],
) -> None:
    model = build(model_class).train()
    targets = all_targets(model)
    for name in ("labels", "gender_labels", "frame_labels"):
        if name in targets:
            targets[name] = torch.full_like(targets[name], -100)
    output = model(**BATCH, **targets)
    assert output.loss.item() == 0.0
    output.loss.backward()
    used = {name: value for name, value in gradients_or_none(model).items() if value is not None}
    assert used and not any(bool(value.any()) for value in used.values())


def gradients_or_none(model: torch.nn.Module) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("chosen", ["masked", "all"])
def test_the_counts_known_beforehand_are_those_of_the_forward_pass(
    model_class: type[GMPATLPreTrainedModel], chosen: str
) -> None:
    model = build(model_class, frame_targets=chosen).train()
    targets = all_targets(model)
    weights = targets.pop("class_weights", None)
    for given in (None, weights):
        extra = {} if given is None else {"class_weights": given}
        counts = model.count_parts(targets, **extra)
        output = model(**BATCH, **targets, **extra)
        assert counts.dtype == torch.float32 and counts.shape == (len(model.loss_parts),)
        assert torch.equal(counts, output.loss_counts.sum(0))
        assert output.loss_sums.shape == output.correct.shape == (3, len(model.loss_parts))


@pytest.mark.parametrize("model_class", [HubertForGMPATL, HubertForGMPATLMultiTask])
def test_class_weights_weigh_as_in_torch(model_class: type[GMPATLPreTrainedModel]) -> None:
    model = build(model_class, emotion_weight=1.0)
    output = model(**BATCH, labels=LABELS, class_weights=WEIGHTS)
    assert output.loss.item() == pytest.approx(
        functional.cross_entropy(output.logits, LABELS, WEIGHTS).item(), rel=1e-5
    )
    assert output.loss_counts[:, 0].tolist() == WEIGHTS[LABELS].tolist()


@pytest.mark.parametrize("model_class", MODELS)
def test_given_denominators_divide_the_sums(model_class: type[GMPATLPreTrainedModel]) -> None:
    model = build(model_class).train()
    targets = all_targets(model)
    denominators = torch.arange(2.0, 2.0 + len(model.loss_parts))
    output = model(**BATCH, **targets, loss_denominators=denominators)
    wanted = (output.loss_sums.sum(0) / denominators * torch.tensor(model.part_weights)).sum()
    assert output.loss.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_parts_that_nothing_counts_for_are_zero_and_not_nan() -> None:
    sums = torch.tensor([[3.0, 0.0]], requires_grad=True)
    loss = combine_parts(sums, torch.tensor([[2.0, 0.0]]), torch.tensor([0.5, 0.5]))
    loss.backward()
    assert loss.item() == 0.75
    assert sums.grad.tolist() == [[0.25, 0.0]]


def test_ignored_clips_have_no_sum_no_count_and_no_hit() -> None:
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    part = cross_entropy_sums(logits, torch.tensor([-100, 0]), torch.tensor([3.0, 1.0]))
    assert part.sums.tolist() == pytest.approx([0.0, 3 * math.log(1 + math.exp(-1))])
    assert part.counts.tolist() == [0.0, 3.0] and part.correct.tolist() == [0.0, 1.0]
    assert count_labels(torch.tensor([-100, 0]), torch.tensor([3.0, 1.0])).item() == 3.0
    assert count_labels(torch.tensor([-100, 1, 1])).item() == 2.0


@pytest.mark.parametrize("label", [-1, len(EMOTIONS)])
@pytest.mark.parametrize("model_class", [HubertForGMPATL, HubertForGMPATLMultiTask])
def test_a_label_out_of_range_fails_instead_of_counting_as_another(
    model_class: type[GMPATLPreTrainedModel], label: int
) -> None:
    # -1 is what `datasets` writes for unlabelled rows; taking it for the first emotion would train on nonsense.
    with pytest.raises((IndexError, RuntimeError)):
        build(model_class)(**BATCH, labels=torch.tensor([0, label, 1]))


# Precision


@pytest.mark.parametrize("emotion_loss", ["am-softmax", "cross-entropy"])
@pytest.mark.parametrize("how", ["autocast", "weights"])
@pytest.mark.parametrize("model_class", MODELS)
def test_losses_and_logits_are_float32_under_bfloat16(
    model_class: type[GMPATLPreTrainedModel], how: str, emotion_loss: str
) -> None:
    frame_head = "cosine" if emotion_loss == "am-softmax" else "linear"
    model = build(model_class, emotion_loss=emotion_loss, frame_head=frame_head, emotion_weight=1.0)
    if how == "weights":
        model = model.bfloat16()
    targets = all_targets(model)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        output = model(**BATCH, **targets)
        frame_logits = model(**BATCH, mask_time_indices=targets.get("mask_time_indices")).frame_logits
    assert output.loss.dtype == output.loss_sums.dtype == output.loss_counts.dtype == torch.float32
    for logits in (output.logits, output.gender_logits, *(frame_logits or ())):
        assert logits is None or logits.dtype == torch.float32
    # The loss is what float32 makes of the logits: with a rounding in between it would be a percent off.
    if output.logits is not None:
        wanted = functional.cross_entropy(output.logits, LABELS, WEIGHTS).item()
    else:
        labels = targets["frame_labels"].masked_fill(~targets["mask_time_indices"][:, :, None], -100)
        wanted = sum(
            functional.cross_entropy(logits.transpose(1, 2), labels[:, :, scale]).item()
            for scale, logits in enumerate(frame_logits)
        )
    assert output.loss.item() == pytest.approx(wanted, rel=1e-4)
    output.loss.backward()
    assert all(bool(grad.isfinite().all()) for grad in gradients_or_none(model).values() if grad is not None)


def test_sums_of_bfloat16_logits_are_added_up_in_float32() -> None:
    logits = (4 * torch.randn(6, 4)).bfloat16()
    labels, clips = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 2])
    wanted = functional.cross_entropy(logits.float(), labels, reduction="none")
    part = cross_entropy_sums(logits, labels)
    assert part.sums.dtype == torch.float32 and torch.allclose(part.sums, wanted)
    frames = frame_cross_entropy_sums(logits, labels, clips, 4)
    assert frames.sums.dtype == torch.float32
    assert torch.allclose(frames.sums, torch.stack([wanted[:3].sum(), wanted[3:5].sum(), wanted[5], torch.zeros(())]))
    assert frames.counts.tolist() == [3, 2, 1, 0]
    cosines = torch.tensor([[0.5, 0.4921875]]).bfloat16()
    angular = am_softmax_sums(cosines, torch.tensor([0]), 30.0, 0.2)
    assert torch.allclose(angular.sums, am_softmax_sums(cosines.float(), torch.tensor([0]), 30.0, 0.2).sums)


def test_cosines_are_computed_in_float32_under_autocast() -> None:
    model = build(HubertForGMPATL)
    vectors = torch.randn(5, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosines = model.classifier(vectors)
    assert torch.equal(cosines, model.classifier(vectors))


@pytest.mark.parametrize("pooling", POOLING_CLASSES)
@pytest.mark.parametrize("frames", [257, 301, 399])
@pytest.mark.parametrize("autocast", [False, True])
def test_frames_in_bfloat16_are_pooled_in_float32(pooling: str, frames: int, autocast: bool) -> None:
    module = POOLING_CLASSES[pooling](8)
    hidden = torch.randn(2, 512, 8).add(3).bfloat16()
    mask = torch.arange(512) < torch.tensor([[frames], [512]])
    if pooling == "attention":
        torch.nn.init.zeros_(module.query.weight)  # equal weights, whatever their digits
        module = module if autocast else module.bfloat16()
    given = hidden.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        pooled = module(given, mask)
    exact = [values[own].double() for values, own in zip(hidden, mask, strict=True)]
    wanted = torch.stack([values.mean(0) for values in exact])
    if pooling == "statistics":
        wanted = torch.cat([wanted, torch.stack([values.std(0, correction=0) for values in exact])], dim=-1)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled.double(), wanted, rtol=1e-5, atol=1e-5)
    pooled.sum().backward()
    assert given.grad is not None and given.grad.isfinite().all() and given.grad[0, 0].any()
