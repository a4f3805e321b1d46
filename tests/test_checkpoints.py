"""Checkpoints that pass from step to step: what they are known by, and what they start with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor
from transformers.utils import logging

from gmp_atl_hf.checkpoints import (
    describe_backbone,
    load_feature_extractor,
    load_model,
    quiet_transformers,
    save_scratch_backbone,
    scratch_config,
)
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.configuration_gmp_atl import SHIPPED
from gmp_atl_hf.modeling.modeling_gmp_atl import (
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from runs import BACKBONE, digests
from tables import changed, small_model, weights_of

LABELS: dict[str, Any] = {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock checkpoint; must not be changed."""
    folder = tmp_path_factory.mktemp("hubert") / "model"
    torch.manual_seed(0)
    HubertModel(HubertConfig(**BACKBONE, layerdrop=0.3)).save_pretrained(folder)
    return folder


def encoder(model: Any) -> dict[str, torch.Tensor]:
    return weights_of(model.hubert)


# ---- what a backbone is known by -------------------------------------------------------------------------------------


def test_a_folder_is_known_by_its_weights_and_not_by_its_name(hubert: Path, tmp_path: Path) -> None:
    shutil.copytree(hubert, tmp_path / "copy")
    described = describe_backbone(str(hubert))
    assert set(described) == {"weights", "config", "feature_extractor"}
    assert describe_backbone(str(tmp_path / "copy")) == described
    assert json.loads(json.dumps(described)) == described
    weights = bytearray((tmp_path / "copy" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "copy" / "model.safetensors").write_bytes(weights)
    assert describe_backbone(str(tmp_path / "copy")) != described


def test_weights_in_several_files_are_known_by_all_of_them(hubert: Path, tmp_path: Path) -> None:
    HubertModel.from_pretrained(hubert).save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    shards = sorted((tmp_path / "sharded").glob("model-*.safetensors"))
    assert len(shards) > 1
    before = describe_backbone(str(tmp_path / "sharded"))
    for shard in shards:
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert describe_backbone(str(tmp_path / "sharded")) != before
        shard.write_bytes(content)
    assert describe_backbone(str(tmp_path / "sharded")) == before


def test_a_backbone_s_configuration_counts_and_who_wrote_it_does_not(hubert: Path, tmp_path: Path) -> None:
    shutil.copytree(hubert, tmp_path / "copy")
    before = describe_backbone(str(hubert))
    content = json.loads((hubert / "config.json").read_text())
    (tmp_path / "copy/config.json").write_text(
        json.dumps({**content, "transformers_version": "4.1.0", "_name_or_path": "/home/someone/model"})
    )
    assert describe_backbone(str(tmp_path / "copy")) == before
    (tmp_path / "copy/config.json").write_text(json.dumps({**content, "attention_dropout": 0.33}))
    assert describe_backbone(str(tmp_path / "copy"))["config"]["attention_dropout"] == 0.33


def test_fields_to_start_from_scratch_are_known_by_the_configuration_they_make() -> None:
    described = describe_backbone(BACKBONE)
    assert set(described) == {"scratch"}
    assert describe_backbone({**BACKBONE, "hidden_act": "gelu"}) == described, "a default that is written out"
    assert describe_backbone({**BACKBONE, "hidden_act": "relu"}) != described


@pytest.mark.parametrize(
    "fields",
    [{"num_attention_heads": 3}, {"conv_dim": [8]}, {"hidden_act": "nope"}, {"num_conv_pos_embedding_groups": 5}],
)
def test_fields_that_make_no_hubert_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="the fields make no HuBERT"):
        scratch_config({**BACKBONE, **fields})


# ---- from scratch ----------------------------------------------------------------------------------------------------


def test_a_backbone_from_scratch_follows_from_its_seed(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        torch.rand(3)
        save_scratch_backbone(BACKBONE, seed, tmp_path / name)
    one, again, other = (digests(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    assert {name for name in one if one[name] != other[name]} == {"model.safetensors"}
    assert HubertModel.from_pretrained(tmp_path / "one").config.conv_dim == [8, 8, 16]


@pytest.mark.parametrize(("norm", "normalise"), [("group", False), ("layer", True)])
def test_layer_norm_models_get_normalised_waveforms(tmp_path: Path, norm: str, normalise: bool) -> None:
    save_scratch_backbone({**BACKBONE, "feat_extract_norm": norm}, 0, tmp_path)
    extractor = load_feature_extractor(tmp_path)
    assert (extractor.do_normalize, extractor.return_attention_mask) == (normalise, True)


def test_a_checkpoint_without_a_feature_extractor_gets_the_one_of_its_kind(hubert: Path) -> None:
    extractor = load_feature_extractor(hubert)
    assert (extractor.do_normalize, extractor.return_attention_mask, extractor.sampling_rate) == (False, True, 16_000)


def test_a_checkpoint_s_own_feature_extractor_is_kept_but_for_the_attention_mask(hubert: Path, tmp_path: Path) -> None:
    shutil.copytree(hubert, tmp_path / "copy")
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(tmp_path / "copy")
    extractor = load_feature_extractor(tmp_path / "copy")
    assert (extractor.do_normalize, extractor.return_attention_mask) == (True, True)


# ---- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification, HubertForGMPATL])
def test_the_encoder_comes_from_the_checkpoint_and_new_heads_from_the_seed(hubert: Path, kind: Any) -> None:
    fields = {**LABELS, "frame_scales": {"gmp_layer2_k3": 3}}
    first, again, other = (load_model(kind, hubert, seed, fields) for seed in (0, 0, 1))
    stock = HubertModel.from_pretrained(hubert)
    assert not changed(weights_of(stock), encoder(first))
    assert not changed(weights_of(first), weights_of(again))
    new = changed(weights_of(first), weights_of(other))
    assert new
    assert not any("hubert." in name for name in new)
    assert all(torch.isfinite(value).all() for value in weights_of(first).values())
    assert first.config.id2label == {0: "a", 1: "b"}
    assert first.config.layerdrop == 0


def test_weights_pass_from_stage_to_stage_and_the_configuration_from_the_backbone(hubert: Path, tmp_path: Path) -> None:
    retrain = {**LABELS, "frame_scales": {"gmp_layer2_k3": 3}, "mask_time_prob": 0.8, "hidden_dropout": 0.4}
    model = load_model(HubertForGMPATLFrameClassification, hubert, 0, retrain)
    with torch.no_grad():
        model.hubert.encoder.layer_norm.weight.mul_(2)
    model.save_pretrained(tmp_path / "retrained")
    finetune = load_model(HubertForGMPATL, tmp_path / "retrained", 0, LABELS, config_from=hubert)
    assert not changed(encoder(model), encoder(finetune))
    assert finetune.config.mask_time_prob != 0.8
    assert finetune.config.hidden_dropout == 0.1
    assert finetune.config.frame_scales == {}


def test_a_half_precision_checkpoint_is_trained_in_single_precision(hubert: Path, tmp_path: Path) -> None:
    HubertModel.from_pretrained(hubert, dtype=torch.float16).save_pretrained(tmp_path)
    model = load_model(HubertForGMPATL, tmp_path, 0, LABELS)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_head_for_other_emotions_is_begun_anew(tmp_path: Path) -> None:
    small_model(HubertForGMPATL).save_pretrained(tmp_path)
    model = load_model(HubertForGMPATL, tmp_path, 0, LABELS)
    assert model.classifier.weight.shape[0] == 2
    assert torch.isfinite(model.classifier.weight).all()


def labels_of(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


@pytest.mark.parametrize(
    ("kind", "head"),
    [(HubertForGMPATLMultiTask, {"emotion_classifier.weight"}), (HubertForGMPATL, {"classifier.weight"})],
)
@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (("anger", "neutral", "sadness"), True),
        (("joy", "fear", "disgust"), False),
        (("neutral", "anger", "sadness"), False),
    ],
)
def test_a_head_for_as_many_other_emotions_is_begun_anew_and_one_for_the_same_is_kept(
    tmp_path: Path, kind: Any, head: set[str], names: tuple[str, ...], kept: bool
) -> None:
    saved = small_model(kind, standardize=True)
    with torch.no_grad():
        saved.standardization.mean.fill_(0.5)
        saved.standardization.emotion_means.fill_(0.7)
        saved.standardization.spread.fill_(0.3)
    saved.save_pretrained(tmp_path)
    first, again, other = (load_model(kind, tmp_path, seed, labels_of(*names)) for seed in (0, 0, 1))
    assert not changed(weights_of(first), weights_of(again))
    assert changed(weights_of(first), weights_of(other)) == (set() if kept else head)
    known = {f"standardization.{name}" for name in ("emotion_means", "spread")}
    assert changed(weights_of(saved), weights_of(first)) == (set() if kept else head | known)
    drawn = first.get_parameter(min(head))
    assert kept or 0 < drawn.std() < 2 * first.config.initializer_range


@pytest.mark.parametrize("names", [("joy", "fear", "disgust"), ("anger", "neutral", "sadness", "joy")])
def test_what_is_known_of_other_emotions_is_forgotten_whatever_their_number(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    saved = small_model(HubertForGMPATL, standardize=True, logit_temperature=3.0)
    saved.standardization.emotion_means.data.fill_(0.7)
    saved.standardization.spread.data.fill_(0.3)
    saved.save_pretrained(tmp_path)
    model = load_model(HubertForGMPATL, tmp_path, 0, labels_of(*names))
    assert model.config.logit_temperature == 1.0
    assert (float(model.standardization.spread.max()), float(model.standardization.spread.min())) == (1.0, 1.0)
    assert not model.standardization.emotion_means.any()


def test_fields_that_do_not_fit_are_refused(hubert: Path) -> None:
    with pytest.raises(RequestError, match="am_softmax_margin"):
        load_model(HubertForGMPATL, hubert, 0, {**LABELS, "am_softmax_margin": 3.0})


def test_an_encoder_of_another_shape_is_refused_with_the_names_of_its_tensors(hubert: Path, tmp_path: Path) -> None:
    shutil.copytree(hubert, tmp_path / "copy")
    content = json.loads((hubert / "config.json").read_text())
    (tmp_path / "copy/config.json").write_text(json.dumps({**content, "num_hidden_layers": 4}))
    with pytest.raises(RequestError, match=r"lacks or has in another shape: hubert\.encoder\.layers\.3\."):
        load_model(HubertForGMPATL, tmp_path / "copy", 0, LABELS)


def test_loading_is_quiet_and_leaves_verbosity_as_it_was(hubert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(HubertForGMPATL, hubert, 0, LABELS)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    with pytest.raises(ZeroDivisionError), quiet_transformers():
        raise ZeroDivisionError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_an_encoder_that_comes_with_the_package_is_found_by_its_name(
    hubert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHIPPED, "model", str(hubert))
    monkeypatch.chdir(tmp_path)
    assert describe_backbone("model") == describe_backbone(str(hubert))
    loaded, named = (load_model(HubertForGMPATL, name, 0, LABELS) for name in (hubert, "model"))
    assert not changed(weights_of(loaded), weights_of(named))
    assert load_feature_extractor("model").to_dict() == load_feature_extractor(hubert).to_dict()
    with pytest.raises(
        RequestError, match="the backbone maxi cannot be read: 'maxi' is neither a folder nor an encoder"
    ):
        describe_backbone("maxi")
