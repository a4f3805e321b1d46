"""The encoder is HuBERT's own: the same hidden states for a clip, whatever goes in; masks never touch padding."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import HubertModel

from gmp_atl_hf import HubertForGMPATL
from gmp_atl_hf.modeling.encoding_gmp_atl import convolve, encode_speech
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from models import MODELS, build, build_backbone, build_encoder, make_clips, pad

SHAPES = pytest.mark.parametrize("shape", ["base", "large"])


def apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


@SHAPES
@torch.no_grad()
def test_a_single_clip_has_the_hidden_states_of_the_stock_model(shape: str) -> None:
    hubert = build_backbone(shape)
    clip = make_clips([9_000])[0][None]
    stock = hubert(clip, output_hidden_states=True)
    ours = encode_speech(build_encoder(shape), clip, layers=(1, 2, 3))
    assert apart(ours.last_hidden_state, stock.last_hidden_state) < 1e-5
    assert ours.frame_mask.shape == stock.last_hidden_state.shape[:2] and bool(ours.frame_mask.all())
    assert sorted(ours.hidden_states) == [1, 2, 3]
    for layer, states in ours.hidden_states.items():
        assert apart(states, stock.hidden_states[layer]) < 1e-5
    assert apart(stock.hidden_states[1], stock.hidden_states[2]) > 0.1  # an off-by-one would show


@SHAPES
@torch.no_grad()
def test_layers_of_a_padded_clip_are_those_of_the_stock_model_alone(shape: str) -> None:
    hubert = build_backbone(shape)
    clips = make_clips([4_000, 9_000])
    ours = encode_speech(build_encoder(shape), **pad(clips, filling=2.0), layers=(2,))
    stock = hubert(clips[0][None], output_hidden_states=True).hidden_states[2][0]
    assert apart(ours.hidden_states[2][0, : len(stock)], stock) < 1e-5
    assert ours.frame_mask.sum(1).tolist() == [12, 27]


@torch.no_grad()
def test_the_stock_model_lets_padding_change_a_base_clip() -> None:
    # Why the encoder has a forward pass of its own; should this ever fail, it is no longer needed.
    hubert = build_backbone("base")
    clips = make_clips([4_000, 9_000])
    alone = hubert(clips[0][None]).last_hidden_state[0]
    beside = hubert(**pad(clips)).last_hidden_state[0, : len(alone)]
    assert apart(alone, beside) > 0.1


@SHAPES
@torch.no_grad()
def test_masked_frames_take_the_mask_embedding_as_in_the_stock_model(shape: str) -> None:
    hubert = build_backbone(shape)
    clip = make_clips([9_000])[0][None]
    mask = torch.zeros(1, 27, dtype=torch.bool)
    mask[0, 5:12] = True
    stock = hubert(clip, mask_time_indices=mask).last_hidden_state
    encoder = build_encoder(shape)
    ours = encode_speech(encoder, clip, mask_time_indices=mask).last_hidden_state
    assert apart(ours, stock) < 1e-5
    assert apart(ours, encode_speech(encoder, clip).last_hidden_state) > 0.1


@SHAPES
@torch.no_grad()
def test_masked_channels_are_zero_in_every_frame_as_in_the_stock_model(shape: str) -> None:
    hubert = build_encoder(shape, mask_feature_prob=0.3, mask_feature_length=4, mask_time_prob=0.0)
    channels = torch.zeros(1, 32, dtype=torch.bool)
    channels[0, 5:13] = True
    seen: list[Tensor] = []
    hook = hubert.encoder.register_forward_pre_hook(lambda _, given, named: seen.append(given[0]), with_kwargs=True)
    clip = make_clips([9_000])[0][None]
    encode_speech(hubert, clip)
    ours = encode_speech(hubert, clip, mask_feature_indices=channels).last_hidden_state
    hook.remove()
    whole, masked = seen
    assert not masked[:, :, 5:13].any()
    kept = ~channels[0]
    assert torch.equal(masked[:, :, kept], whole[:, :, kept])
    # The stock model draws the channels itself; given ours, it has the same hidden states.
    stock = hubert.encoder(whole * kept).last_hidden_state
    assert apart(ours, stock) < 1e-5


@SHAPES
@pytest.mark.parametrize("model_class", MODELS)
@torch.no_grad()
def test_a_mask_on_padding_changes_nothing(model_class: type[GMPATLPreTrainedModel], shape: str) -> None:
    model = build(model_class, shape)
    batch = pad(make_clips([4_000, 9_000]))
    mask = torch.zeros(2, 27, dtype=torch.bool)
    mask[0, 3:6] = True
    proper = model.encode(**batch, mask_time_indices=mask)
    mask[0, 12:] = True
    beyond = model.encode(**batch, mask_time_indices=mask)
    assert torch.equal(proper.last_hidden_state, beyond.last_hidden_state)


@SHAPES
@torch.no_grad()
def test_no_mask_is_an_empty_mask(shape: str) -> None:
    model = build(HubertForGMPATL, shape)
    batch = pad(make_clips([4_000, 9_000]))
    empty = torch.zeros(2, 27, dtype=torch.bool)
    assert torch.equal(model(**batch).logits, model(**batch, mask_time_indices=empty).logits)
    clip = batch["input_values"][1:]
    full = torch.ones_like(clip, dtype=torch.long)
    assert apart(model(clip).logits, model(clip, attention_mask=full).logits) < 1e-5


@torch.no_grad()
def test_no_frame_mask_means_that_every_frame_counts() -> None:
    model = build(HubertForGMPATL)
    features = torch.randn(2, 20, 12)
    everything = torch.ones(2, 20, dtype=torch.long)
    assert torch.equal(
        model(conv_features=features).logits, model(conv_features=features, frame_mask=everything).logits
    )


def test_training_draws_no_mask_of_its_own() -> None:
    model = build(HubertForGMPATL, mask_time_prob=0.9, mask_time_length=2).train()
    clip = make_clips([9_000])[0][None]
    assert torch.equal(model(clip).logits, model(clip).logits)


@SHAPES
@torch.no_grad()
def test_layers_and_attentions_are_numbered_as_in_the_stock_model(shape: str) -> None:
    model = build(HubertForGMPATL, shape, attn_implementation="eager")
    stock = HubertModel(model.config).eval()
    stock.load_state_dict(model.hubert.state_dict())
    clip, asked = make_clips([9_000])[0][None], {"output_hidden_states": True, "output_attentions": True}
    theirs = stock(clip, **asked)
    given = model(clip, **asked)
    for name in asked:
        setattr(model.config, name, True)
    configured = model(clip, output_hidden_states=None)
    for ours in (given, configured, model.hubert(clip)):
        assert len(ours.hidden_states) == 4 and len(ours.attentions) == 3
        for name in ("hidden_states", "attentions"):
            assert all(apart(one, two) < 1e-5 for one, two in zip(ours[name], theirs[name], strict=True))
    unasked = model(clip, output_hidden_states=False, output_attentions=False)
    assert unasked.hidden_states is None and unasked.attentions is None


@torch.no_grad()
def test_asking_for_layers_leaves_no_hook_behind() -> None:
    hubert = build_encoder()
    encode_speech(hubert, make_clips([4_000])[0][None], layers=(1, 3))
    with pytest.raises(RuntimeError):  # nor when the pass fails: these features have too few channels
        encode_speech(hubert, conv_features=torch.zeros(1, 4, 5), layers=(1,))
    assert not any(layer._forward_hooks for layer in hubert.encoder.layers)


def test_a_frozen_front_end_keeps_no_graph_and_a_free_one_does() -> None:
    hubert = build_encoder()
    clip = make_clips([4_000])[0][None]
    assert convolve(hubert, clip, None).requires_grad
    hubert.feature_extractor._freeze_parameters()
    assert not convolve(hubert, clip, None).requires_grad


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"input_values": torch.zeros(1, 800), "conv_features": torch.zeros(1, 2, 12)},
        {"input_values": torch.zeros(1, 800), "layer_states": torch.zeros(1, 2, 24), "layer_of_states": 1},
    ],
)
def test_exactly_one_kind_of_input_is_wanted(inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either input_values .* or conv_features"):
        build(HubertForGMPATL)(**inputs)


@pytest.mark.parametrize("lengths", [[399], [9_000, 399]])
def test_a_clip_shorter_than_one_frame_is_refused_with_both_numbers(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"399 samples .*\(400 samples for HuBERT\)"):
        build(HubertForGMPATL)(**pad(make_clips(lengths)))


def make_bad_batch(value: float, *bad: tuple[int, int]) -> dict[str, Tensor]:
    """Three clips, of which the last is padded, with a value at some (clip, sample)."""
    batch = pad(make_clips([9_000, 9_000, 4_000]))
    for clip, sample in bad:
        batch["input_values"][clip, sample] = value
    return batch


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@torch.no_grad()
def test_clips_with_a_sample_that_is_no_finite_number_are_refused_by_their_rows(value: float) -> None:
    model = build(HubertForGMPATL)
    with pytest.raises(ValueError, match=r"^row 1 of input_values .*counted from 0\) has samples that are not finite"):
        model(**make_bad_batch(value, (1, 5)))
    with pytest.raises(ValueError, match=r"^rows 0, 2 of input_values"):
        model(**make_bad_batch(value, (0, 8_999), (2, 3_999)))


@torch.no_grad()
def test_what_stands_on_padding_is_no_sample_of_a_clip() -> None:
    model = build(HubertForGMPATL, "large")
    torch.testing.assert_close(model(**make_bad_batch(1e30, (2, 8_000))).logits, model(**make_bad_batch(0.0)).logits)
    model(**make_bad_batch(float("nan"), (2, 8_000)))  # not refused


def test_a_training_step_does_not_wait_for_a_look_at_its_samples() -> None:
    model = build(HubertForGMPATL).train()
    assert bool(model(**make_bad_batch(float("nan"), (1, 5))).logits[1].isnan().all())


@SHAPES
@torch.no_grad()
def test_a_clip_of_one_frame_has_finite_scores(shape: str) -> None:
    clip = torch.zeros(1, 400)
    for pooling in ("mean", "attention", "statistics"):
        assert bool(build(HubertForGMPATL, shape, pooling=pooling)(clip).logits.isfinite().all())


def test_the_encoder_has_the_parts_and_tensors_of_a_stock_hubert() -> None:
    ours, stock = build(HubertForGMPATL).hubert, build_backbone()
    assert isinstance(ours, HubertModel)
    names = {"GMPATLModel": "HubertModel", "ValidGroupNormConvLayer": "HubertGroupNormConvLayer"}
    assert reduce(lambda text, name: text.replace(*name), names.items(), str(ours)) == str(stock)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in stock.state_dict().items()
    }


@torch.no_grad()
def test_a_plain_tuple_comes_out_when_asked_for() -> None:
    model = build(HubertForGMPATL)
    clip = make_clips([4_000])[0][None]
    outputs = model(clip, labels=torch.tensor([1]), return_dict=False)
    named = model(clip, labels=torch.tensor([1]))
    assert type(outputs) is tuple
    assert torch.equal(outputs[0], named.loss) and torch.equal(outputs[1], named.logits)
