"""Which states the heads read: the end, a layer, or a learned sum; and pooled states that are standardised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from gmp_atl_hf import GMPATLConfig, HubertForGMPATL
from gmp_atl_hf.checkpoints import default_feature_extractor, load_model
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.inference.cpu.model import PackedModel
from gmp_atl_hf.modeling.encoding_gmp_atl import GMPATLModel, weigh_layers
from gmp_atl_hf.pretraining.teachers import Teacher, teacher_facts
from models import MODELS, build, build_backbone, gradients, listen, make_clips, pad, tiny_config

SHAPES = ("base", "large")
READOUTS = ("last", "sum", 2, -1)
CLIPS = make_clips([6_000, 2_345, 400])


def read(model: Any) -> Any:
    """The states that the heads of a model get of the clips."""
    with torch.no_grad():
        return model.hubert(**pad(CLIPS), output_hidden_states=True)


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_layer_is_read_as_that_layer_gives_it(shape: str, model_class: Any) -> None:
    whole, part = build(model_class, shape), build(model_class, shape, readout=2)
    part.hubert.load_state_dict(whole.hubert.state_dict(), strict=False)
    assert torch.equal(read(part).last_hidden_state, read(whole).hidden_states[2])


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_above_the_layer_is_not_in_the_model(shape: str) -> None:
    model = build(HubertForGMPATL, shape, readout=2)
    assert len(model.hubert.encoder.layers) == 2
    assert len(read(model).hidden_states) == 3
    assert isinstance(model.hubert.encoder.layer_norm, nn.Identity) == (shape == "large")


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_sum_adds_all_layers_by_their_weights(shape: str, model_class: Any) -> None:
    model = build(model_class, shape, readout="sum")
    weights = torch.tensor([0.5, -1.0, 2.0, 0.0])
    model.hubert.layer_weights.data.copy_(weights)
    found = read(model)
    shares = weights.softmax(0)
    expected = sum(
        share * functional.layer_norm(state, state.shape[-1:])
        for share, state in zip(shares, found.hidden_states, strict=True)
    )
    valid = found.frame_mask
    torch.testing.assert_close(found.last_hidden_state[valid], expected[valid], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_states_of_a_sum_are_those_of_the_stock_encoder(shape: str) -> None:
    stock, model = build_backbone(shape), build(HubertForGMPATL, shape, readout="sum")
    model.hubert.load_state_dict(stock.state_dict(), strict=False)
    clip = CLIPS[0][None]
    with torch.no_grad():
        theirs = stock(clip, output_hidden_states=True).hidden_states
        ours = model.hubert(clip, output_hidden_states=True).hidden_states
    for one, other in zip(theirs[:-1], ours[:-1], strict=True):  # the stock last one stands behind a layer norm
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_all_layers_begin_alike() -> None:
    model = build(HubertForGMPATL, readout="sum")
    assert model.hubert.layer_weights.softmax(0).tolist() == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_clip_scores_the_same_alone_in_a_batch_and_side_by_side(shape: str, readout: Any) -> None:
    model = build(HubertForGMPATL, shape, readout=readout, standardize=True, pooling="statistics")
    assert isinstance(model, HubertForGMPATL)
    model.standardization.fit(3 * torch.randn(20, 64) + 1)
    if readout == "sum":
        model.hubert.layer_weights.data.normal_()
    with torch.inference_mode():
        alone = torch.cat([model(clip[None]).logits for clip in CLIPS])
        batch = model(**pad(CLIPS, filling=7.0)).logits
    torch.testing.assert_close(batch, alone, rtol=0, atol=1e-4)
    torch.testing.assert_close(PackedModel(model)(CLIPS), alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_saved_model_is_read_as_it_was(readout: Any, tmp_path: Path) -> None:
    model = build(HubertForGMPATL, "large", readout=readout, standardize=True)
    model.standardization.fit(torch.randn(9, 32))
    model.save_pretrained(tmp_path)
    with listen() as said:
        again = HubertForGMPATL.from_pretrained(tmp_path).eval()
        encoder = GMPATLModel.from_pretrained(tmp_path)
    assert not said
    assert again.config.readout == readout
    with torch.no_grad():
        assert torch.equal(again(CLIPS[0][None]).logits, model(CLIPS[0][None]).logits)
        states = encoder.eval()(CLIPS[0][None]).last_hidden_state
        assert torch.equal(states, model.hubert(CLIPS[0][None]).last_hidden_state)


@pytest.mark.parametrize("readout", [1, "sum"])
def test_it_begins_from_a_checkpoint_that_was_read_at_its_end(readout: Any, tmp_path: Path) -> None:
    backbone = build_backbone("large")
    backbone.save_pretrained(tmp_path)
    with listen() as said:
        model = HubertForGMPATL.from_pretrained(tmp_path, readout=readout)
    assert "UNEXPECTED" not in "".join(said)
    kept = model.hubert.encoder.layers[0].attention.k_proj.weight
    assert torch.equal(kept, backbone.encoder.layers[0].attention.k_proj.weight)


@pytest.mark.parametrize("readout", [1, "sum"])
def test_a_step_of_a_recipe_begins_there_too(readout: Any, tmp_path: Path) -> None:
    build_backbone("large").save_pretrained(tmp_path)
    model = load_model(HubertForGMPATL, tmp_path, seed=0, fields={"readout": readout, "standardize": True})
    assert model.config.readout == readout
    model.save_pretrained(tmp_path / "step")
    assert load_model(HubertForGMPATL, tmp_path / "step", seed=0, whole=True).config.readout == readout


def test_a_test_does_not_begin_the_weights_of_a_sum_anew(tmp_path: Path) -> None:
    build(HubertForGMPATL).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="layer_weights"):
        load_model(HubertForGMPATL, tmp_path, seed=0, fields={"readout": "sum"}, whole=True)


@pytest.mark.parametrize("readout", ["sum", 2])
def test_a_model_that_reads_elsewhere_is_probed_as_far_as_it_goes(readout: Any, tmp_path: Path) -> None:
    model = build(HubertForGMPATL, "large", readout=readout)
    model.save_pretrained(tmp_path)
    default_feature_extractor(model.config).save_pretrained(tmp_path)
    facts = teacher_facts(str(tmp_path))
    assert facts.layers == (2 if readout == 2 else 3)
    wave = CLIPS[0]
    states = Teacher(facts, range(facts.layers + 1), torch.device("cpu")).states(wave.numpy())
    normalised = (wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt()
    with torch.no_grad():
        expected = model.hubert(normalised[None], output_hidden_states=True).hidden_states
    for layer, found in states.items():
        torch.testing.assert_close(found, expected[layer][0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("readout", [0, 4, -4, True, "first", 1.5])
def test_what_cannot_be_read_is_refused(readout: Any) -> None:
    with pytest.raises(Exception, match="readout"):
        tiny_config(readout=readout)


def test_a_sum_with_dropped_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="a dropped layer has no state"):
        tiny_config(readout="sum", layerdrop=0.1)


def test_a_layer_above_the_one_that_is_read_does_not_exist() -> None:
    config = tiny_config(readout=2)
    assert config.resolve_layer(-2) == 2
    with pytest.raises(ValueError, match="above layer 2, which is read out"):
        config.resolve_layer(-1)


def test_old_configurations_read_the_end_unstandardised() -> None:
    config = GMPATLConfig.from_dict({"model_type": "gmp_atl", "num_hidden_layers": 3})
    assert (config.readout, config.standardize, config.depth) == ("last", False, 3)


def test_the_weights_of_a_sum_belong_to_the_heads() -> None:
    model = build(HubertForGMPATL, readout="sum").train()
    model.freeze_encoder()
    model(**pad(CLIPS), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert set(gradients(model)) == {"hubert.layer_weights", "classifier.weight"}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_sum_has_gradients_everywhere(checkpointing: bool) -> None:
    model = build(HubertForGMPATL, readout="sum").train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    model(**pad(CLIPS), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_standardised_vectors_have_mean_0_and_deviation_1() -> None:
    model = build(HubertForGMPATL, standardize=True)
    vectors = torch.randn(50, 32) * torch.linspace(1, 9, 32) + 4
    vectors[:, 3] = 2.5 + 1e-7 * torch.randn(50)  # changes by nothing but rounding
    model.standardization.fit(vectors)
    standardised = model.standardization(vectors)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(32), rtol=0, atol=1e-5)
    deviation = standardised.std(0, correction=0)
    assert deviation[3] < 1e-5
    assert model.half().standardization(vectors.half()).isfinite().all()
    torch.testing.assert_close(deviation[4:], torch.ones(28), rtol=1e-4, atol=0)


def test_layers_are_normed_before_they_are_added() -> None:
    loud, soft = 1_000 * torch.randn(5, 8), torch.randn(5, 8)
    together = weigh_layers([loud, soft], torch.zeros(2))
    without = weigh_layers([torch.zeros(5, 8), soft], torch.zeros(2))
    assert (together - without).abs().max() < 5
