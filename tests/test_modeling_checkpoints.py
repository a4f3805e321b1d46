"""Checkpoints: a bare backbone loads with sensible heads, ours reload bit by bit, weights pass from step to step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import HubertForSequenceClassification

from gmp_atl_hf import HubertForGMPATL, HubertForGMPATLFrameClassification, HubertForGMPATLMultiTask
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from models import MODELS, POOLINGS, build, build_backbone, head_fields, listen, make_clips

CLIP = make_clips([9_000])[0][None]


def load(model_class: type[GMPATLPreTrainedModel], folder: Path, **fields: Any) -> tuple[GMPATLPreTrainedModel, Any]:
    model, report = model_class.from_pretrained(folder, output_loading_info=True, **head_fields(), **fields)
    return model.eval(), report


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def heads(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("hubert.")}


@pytest.fixture(params=["base", "large"])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A bare backbone on disk, with wide weights and its own seed."""
    folder = tmp_path / "backbone"
    build_backbone(request.param, seed=11, initializer_range=0.05).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("frame_head", ["linear", "cosine"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("model_class", MODELS)
def test_a_bare_backbone_loads_whole_and_its_heads_are_initialised(
    model_class: type[GMPATLPreTrainedModel], pooling: str, frame_head: str, backbone: Path
) -> None:
    torch.manual_seed(0)
    fields = {"pooling": pooling, "frame_head": frame_head, "initializer_range": 0.05}
    model, report = load(model_class, backbone, **fields)
    stored = load_file(backbone / "model.safetensors")
    assert same(model.hubert.state_dict(), stored)
    assert set(report["missing_keys"]) == set(heads(model))
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    for name, value in heads(model).items():
        assert bool(value.isfinite().all()), name
        if name.endswith("bias"):
            assert not value.any(), name
        else:
            assert 0.03 < float(value.std()) < 0.07, name  # normal with initializer_range
    again, _ = load(model_class, backbone, **fields)
    assert not same(heads(model), heads(again))  # drawn anew, by the seed


@pytest.mark.parametrize("model_class", MODELS)
def test_heads_are_drawn_by_the_seed(model_class: type[GMPATLPreTrainedModel], backbone: Path) -> None:
    torch.manual_seed(5)
    first, _ = load(model_class, backbone)
    torch.manual_seed(5)
    second, _ = load(model_class, backbone)
    assert same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("shape", ["base", "large"])
@pytest.mark.parametrize("model_class", MODELS)
@torch.no_grad()
def test_saved_and_reloaded_is_the_same_bit_by_bit(
    model_class: type[GMPATLPreTrainedModel], shape: str, tmp_path: Path
) -> None:
    model = build(model_class, shape, pooling="attention", frame_head="cosine")
    model.save_pretrained(tmp_path)
    back, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert same(model.state_dict(), back.state_dict())
    # Where weights lie in memory decides on some processors how a product is rounded: fresh memory, as `model` has it.
    for parameter in back.parameters():
        parameter.data = parameter.data.clone()
    one, other = model(CLIP), back.eval()(CLIP)
    assert one.keys() == other.keys() and one.keys()
    for name in one:
        pairs = [(one[name], other[name])] if torch.is_tensor(one[name]) else zip(one[name], other[name], strict=True)
        assert all(torch.equal(first, second) for first, second in pairs)


def test_weights_pass_from_step_to_step(backbone: Path, tmp_path: Path) -> None:
    one, two, three = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    multitask, _ = load(HubertForGMPATLMultiTask, backbone, pooling="statistics")
    multitask.save_pretrained(one)
    # A multi-task head is no set of AM-Softmax directions: fine-tuning straight after it starts with a new one.
    straight, report = load(HubertForGMPATL, one)
    assert set(report["missing_keys"]) == {"classifier.weight"} and not report["mismatched_keys"]
    assert same(straight.hubert.state_dict(), multitask.hubert.state_dict())
    frames, report = load(HubertForGMPATLFrameClassification, one)
    assert same(frames.hubert.state_dict(), multitask.hubert.state_dict())
    assert {name.split(".")[0] for name in report["missing_keys"]} == {"frame_heads"}
    frames.save_pretrained(two)
    emotion, report = load(HubertForGMPATL, two)
    assert same(emotion.hubert.state_dict(), frames.hubert.state_dict())
    assert set(report["missing_keys"]) == {"classifier.weight"}
    emotion.save_pretrained(three)
    again, report = load(HubertForGMPATL, three)
    assert same(again.state_dict(), emotion.state_dict()) and not report["missing_keys"]
    assert again.config.pooling == "statistics"


def test_heads_of_another_step_are_left_behind_without_a_word(tmp_path: Path) -> None:
    build(HubertForGMPATLMultiTask, pooling="attention").save_pretrained(tmp_path)
    with listen() as messages:
        _, report = load(HubertForGMPATLFrameClassification, tmp_path)
    assert not report["unexpected_keys"]
    said = "".join(messages)
    assert "frame_heads" in said  # new ones are reported, as for every class of transformers
    assert "UNEXPECTED" not in said and "classifier" not in said and "pooling" not in said


@pytest.mark.parametrize("names", ["old", "new"])
@pytest.mark.parametrize("prefix", ["", "hubert."])
@pytest.mark.parametrize("model_class", MODELS)
@torch.no_grad()
def test_both_names_of_the_weight_norm_load(
    model_class: type[GMPATLPreTrainedModel], prefix: str, names: str, backbone: Path
) -> None:
    weights = load_file(backbone / "model.safetensors")
    convolution = "encoder.pos_conv_embed.conv."
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new_name, old_name in old.items():
        value = weights.pop(convolution + new_name) * 1.5  # so that a freshly drawn one cannot pass for it
        weights[convolution + (old_name if names == "old" else new_name)] = value.contiguous()
    file = backbone / "model.safetensors"
    save_file({prefix + name: value for name, value in weights.items()}, file, metadata={"format": "pt"})
    model, report = load(model_class, backbone)
    assert set(report["missing_keys"]) == set(heads(model)) and not report["unexpected_keys"]
    loaded = model.hubert.encoder.pos_conv_embed.conv.parametrizations.weight
    for index, name in enumerate(old.values() if names == "old" else old):
        assert torch.equal(getattr(loaded, f"original{index}"), weights[convolution + name])


@pytest.mark.parametrize("model_class", MODELS)
def test_a_checkpoint_trained_without_masks_gets_a_mask_embedding(
    model_class: type[GMPATLPreTrainedModel], tmp_path: Path
) -> None:
    build_backbone(mask_time_prob=0.0, mask_feature_prob=0.0).save_pretrained(tmp_path)
    assert "masked_spec_embed" not in load_file(tmp_path / "model.safetensors")
    # Memory that was used before must not shine through.
    used = [torch.full((32,), 7e8) for _ in range(1_000)]
    del used
    for model in (load(model_class, tmp_path)[0], build(model_class, mask_time_prob=0.0, mask_feature_prob=0.0)):
        embedding = model.hubert.masked_spec_embed
        assert embedding.requires_grad and embedding.shape == (32,)
        assert 0 <= float(embedding.detach().min()) < float(embedding.detach().max()) <= 1  # uniform, as in HubertModel
    model.save_pretrained(tmp_path)
    back, report = load(model_class, tmp_path)
    assert not report["missing_keys"] and torch.equal(back.hubert.masked_spec_embed, embedding)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_a_half_precision_checkpoint_loads_in_float32_when_asked(stored: torch.dtype, tmp_path: Path) -> None:
    hubert = build_backbone().to(stored)
    hubert.save_pretrained(tmp_path)
    model, _ = load(HubertForGMPATL, tmp_path, dtype=torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32
    wanted = hubert.float().state_dict()
    assert same(model.hubert.state_dict(), wanted)


@pytest.mark.parametrize("model_class", MODELS)
def test_a_plain_hubert_loads_with_layerdrop_off_and_no_remark_on_its_type(
    model_class: type[GMPATLPreTrainedModel], tmp_path: Path
) -> None:
    build_backbone(layerdrop=0.1).save_pretrained(tmp_path)
    with listen() as messages:
        model, _ = load(model_class, tmp_path)
    assert model.config.layerdrop == model.hubert.config.layerdrop == 0.0
    (report,) = messages  # transformers' own list of what is new, and nothing else
    assert "MISSING" in report and "UNEXPECTED" not in report and "of type" not in report


def test_an_encoder_inside_another_class_of_hubert_is_found(tmp_path: Path) -> None:
    torch.manual_seed(3)
    stock = HubertForSequenceClassification(build_backbone().config)
    stock.save_pretrained(tmp_path)
    model, _ = load(HubertForGMPATLFrameClassification, tmp_path)
    assert same(model.hubert.state_dict(), stock.hubert.state_dict())


def test_an_unknown_pooling_is_refused_when_a_model_is_loaded(tmp_path: Path) -> None:
    build_backbone().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="pooling is 'max'"):
        load(HubertForGMPATL, tmp_path, pooling="max")
