"""Every promise for every family of speech encoders; `docs/encoders.md` has the table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Wav2Vec2ForSequenceClassification,
    WhisperForConditionalGeneration,
)

from families import CASES, ONE_EACH, make_stock, stock_states, take_over
from gmp_atl_hf import (
    GMPATLConfig,
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
    SpeechEmotionClassifier,
)
from gmp_atl_hf.batching.conv_features import FrontEnd, front_end_key
from gmp_atl_hf.card.method import encoder_name
from gmp_atl_hf.checkpoints import (
    describe_backbone,
    load_feature_extractor,
    load_model,
    seen_speakers,
    speakers_seen_by,
)
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.hub.metadata import card_metadata
from gmp_atl_hf.inference.scorers import PackedScorer, make_scorer
from gmp_atl_hf.modeling.encoding_gmp_atl import GMPATLModel
from gmp_atl_hf.modeling.families_gmp_atl import FAMILIES
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.pretraining.teachers import Teacher, teacher_facts
from gmp_atl_hf.protocols.leakage import maybe_seen
from models import gradients, listen, make_clips, pad
from runs import SPLIT, given_split, run, write_corpus
from test_modeling_pipeline import LENGTHS as SCORED
from test_modeling_pipeline import score_in_a_fresh_process

CLIPS = make_clips([6_400, 2_345, 400])
LENGTHS = [*range(400, 1_100, 37), 639, 640, 719, 720, *range(1_280, 40_000, 4_811), 39_999, 40_000]
READOUTS = ("last", "sum", 2)
PACKED = ("hubert", "wav2vec2", "unispeech-sat")
"""Families that the CPU path computes without padding."""
every_case = pytest.mark.parametrize("case", CASES)
one_of_each = pytest.mark.parametrize("case", ONE_EACH)


@pytest.fixture(scope="module")
def stocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Case → folder of a stock checkpoint, and the stock model."""
    folders = {case: tmp_path_factory.mktemp(case) for case in CASES}
    return {case: (folder, make_stock(case, folder)) for case, folder in folders.items()}


def test_every_family_is_among_the_cases() -> None:
    assert {kind for kind, _ in CASES.values()} == set(FAMILIES)
    assert {CASES[case][0] for case in ONE_EACH} == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_names_a_test_or_a_reason_for_every_step_of_a_family(family: str) -> None:
    page = (
        (Path(__file__).parents[1] / "docs" / "encoders.md").read_text(encoding="utf-8").split("## What is tested")[1]
    )
    heading, _, *rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    assert len(heading) == 8
    (row,) = (cells for cells in rows if cells[0].strip() == f"`{family}`")
    assert len(row) == len(heading)
    for cell in row[1:]:
        (name,) = re.findall(r"`([^`]+)`", cell)
        assert callable(globals().get(f"test_{name}")) or (Path(__file__).parents[1] / name).is_file()


# ---- encoding --------------------------------------------------------------------------------------------------------


@every_case
def test_states_are_those_of_the_stock_encoder(case: str, stocks: Any) -> None:
    folder, stock = stocks[case]
    model = take_over(HubertForGMPATL, folder)
    entering, last = stock_states(case, stock, CLIPS[0])
    with torch.no_grad():
        ours = model.hubert(CLIPS[0][None], output_hidden_states=True)
    for one, other in zip(entering, ours.hidden_states, strict=False):
        torch.testing.assert_close(other[0], one, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.last_hidden_state[0], last, rtol=1e-4, atol=1e-4)
    assert len(ours.hidden_states) == 4


@pytest.mark.parametrize("readout", READOUTS)
@every_case
def test_a_clip_scores_the_same_alone_and_in_a_batch(case: str, readout: Any, stocks: Any) -> None:
    model = take_over(HubertForGMPATL, stocks[case][0], readout=readout, pooling="statistics")
    with torch.no_grad():
        alone = torch.cat([model(clip[None]).logits for clip in CLIPS])
        batch = model(**pad(CLIPS, filling=7.0)).logits
    torch.testing.assert_close(batch, alone, rtol=0, atol=1e-4)
    assert np.ptp(alone.numpy(), axis=0).max() > 0.1  # the clips do differ


def test_spectra_of_a_clip_do_not_hear_what_is_padding_or_no_whole_frame(stocks: Any) -> None:
    model = take_over(HubertForGMPATL, stocks["whisper"][0])
    clips = make_clips([6_400, 3_200, 2_560 + 319])
    clips[2][1_000:2_000] = 0.0  # as quiet as the loudest spectrum allows
    clips[2][-200:] = 300.0
    with torch.no_grad():
        alone = [model.hubert(clip[None]).last_hidden_state[0] for clip in clips]
        batch = model.hubert(**pad(clips, filling=7.0)).last_hidden_state
    for row, states in enumerate(alone):
        torch.testing.assert_close(batch[row, : len(states)], states, rtol=0, atol=1e-4)


@every_case
def test_there_is_a_label_for_every_frame_whatever_the_length(case: str, stocks: Any) -> None:
    folder, stock = stocks[case]
    model = take_over(HubertForGMPATLFrameClassification, folder)
    config, grid = model.config, teacher_facts(str(folder)).grid
    for samples in LENGTHS:
        frames = frame_count(samples, config.conv_kernel, config.conv_stride)
        assert frames == grid.count(samples) >= 1
        if case != "whisper":
            assert frames == stock._get_feat_extract_output_lengths(samples)
    with torch.no_grad():
        encoded = model.encode(**pad([torch.zeros(samples) + 0.1 for samples in LENGTHS[::4]]), layers=(2,))
    expected = [frame_count(samples, config.conv_kernel, config.conv_stride) for samples in LENGTHS[::4]]
    assert encoded.frame_mask.sum(-1).tolist() == expected
    assert encoded.hidden_states[2].shape == encoded.last_hidden_state.shape == (len(expected), max(expected), 16)


@pytest.mark.parametrize("model_class", [HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification, HubertForGMPATL])
@every_case
def test_a_step_in_two_parts_has_the_gradients_of_one(case: str, model_class: Any, stocks: Any) -> None:
    model = take_over(model_class, stocks[case][0], readout="sum").train()
    batch = _labelled(model)
    counts = model.count_parts(batch)
    model(**batch, loss_denominators=counts).loss.backward()
    whole = gradients(model)
    for rows in ([0], [1, 2]):
        model(**{name: values[rows] for name, values in batch.items()}, loss_denominators=counts).loss.backward()
    largest = max(float(value.abs().max()) for value in whole.values())
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-5 * largest, msg=name)


def _labelled(model: Any) -> dict[str, torch.Tensor]:
    """The clips with everything that a model can be asked to learn; a third of the frames is masked."""
    batch = pad(CLIPS)
    frames = frame_count(batch["attention_mask"].sum(-1), model.config.conv_kernel, model.config.conv_stride)
    longest = int(frames.max())
    valid = torch.arange(longest)[None] < frames[:, None]
    masked = valid & (torch.arange(longest)[None] % 3 == 0)
    known: dict[str, torch.Tensor] = {
        "labels": torch.tensor([0, 1, 3]),
        "gender_labels": torch.tensor([1, 0, 1]),
        "frame_labels": torch.where(valid[:, :, None], 3, -100).expand(-1, -1, 2),
    }
    return {**batch, "mask_time_indices": masked, **{name: known[name] for name in model.target_names}}


@every_case
def test_checkpointed_layers_have_the_same_gradients(case: str, stocks: Any) -> None:
    model = take_over(HubertForGMPATL, stocks[case][0]).train()
    batch = _labelled(model)
    model(**batch).loss.backward()
    plain = gradients(model)
    model.gradient_checkpointing_enable()
    model(**batch).loss.backward()
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, plain[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("how", ["autocast", "stored"])
@every_case
def test_bfloat16_gives_nearly_the_same_states(case: str, how: str, stocks: Any) -> None:
    model = take_over(HubertForGMPATL, stocks[case][0])
    with torch.no_grad():
        exact = model.hubert(**pad(CLIPS)).last_hidden_state[0]
        if how == "stored":
            model = model.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            found = model.hubert(**pad(CLIPS)).last_hidden_state[0].float()
    assert torch.cosine_similarity(found, exact, dim=-1).min() > 0.98


@every_case
def test_cached_features_give_the_same_scores_but_for_their_rounding(case: str, stocks: Any) -> None:
    folder, _ = stocks[case]
    model, extractor = take_over(HubertForGMPATL, folder), load_feature_extractor(folder)
    front_end = FrontEnd(model, extractor)
    features = [torch.from_numpy(front_end.encode(clip.numpy())) for clip in CLIPS]
    longest = max(map(len, features))
    inputs = {
        "conv_features": torch.stack(
            [torch.nn.functional.pad(each, (0, 0, 0, longest - len(each))) for each in features]
        ),
        "frame_mask": torch.stack([torch.arange(longest) < len(each) for each in features]),
    }
    waves = extractor([clip.numpy() for clip in CLIPS], sampling_rate=16_000, padding=True, return_tensors="pt")
    with torch.no_grad():
        cached, computed = model(**inputs).logits, model(**waves).logits
    spread = float(computed.max() - computed.min())
    torch.testing.assert_close(cached, computed, rtol=0, atol=0.01 * spread)
    assert front_end.channels == features[0].shape[1]


def test_front_ends_that_differ_have_keys_that_differ(stocks: Any) -> None:
    extractor = load_feature_extractor(stocks["hubert"][0])
    keys = {case: front_end_key(take_over(HubertForGMPATL, stocks[case][0]), extractor) for case in CASES}
    finer = HubertForGMPATL(GMPATLConfig.from_pretrained(stocks["whisper"][0], conv_dim=[128, 256]))
    keys["whisper with 128 bins"] = front_end_key(finer, extractor)
    different = ("hubert", "hubert-large", "data2vec-audio", "whisper", "whisper with 128 bins")
    assert len({keys[case] for case in different}) == len(different)


@every_case
def test_a_frozen_front_end_is_not_trained(case: str, stocks: Any) -> None:
    model = take_over(HubertForGMPATL, stocks[case][0]).train()
    model.freeze_feature_encoder()
    model(**_labelled(model)).loss.backward()
    trained = set(gradients(model))
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
    part = "hubert.feature_projection.conv" if case == "whisper" else "hubert.feature_extractor."
    assert frozen and all(name.startswith(part) for name in frozen)
    assert {"hubert.masked_spec_embed", "hubert.encoder.layers.0.attention.q_proj.weight"} <= trained


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@every_case
def test_a_saved_model_comes_back_as_it_was(case: str, stocks: Any, tmp_path: Path) -> None:
    model = take_over(HubertForGMPATL, stocks[case][0], readout=2)
    model.save_pretrained(tmp_path)
    again = load_model(HubertForGMPATL, tmp_path, seed=1, whole=True).eval()
    encoder = GMPATLModel.from_pretrained(tmp_path).eval()
    places = {"_name_or_path": None, "auto_map": None}
    assert {**again.config.to_dict(), **places} == {**model.config.to_dict(), **places}
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(CLIPS[0][None]).logits, model(CLIPS[0][None]).logits)
        assert torch.equal(encoder(CLIPS[0][None]).last_hidden_state, model.hubert(CLIPS[0][None]).last_hidden_state)


@one_of_each
def test_one_tensor_less_is_noticed(case: str, stocks: Any, tmp_path: Path) -> None:
    stocks[case][1].save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(
        name for name in weights if "layers.1." in name and "decoder" not in name and name.endswith("v_proj.weight")
    )
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestError, match=r"layers\.1\.attention\.v_proj\.weight"):
        describe_backbone(str(tmp_path))


@one_of_each
def test_by_hand_it_begins_from_a_stock_checkpoint_too(case: str, stocks: Any) -> None:
    folder, stock = stocks[case]
    model = HubertForGMPATLFrameClassification.from_pretrained(folder, frame_scales={"gmp_layer2_k5": 5})
    assert model.config.encoder_type == CASES[case][0]
    assert model.config.masks_time and model.config.mask_time_prob == 0.8
    theirs = stock.encoder.layers[2].fc2 if case == "whisper" else stock.encoder.layers[2].feed_forward.output_dense
    assert torch.equal(model.hubert.encoder.layers[2].feed_forward.output_dense.weight, theirs.weight)


@one_of_each
def test_nobody_knows_whom_whisper_has_heard(case: str, stocks: Any) -> None:
    heard = ["unknown"] if case == "whisper" else []
    folder = stocks[case][0]
    assert seen_speakers(folder) == GMPATLConfig.from_pretrained(folder).seen_speakers == heard
    assert maybe_seen(speakers_seen_by(describe_backbone(str(folder))), {"emodb/03"}) is (case == "whisper")


def test_configurations_of_hubert_models_do_not_mention_a_family() -> None:
    config = GMPATLConfig()
    assert config.encoder_type == "hubert"
    assert "encoder_type" not in config.to_json_string(use_diff=False)


@pytest.mark.parametrize("kind", ["encoder alone", "speech to text"])
def test_whispers_encoder_is_found_under_all_its_names(kind: str, stocks: Any, tmp_path: Path) -> None:
    folder, stock = stocks["whisper"]
    if kind == "encoder alone":
        stock.encoder.save_pretrained(tmp_path)
    else:
        whole = WhisperForConditionalGeneration(stock.config)
        whole.model.load_state_dict(stock.state_dict())
        whole.save_pretrained(tmp_path)
    with listen() as said:
        HubertForGMPATL.from_pretrained(tmp_path)
    assert "UNEXPECTED" not in "".join(said) and "layers" not in "".join(said)
    one, other = take_over(HubertForGMPATL, folder), take_over(HubertForGMPATL, tmp_path)
    with torch.no_grad():
        assert torch.equal(other(CLIPS[0][None]).logits, one(CLIPS[0][None]).logits)


@pytest.mark.parametrize("names", ["old", "new"])
def test_an_encoder_below_another_head_is_found(names: str, stocks: Any, tmp_path: Path) -> None:
    folder, stock = stocks["wav2vec2"]
    whole = Wav2Vec2ForSequenceClassification(stock.config)
    whole.wav2vec2.load_state_dict(stock.state_dict())
    whole.save_pretrained(tmp_path)
    if names == "old":  # as the checkpoints on the Hub have them
        weights = load_file(tmp_path / "model.safetensors")
        for new, old in (
            ("parametrizations.weight.original0", "weight_g"),
            ("parametrizations.weight.original1", "weight_v"),
        ):
            weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
        assert sum("weight_g" in name for name in weights) == 1
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    one, other = take_over(HubertForGMPATL, folder), take_over(HubertForGMPATL, tmp_path)
    with torch.no_grad():
        assert torch.equal(other(CLIPS[0][None]).logits, one(CLIPS[0][None]).logits)
    other.save_pretrained(tmp_path / "saved")
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == set(other.state_dict())


# ---- what is made of a model -----------------------------------------------------------------------------------------


@every_case
def test_the_classifier_scores_as_the_model_does(case: str, stocks: Any) -> None:
    folder, _ = stocks[case]
    model, extractor = take_over(HubertForGMPATL, folder), load_feature_extractor(folder)
    waves = [clip.numpy() for clip in CLIPS]
    classify = SpeechEmotionClassifier(model, extractor, device="cpu")
    assert isinstance(classify._scorer, PackedScorer) == (CASES[case][0] in PACKED)
    with torch.no_grad():
        for wave, found in zip(waves, classify([(16_000, wave) for wave in waves]), strict=True):
            expected = model(**extractor(wave, sampling_rate=16_000, return_tensors="pt")).logits.softmax(-1)[0]
            assert list(found.scores.values()) == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("case", ["wavlm", "data2vec-audio", "whisper"])
def test_int8_is_refused_by_name_where_it_is_not_made(case: str, stocks: Any) -> None:
    model = take_over(HubertForGMPATL, stocks[case][0])
    with pytest.raises(RequestError, match=f"not made for models with {CASES[case][0]} encoders"):
        make_scorer(model, load_feature_extractor(stocks[case][0]), "int8")


@one_of_each
def test_a_trained_model_is_probed_and_embeds_as_any_encoder(case: str, stocks: Any, tmp_path: Path) -> None:
    folder, _ = stocks[case]
    model = take_over(HubertForGMPATL, folder)
    model.save_pretrained(tmp_path)
    load_feature_extractor(folder).save_pretrained(tmp_path)
    stock, own = teacher_facts(str(folder)), teacher_facts(str(tmp_path))
    assert (own.layers, own.width, own.knows_places) == (stock.layers, stock.width, case == "whisper")
    wave = CLIPS[0].numpy()
    for layer in (0, 2):
        one, other = (Teacher(facts, [layer], torch.device("cpu")).states(wave)[layer] for facts in (stock, own))
        if case == "whisper":  # the stock one's first silent spectra still hear the clip's end
            one, other = one[:-1], other[:-1]
        assert (other - one).norm() / one.norm() < (0.1 if case == "whisper" and layer else 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "readout"),
    [
        ("wav2vec2", "last"),
        ("unispeech-sat-large", 2),
        ("wavlm", "sum"),
        ("wavlm-large", "last"),
        ("data2vec-audio", "last"),
        ("whisper", 2),
        ("whisper", "sum"),
    ],
)
def test_onnx_scores_as_the_model_does(case: str, readout: Any, stocks: Any, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx`")
    pytest.importorskip("onnxscript", reason="the extra `onnx`")
    from gmp_atl_hf.inference import onnx_export

    folder, _ = stocks[case]
    model = take_over(HubertForGMPATL, folder, readout=readout)
    report = onnx_export.export_onnx(model, load_feature_extractor(folder), tmp_path / "model.onnx")
    assert max(report.differences.values()) <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    inputs = pad(CLIPS)
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@one_of_each
def test_a_pushed_folder_needs_no_package(case: str, stocks: Any, tmp_path: Path) -> None:
    model = take_over(HubertForGMPATL, stocks[case][0])
    model.save_pretrained(tmp_path / "model")
    load_feature_extractor(stocks[case][0]).save_pretrained(tmp_path / "model")
    found, said = score_in_a_fresh_process(tmp_path / "model", "remote")
    assert said == ""
    assert not found["package"] and found["module"].startswith("transformers_modules.")
    extractor = load_feature_extractor(stocks[case][0])
    for clip, scores in zip(make_clips(SCORED), found["auto"], strict=True):
        with torch.no_grad():
            inputs = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt")
            assert scores == pytest.approx(model(**inputs).logits.softmax(-1)[0].tolist(), abs=1e-5)


@pytest.mark.slow
@one_of_each
def test_the_whole_method(case: str, stocks: Any, tmp_path: Path) -> None:
    """Multi-task, labels, retraining, fine-tuning and the test, from random weights saved to disk."""
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    recipe = given_split(root, backbone=str(stocks[case][0]), variants=["gmp-atl"])
    report = run(recipe, tmp_path / "run")
    assert 0 <= report["variants"]["gmp-atl"]["uar"]["pooled"] <= 1
    classify = SpeechEmotionClassifier.from_pretrained(tmp_path / "run" / "model", device="cpu")
    assert classify.model.config.encoder_type == CASES[case][0]
    found = classify((16_000, CLIPS[0].numpy()))
    assert found.error is None and sum(found.scores.values()) == pytest.approx(1)


def test_a_card_calls_an_encoder_by_its_name() -> None:
    names = {family: encoder_name(GMPATLConfig(encoder_type=family)) for family in FAMILIES}
    assert names["hubert"] == "HuBERT" and names["wavlm"] == "WavLM" and len(set(names.values())) == len(FAMILIES)
    assert "- wav2vec2" in card_metadata("audio-classification", "wav2vec2")
