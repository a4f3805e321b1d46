"""GMPATLConfig: what cannot work is refused at construction, what is written comes back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from gmp_atl_hf import GMPATLConfig
from models import EMOTIONS, SCALES, listen, tiny_config, tiny_hubert_config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "max"}, "pooling is 'max'; expected one of 'mean', 'attention', 'statistics'"),
        ({"emotion_loss": "arcface"}, "emotion_loss is 'arcface'; expected one of 'am-softmax', 'cross-entropy'"),
        ({"frame_head": "mlp"}, "frame_head is 'mlp'; expected one of 'linear', 'cosine'"),
        ({"frame_targets": "unmasked"}, "frame_targets is 'unmasked'; expected one of 'masked', 'all'"),
        ({"am_softmax_scale": 0.0}, "am_softmax_scale is 0.0; expected a number above 0"),
        ({"logit_temperature": -1.0}, "logit_temperature is -1.0; expected a number above 0"),
        ({"am_softmax_margin": 1.0}, "am_softmax_margin is 1.0; expected 0 <= m < 1"),
        ({"am_softmax_margin": -0.1}, "am_softmax_margin is -0.1"),
        ({"emotion_weight": 1.1}, "emotion_weight is 1.1; expected 0 to 1"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm=True is not supported"),
        ({"am_softmax_scale": "30"}, "am_softmax_scale is '30'; expected a number above 0"),
        ({"frame_scales": {"gmp_layer10_k0": 0}}, "frame_scales has 0 clusters for 'gmp_layer10_k0'"),
        ({"frame_scales": {"gmp_layer10_k50": "50"}}, "frame_scales has '50' clusters for 'gmp_layer10_k50'"),
    ],
)
def test_a_field_out_of_range_is_refused_at_construction(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        GMPATLConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"pooling": "max"},
        {"am_softmax_scale": "thirty"},
        {"logit_temperature": float("nan")},
        {"frame_scales": {"gmp_layer10_k50": 0}},
        {"conv_pos_batch_norm": True},
    ],
)
def test_a_field_out_of_range_is_refused_beside_a_checkpoint(fields: dict[str, Any], tmp_path: Path) -> None:
    # transformers sets such fields after construction, unseen by the checks of the dataclass.
    tiny_hubert_config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=next(iter(fields))):
        GMPATLConfig.from_pretrained(tmp_path, **fields)


def test_fields_given_beside_a_checkpoint_replace_its_own(tmp_path: Path) -> None:
    tiny_config(pooling="mean", layerdrop=0.1).save_pretrained(tmp_path)
    config, unused = GMPATLConfig.from_pretrained(
        tmp_path, pooling="attention", layerdrop=0.2, mask_time_prob=0.3, colour="red", return_unused_kwargs=True
    )
    assert (config.pooling, config.layerdrop, config.mask_time_prob) == ("attention", 0.2, 0.3)
    assert unused == {"colour": "red"}


def test_defaults_are_those_of_the_docstring() -> None:
    config = GMPATLConfig()
    assert (config.pooling, config.emotion_loss, config.frame_head, config.frame_targets) == (
        "mean",
        "am-softmax",
        "linear",
        "masked",
    )
    assert (config.am_softmax_scale, config.am_softmax_margin, config.logit_temperature) == (30.0, 0.2, 1.0)
    assert (config.emotion_weight, config.layerdrop, config.frame_scales) == (0.9, 0.0, {})


def test_a_configuration_comes_back_from_json(tmp_path: Path) -> None:
    config = tiny_config(
        "large",
        pooling="statistics",
        emotion_loss="cross-entropy",
        am_softmax_scale=20.0,
        am_softmax_margin=0.35,
        logit_temperature=2.5,
        emotion_weight=0.5,
        frame_head="cosine",
        frame_targets="all",
    )
    config.save_pretrained(tmp_path)
    back = GMPATLConfig.from_pretrained(tmp_path)
    assert back.id2label == dict(enumerate(EMOTIONS))
    assert all(type(key) is int for key in back.id2label)
    assert back.label2id == {name: index for index, name in enumerate(EMOTIONS)}
    assert back.frame_scales == SCALES and list(back.frame_scales) == list(SCALES)
    written = {**config.to_dict(), "transformers_version": None}
    assert {**back.to_dict(), "transformers_version": None} == written
    assert type(AutoConfig.from_pretrained(tmp_path)) is GMPATLConfig


@pytest.mark.parametrize("beside_a_checkpoint", [False, True])
def test_scales_have_one_order_before_and_after_json(tmp_path: Path, beside_a_checkpoint: bool) -> None:
    # JSON sorts them as text, k100 before k50; the order is that of the columns of frame_labels and must not change.
    scales = {"gmp_layer9_k50": 50, "gmp_layer10_k500": 500, "gmp_layer10_k50": 50, "gmp_layer10_k100": 100}
    if beside_a_checkpoint:
        tiny_hubert_config().save_pretrained(tmp_path)
        config = GMPATLConfig.from_pretrained(tmp_path, frame_scales=scales)
    else:
        config = GMPATLConfig(frame_scales=scales)
    assert list(config.frame_scales) == ["gmp_layer10_k50", "gmp_layer9_k50", "gmp_layer10_k100", "gmp_layer10_k500"]
    config.save_pretrained(tmp_path)
    assert list(GMPATLConfig.from_pretrained(tmp_path).frame_scales) == list(config.frame_scales)


def test_scales_are_not_shared_with_the_caller() -> None:
    scales = dict(SCALES)
    config = GMPATLConfig(frame_scales=scales)
    scales["other"] = 3
    assert config.frame_scales == SCALES


def test_a_hubert_configuration_becomes_ours_with_layerdrop_off_and_without_a_word(tmp_path: Path) -> None:
    tiny_hubert_config("large", layerdrop=0.1, mask_time_prob=0.3).save_pretrained(tmp_path)
    with listen() as messages:
        config = GMPATLConfig.from_pretrained(tmp_path)
    assert messages == []
    assert config.layerdrop == 0.0
    assert (config.mask_time_prob, config.do_stable_layer_norm, config.hidden_size) == (0.3, True, 32)
    assert config.model_type == "gmp_atl"
    assert GMPATLConfig.from_pretrained(tmp_path, layerdrop=0.05).layerdrop == 0.05
    stock = json.loads((tmp_path / "config.json").read_text())
    assert (stock["model_type"], stock["layerdrop"]) == ("hubert", 0.1)


def test_our_own_layerdrop_is_kept(tmp_path: Path) -> None:
    tiny_config(layerdrop=0.05).save_pretrained(tmp_path)
    assert GMPATLConfig.from_pretrained(tmp_path).layerdrop == 0.05


MANY = [f"emotion {letter}" for letter in "kjihgfedcbal"]


@pytest.mark.parametrize("number", [int, str, np.int64], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("way", ["built", "assigned", "beside a checkpoint", "written by others"])
def test_labels_come_in_the_order_of_their_numbers_however_they_are_given(
    way: str, number: Any, tmp_path: Path
) -> None:
    # As text, 10 and 11 come before 2: that is how JSON with sorted keys has them.
    names = {number(index): MANY[index] for index in sorted(range(len(MANY)), key=str)}
    numbers = {name: number(index) for index, name in names.items()}
    if way == "built":
        config = GMPATLConfig(id2label=names, label2id=numbers)
    elif way == "assigned":
        config = tiny_config()
        config.label2id, config.id2label = numbers, names
    elif way == "beside a checkpoint":
        tiny_config().save_pretrained(tmp_path / "other")
        config = GMPATLConfig.from_pretrained(tmp_path / "other", id2label=names, label2id=numbers)
    else:
        written = {"model_type": "gmp_atl", "id2label": {str(index): name for index, name in names.items()}}
        (tmp_path / "config.json").write_text(json.dumps(written))
        config = AutoConfig.from_pretrained(tmp_path)
    for _ in range(2):
        assert config.emotions == MANY
        assert list(config.id2label.items()) == list(enumerate(MANY)) and {*map(type, config.id2label)} == {int}
        assert list(config.label2id.items()) == [(name, index) for index, name in enumerate(MANY)]
        config.save_pretrained(tmp_path)
        config = AutoConfig.from_pretrained(tmp_path)


def test_one_table_of_labels_is_enough_and_replaces_both_of_a_checkpoint(tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    for fields in ({"id2label": {"1": "b", "0": "a"}}, {"label2id": {"b": "1", "a": "0"}}):
        for config in (GMPATLConfig(**fields), GMPATLConfig.from_pretrained(tmp_path, **fields)):
            assert config.id2label == {0: "a", 1: "b"} and config.label2id == {"a": 0, "b": 1}
    config.id2label = {0: "c", 1: "d", 2: "e"}
    assert config.label2id == {"c": 0, "d": 1, "e": 2} and config.num_labels == 3
    config.num_labels = 2
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}},
        {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0}},
        {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "c": 1}},
        {"id2label": {1: "a", 2: "b"}},
        {"id2label": {0: "a", 2: "b"}},
        {"id2label": {0: "a", "0": "b"}},
        {"id2label": {0: "a", 1: "a"}},
        {"id2label": {"a": 0, "b": 1}},
        {"id2label": {True: "a", False: "b"}},
        {"label2id": {"a": 0, "b": 0}},
        {"id2label": ["a", "b"]},
        {"label2id": ["a", "b"]},
        {"id2label": "ab"},
    ],
    ids=str,
)
def test_labels_that_contradict_each_other_are_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    tiny_config(id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}).save_pretrained(tmp_path)
    for make in (
        lambda: GMPATLConfig(**fields),
        lambda: GMPATLConfig.from_pretrained(tmp_path, **fields),
        lambda: _assigned(fields).save_pretrained(tmp_path / "assigned"),
    ):
        with pytest.raises((ValueError, StrictDataclassError), match=r"(label2id|id2label) is .*(expected|disagrees)"):
            make()


def _assigned(fields: dict[str, Any]) -> GMPATLConfig:
    config = tiny_config()
    for name, value in fields.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize(("layer", "resolved"), [(1, 1), (10, 10), (12, 12), (-1, 12), (-3, 10), (-12, 1)])
def test_layers_are_named_from_either_end(layer: int, resolved: int) -> None:
    assert GMPATLConfig().resolve_layer(layer) == resolved


@pytest.mark.parametrize("layer", [0, 13, -13])
def test_a_layer_that_does_not_exist_is_refused(layer: int) -> None:
    with pytest.raises(ValueError, match="12 transformer layers"):
        GMPATLConfig().resolve_layer(layer)
