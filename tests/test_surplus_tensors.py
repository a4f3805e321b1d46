"""A finished model whose file holds more than its configuration has places for, or that lacks its extractor."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gmp_atl_hf import HubertForGMPATL, HubertForGMPATLMultiTask, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor, load_emotion_model, load_feature_extractor, load_model
from gmp_atl_hf.errors import RequestError
from models import build, build_backbone

WEIGHTS = "model.safetensors"


def saved(folder: Path, shape: str = "large", **fields: Any) -> Path:
    model = build(HubertForGMPATL, shape, **fields)
    model.save_pretrained(folder)
    default_feature_extractor(model.config).save_pretrained(folder)
    return folder


def configured(folder: Path, **fields: Any) -> None:
    before = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**before, **fields}))


def adding(folder: Path, *names: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, **{name: torch.ones(2) for name in names}}, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("shape", "made_with", "changed", "named"),
    [
        ("large", {"standardize": True}, {"standardize": False}, "standardization.deviation"),
        ("large", {"pooling": "attention"}, {"pooling": "mean"}, "pooling."),
        ("large", {"emotion_loss": "cross-entropy"}, {"emotion_loss": "am-softmax"}, "classifier.bias"),
        ("base", {"readout": "sum"}, {"readout": "last"}, "hubert.layer_weights"),
        ("large", {"num_hidden_layers": 3}, {"num_hidden_layers": 2}, "hubert.encoder.layers.2."),
        ("base", {"num_hidden_layers": 3, "readout": 2}, {"num_hidden_layers": 1, "readout": 1}, "encoder.layers.1."),
        ("base", {"num_hidden_layers": 3, "readout": "sum"}, {"num_hidden_layers": 2}, "hubert.layer_weights"),
    ],
)
def test_tensors_that_would_change_scores_are_refused_by_name(
    tmp_path: Path, shape: str, made_with: dict[str, Any], changed: dict[str, Any], named: str
) -> None:
    folder = saved(tmp_path / "model", shape, **made_with)
    assert isinstance(load_emotion_model(str(folder)), HubertForGMPATL)
    configured(folder, **changed)
    with pytest.raises(RequestError, match=rf"(?s)model\.safetensors .*{re.escape(named)}.*fix: "):
        load_emotion_model(str(folder))
    with pytest.raises(RequestError, match=re.escape(named)):
        load_model(HubertForGMPATL, folder, seed=0, whole=True)


def test_tensors_of_pickles_and_of_several_files_are_seen_too(tmp_path: Path) -> None:
    folder = saved(tmp_path / "pickle", standardize=True)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    load_emotion_model(str(folder))
    parts = tmp_path / "parts"
    model = build(HubertForGMPATL, "large", standardize=True)
    model.save_pretrained(parts, max_shard_size="20KB")
    assert not (parts / WEIGHTS).exists()
    load_emotion_model(str(parts))
    for place in (folder, parts):
        configured(place, standardize=False)
        with pytest.raises(RequestError, match=r"standardization\.mean"):
            load_emotion_model(str(place))


def test_tensors_that_change_no_score_are_passed_over(tmp_path: Path) -> None:
    """Heads of other trainings, layers above the one that is read, and what stands above stock encoders."""
    folder = saved(tmp_path / "model", num_hidden_layers=3, readout=2)
    adding(folder, "gender_classifier.weight", "frame_heads.k50.weight", "quantizer.codevectors", "lm_head.weight")
    adding(folder, "hubert.encoder.layers.2.layer_norm.weight", "hubert.encoder.layer_norm.weight")
    load_emotion_model(str(folder))
    adding(folder, "hubert.encoder.layers.3.layer_norm.weight")
    with pytest.raises(RequestError, match=r"encoder\.layers\.3\.layer_norm"):
        load_emotion_model(str(folder))


def test_a_training_begins_from_what_has_more_than_it_needs(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", standardize=True, pooling="attention")
    load_model(HubertForGMPATL, folder, seed=0, fields={"standardize": False, "pooling": "mean"})
    load_model(HubertForGMPATLMultiTask, folder, seed=0)


# Without preprocessor_config.json


@pytest.mark.parametrize(("shape", "how"), [("large", "are normalised"), ("base", "are not normalised")])
def test_a_trained_model_without_its_extractor_says_how_recordings_are_prepared(
    tmp_path: Path, shape: str, how: str
) -> None:
    folder = saved(tmp_path / "model", shape)
    (folder / "preprocessor_config.json").unlink()
    with pytest.warns(UserWarning, match=rf"no preprocessor_config\.json: recordings {how}"):
        SpeechEmotionClassifier.from_pretrained(folder)


def test_a_stock_encoder_without_its_extractor_is_loaded_as_ever(tmp_path: Path) -> None:
    build_backbone("large").save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_feature_extractor(tmp_path).do_normalize
        assert load_feature_extractor("mini").sampling_rate == 16_000
