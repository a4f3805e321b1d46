"""What encoders of other families cannot do is refused by name, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, WhisperFeatureExtractor, pipeline

from audio_files import tone, write_audio
from families import make_stock, take_over
from gmp_atl_hf import GMPATLConfig, HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import describe_backbone, load_feature_extractor
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.encoding_gmp_atl import GMPATLModel
from gmp_atl_hf.modeling.families_gmp_atl import FAMILIES
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run.plan import plan_run
from gmp_atl_hf.training.checks import check_training_table
from models import make_clips, pad
from pretrainings import pretrain, pretrain_dict, write_speech
from runs import recipe_dict, write_corpus
from tables import speech_table

CLIPS = make_clips([6_400, 2_345, 400])


@pytest.fixture(scope="module")
def stocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Case → folder of a stock checkpoint, and the stock model."""
    folders = {case: tmp_path_factory.mktemp(case) for case in ("wavlm", "whisper")}
    return {case: (folder, make_stock(case, folder)) for case, folder in folders.items()}


@pytest.mark.parametrize("kind", ["wav2vec2-conformer", "audio-spectrogram-transformer", "seamless_m4t_v2", "bert"])
def test_other_encoders_are_refused_by_name_before_any_training(kind: str, tmp_path: Path) -> None:
    config = CONFIG_MAPPING[kind]()
    config.save_pretrained(tmp_path)
    with pytest.raises(RequestError) as refused:
        describe_backbone(str(tmp_path))
    assert repr(kind) in refused.value.found
    assert all(family in str(refused.value.expected) for family in FAMILIES)
    with pytest.raises(ValueError, match=f"is a '{kind}' model.*those that are: hubert, wav2vec2"):
        HubertForGMPATL.from_pretrained(tmp_path)


def test_reentrant_checkpoints_are_refused_where_layers_share_a_bias(stocks: Any) -> None:
    model = take_over(HubertForGMPATL, stocks["wavlm"][0]).train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ValueError, match="use_reentrant=True does not work for WavLM"):
        model(**pad(CLIPS))
    model.eval()(**pad(CLIPS))


def test_a_family_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'conformer' encoders are not supported; those that are: hubert, wav2vec2"):
        GMPATLConfig(encoder_type="conformer")


def test_fields_of_another_family_make_no_backbone() -> None:
    with pytest.raises(RequestError, match="`backbone` has `model_type` 'wavlm'"):
        describe_backbone({"model_type": "wavlm", "hidden_size": 16})


def test_a_pretraining_goes_on_with_a_hubert_only(stocks: Any, tmp_path: Path) -> None:
    recipe = pretrain_dict(write_speech(tmp_path / "speech"), backbone=str(stocks["wavlm"][0]))
    with pytest.raises(RequestError, match="is a wavlm encoder"):
        pretrain(recipe, tmp_path / "run")


def test_adapters_that_change_the_number_of_frames_are_refused(tmp_path: Path) -> None:
    make_stock("wav2vec2", tmp_path, add_adapter=True)
    with pytest.raises(RequestError, match="add_adapter=True"):
        describe_backbone(str(tmp_path))


def test_whisper_with_other_spectra_is_refused(stocks: Any, tmp_path: Path) -> None:
    make_stock("whisper", tmp_path)
    WhisperFeatureExtractor(hop_length=320).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="hop_length 320"):
        load_feature_extractor(tmp_path)


def test_clips_that_whisper_has_no_places_for_are_refused(stocks: Any) -> None:
    model = take_over(
        HubertForGMPATL, stocks["whisper"][0], id2label=None, label2id={"anger": 0, "neutral": 1, "sadness": 2}
    )
    with pytest.raises(ValueError, match=r"a clip of 3\.22 s is too long: Whisper has positions for 3\.2 s"):
        model(torch.zeros(1, 161 * 320))
    table = speech_table(3, shortest=50_000, longest=60_000)
    with pytest.raises(RequestError, match=r"at most 3\.2 s, for which whisper encoders have places"):
        check_training_table(table, model)


def test_a_run_refuses_clips_that_whisper_has_no_places_for_before_its_first_training(
    stocks: Any, tmp_path: Path
) -> None:
    root = write_corpus(tmp_path / "corpus")
    for take, samples in ((7, 51_200), (8, 52_800), (9, 64_000)):
        write_audio(root / f"anger/m3_{take}.wav", tone(samples))
    recipe = Recipe.from_dict(recipe_dict(root, variants=["direct"], backbone=str(stocks["whisper"][0])))
    named = r"(?s)2 of 39 clips.*m3_8.wav has 3\.3 s, .*m3_9.wav has 4 s.*at most 3\.2 s"
    with pytest.raises(RequestError, match=named):
        plan_run(recipe, tmp_path / "run")


def test_long_recordings_are_scored_in_windows_that_whisper_has_places_for(stocks: Any) -> None:
    model = take_over(HubertForGMPATL, stocks["whisper"][0])
    classify = SpeechEmotionClassifier(model, load_feature_extractor(stocks["whisper"][0]), device="cpu")
    found = classify((16_000, make_clips([112_000])[0].numpy()))
    assert [round(each.start, 3) for each in found.windows] == [0, 3.2, 3.8]
    assert [round(each.end, 3) for each in found.windows] == [3.2, 6.4, 7.0]
    with pytest.raises(RequestError, match=r"(?s)window is 5.*at most 3\.2 seconds"):
        classify((16_000, CLIPS[0].numpy()), window=5)
    task: Any = pipeline("speech-emotion-recognition", model, feature_extractor=classify.feature_extractor)
    with pytest.raises(RequestError, match=r"(?s)window is 5.*at most 3\.2 seconds"):
        task(CLIPS[0].numpy(), window=5)
    assert len(task(make_clips([112_000])[0].numpy(), window=3.2)) == 4


def test_flash_attention_is_refused_where_it_cannot_add_a_bias(stocks: Any) -> None:
    config = GMPATLConfig.from_pretrained(stocks["wavlm"][0])
    config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="expected 'sdpa' or 'eager'"):
        GMPATLModel(config)
