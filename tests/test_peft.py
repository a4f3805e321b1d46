"""LoRA adapters: trained, saved and loaded as other models are, and never without the speakers they were trained on."""

from __future__ import annotations

import json
import shutil
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from gmp_atl_hf.checkpoints import load_emotion_model, load_feature_extractor, seen_speakers
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data.audio import read_clip
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.hub import trainer_card as trainer_push
from gmp_atl_hf.inference.classifier import SpeechEmotionClassifier
from gmp_atl_hf.inference.scorers import make_scorer
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.training.lora import add_lora, save_adapter
from gmp_atl_hf.training.trainer import GMPATLTrainer
from models import MODELS, build_backbone
from tables import LABELS, feature_extractor, small_model, speech_table, training_arguments

peft = pytest.importorskip("peft")

TABLE = speech_table(6).add_column("speaker", ["tones/1", "tones/2"] * 3)


def adapted(model: Any, *also_saved: str) -> Any:
    heads = [
        name for name, layer in model.named_modules() if not name.startswith("hubert") and hasattr(layer, "weight")
    ]
    return peft.get_peft_model(
        model, peft.LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=[*heads, *also_saved])
    )


def trainer_for(model: Any, folder: Path, **fields: Any) -> GMPATLTrainer:
    every = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "learning_rate": 3e-2}
    arguments = training_arguments(folder, **{"num_train_epochs": 2, **every, **fields})
    return GMPATLTrainer(model, arguments, TABLE, TABLE, feature_extractor())


def saved_model(folder: Path, **fields: Any) -> HubertForGMPATL:
    small_model(HubertForGMPATL, **fields).save_pretrained(folder)
    feature_extractor().save_pretrained(folder)
    return HubertForGMPATL.from_pretrained(folder)


@pytest.mark.parametrize("model_class", MODELS)
def test_an_adapted_model_trains_evaluates_saves_and_is_pushed(
    model_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_for(adapted(small_model(model_class)), tmp_path, hub_model_id="somebody/adapter")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert {"lora_" in name or "modules_to_save" in name for name in changed} == {True}
    assert "eval_loss" in trainer.evaluate()
    assert ("eval_uar" in trainer.evaluate()) == ("labels" in model_class.target_names)
    sent: list[str] = []
    monkeypatch.setattr(trainer_push, "push_files", lambda files, *_, **__: sent.extend(one.path for one in files))
    trainer.push_to_hub()
    assert sorted(sent) == sorted(set(sent))
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "gmp_atl_config.json"} <= set(sent)
    assert model_class.__name__ in trainer_push.trainer_card(
        trainer.base, trainer.state, trainer.args, "somebody/adapter"
    )


@pytest.mark.parametrize("standardize", [False, True])
def test_an_adapter_is_loaded_with_its_speakers_and_scores_as_it_was_trained(standardize: bool, tmp_path: Path) -> None:
    base = saved_model(tmp_path / "base", seen_speakers=["other/old"], logit_temperature=4.0, standardize=standardize)
    if standardize:
        base.standardization.fit(torch.randn(9, 32) + 5)  # of an earlier training, on other clips
    model = adapted(base, *["standardization"] * standardize)
    trainer = trainer_for(model, tmp_path / "out", head_epochs=2, learning_rate=3e-3)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    expected = torch.from_numpy(trainer.predict(TABLE).predictions).softmax(-1).numpy()
    waves = [read_clip(row["audio"]) for row in TABLE]

    classifier = SpeechEmotionClassifier.from_pretrained(tmp_path / "adapter", device="cpu")
    scores = [[one.scores[label] for label in LABELS] for one in classifier([(16_000, wave) for wave in waves])]
    # Merged weights are rounded, and a head that learned more, on standardised vectors too, shows it more.
    np.testing.assert_allclose(scores, expected, atol=1e-3)

    said = ["other/old", "tones/1", "tones/2"]
    assert seen_speakers(tmp_path / "adapter") == said
    assert classifier.model.config.seen_speakers == said
    assert trainer.model.merge_and_unload().config.seen_speakers == said
    classifier.model.save_pretrained(tmp_path / "merged")
    feature_extractor().save_pretrained(tmp_path / "merged")
    assert seen_speakers(tmp_path / "merged") == said

    pipe = pipeline("speech-emotion-recognition", model=str(tmp_path / "adapter"), device="cpu")
    shown = {each["label"]: each["score"] for each in pipe(waves[0], top_k=None)}
    np.testing.assert_allclose([shown[label] for label in LABELS], expected[0], atol=1e-3)
    assert pipe.model.config.seen_speakers == said


def test_an_adapter_on_the_hub_has_the_feature_extractor_of_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_model(tmp_path / "base")
    feature_extractor(normalise=True).save_pretrained(tmp_path / "base")
    peft.get_peft_model(
        HubertForGMPATL.from_pretrained(tmp_path / "base"), peft.LoraConfig(target_modules=["q_proj"])
    ).save_pretrained(tmp_path / "cache/models--some--adapter/snapshots/1")
    (tmp_path / "cache/models--some--adapter/refs").mkdir()
    (tmp_path / "cache/models--some--adapter/refs/main").write_text("1")
    for missing in ("preprocessor_config.json", "gmp_atl_config.json"):  # the Hub has said so
        note = tmp_path / "cache/models--some--adapter/.no_exist/1" / missing
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_feature_extractor("some/adapter").do_normalize


def test_the_head_of_a_plain_hubert_comes_with_its_adapter(tmp_path: Path) -> None:
    build_backbone().save_pretrained(tmp_path / "plain")
    names = dict(enumerate(LABELS))
    base = HubertForGMPATL.from_pretrained(
        tmp_path / "plain", id2label=names, label2id={v: k for k, v in names.items()}
    )
    trainer = trainer_for(adapted(base), tmp_path / "out")
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    classifier = SpeechEmotionClassifier.from_pretrained(tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(classifier.model.classifier.weight, trainer.base.classifier.weight.detach())
    assert seen_speakers(tmp_path / "adapter") == ["tones/1", "tones/2"]


def test_an_adapter_without_its_head_or_its_model_is_refused(tmp_path: Path) -> None:
    build_backbone().save_pretrained(tmp_path / "plain")
    adapter = peft.LoraConfig(target_modules=["q_proj"])
    peft.get_peft_model(HubertForGMPATL.from_pretrained(tmp_path / "plain"), adapter).save_pretrained(tmp_path / "a")
    with pytest.raises(RequestError, match="'hubert' model"):
        SpeechEmotionClassifier.from_pretrained(tmp_path / "a")
    peft.get_peft_model(small_model(HubertForGMPATL), adapter).save_pretrained(tmp_path / "b")
    with pytest.raises(RequestError, match="does not say which model it belongs to"):
        SpeechEmotionClassifier.from_pretrained(tmp_path / "b")


@pytest.mark.parametrize(
    ("fields", "settings", "said"),
    [
        ({"standardize": True}, {}, "would not save mean and deviation"),
        ({"readout": "sum"}, {}, "the weights of the sum are frozen"),
    ],
)
def test_what_an_adapter_would_not_save_is_not_trained(
    fields: dict[str, Any], settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=said):
        trainer_for(adapted(small_model(HubertForGMPATL, **fields)), tmp_path, **settings)


def test_heads_that_are_frozen_cannot_come_first(tmp_path: Path) -> None:
    model = peft.get_peft_model(small_model(HubertForGMPATL), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(RequestError, match="head_epochs is 2, and all heads are frozen"):
        trainer_for(model, tmp_path, head_epochs=2)


def test_an_adapter_on_a_base_of_another_shape_is_refused(tmp_path: Path) -> None:
    base = saved_model(tmp_path / "base")
    trainer = trainer_for(adapted(base), tmp_path / "out", num_train_epochs=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    saved_model(tmp_path / "base", intermediate_size=64)
    with pytest.raises(RequestError, match="lacks weights, or .*base has others"):
        SpeechEmotionClassifier.from_pretrained(tmp_path / "adapter", device="cpu")


def test_an_adapter_on_a_base_of_other_weights_is_refused(tmp_path: Path) -> None:
    base = saved_model(tmp_path / "base")
    trainer = trainer_for(adapted(base), tmp_path / "out", num_train_epochs=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    SpeechEmotionClassifier.from_pretrained(tmp_path / "adapter", device="cpu")

    other = HubertForGMPATL.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        other.hubert.encoder.layers[1].attention.q_proj.weight[0, 0] += 1e-3
    other.save_pretrained(tmp_path / "base")
    with pytest.raises(RequestError, match=r"other weights than .*base has now: 1 tensors, .*layers.1.*q_proj.weight"):
        SpeechEmotionClassifier.from_pretrained(tmp_path / "adapter", device="cpu")
    with pytest.raises(ValueError, match="was trained on other weights than this model has: 1 tensors"):
        HubertForGMPATL.from_pretrained(tmp_path / "base").load_adapter(str(tmp_path / "adapter"))

    (tmp_path / "adapter/gmp_atl_base.json").unlink()  # one of an earlier version
    SpeechEmotionClassifier.from_pretrained(tmp_path / "adapter", device="cpu")


@pytest.fixture(params=["ours", "of another trainer"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    base = saved_model(tmp_path / "base")
    model = adapted(base)
    if request.param == "ours":
        save_adapter(model, base, tmp_path / "adapter", str(tmp_path / "base"))
    else:
        model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_whose_model_is_gone_says_where_it_was_and_what_to_do(adapter: Path) -> None:
    base = adapter.parent / "base"
    (base / "model.safetensors").rename(adapter.parent / "weights")
    with pytest.raises(RequestError, match=f"the model {base}, to which the adapter {adapter} belongs"):
        load_emotion_model(str(adapter))
    (base / "config.json").unlink()
    for missing in ("which holds no model", "which is not there"):
        for load in (load_emotion_model, load_feature_extractor):
            with pytest.raises(RequestError, match=f"{adapter} belongs to the model in {base}, {missing}") as error:
                load(str(adapter))
            assert "put the model back there" in str(error.value) and "base_model_name_or_path" in str(error.value)
        shutil.rmtree(base, ignore_errors=True)
    (adapter / "hashes.json").write_text("{}")
    with pytest.raises(RequestError, match="and delete .*hashes.json"):
        load_emotion_model(str(adapter))


def test_an_adapter_whose_model_is_on_the_hub_needs_a_network_once(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(
        json.dumps({**settings, "base_model_name_or_path": "nobody/has-this-model"})
    )
    with pytest.raises(RequestError, match="the model nobody/has-this-model.* cannot be (loaded|read)") as error:
        load_emotion_model(str(adapter))
    assert "connect to the Hub" in str(error.value) and "write the folder of a copy" in str(error.value)
    assert "put the model back" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("adapter_model.safetensors", lambda file: file.write_bytes(file.read_bytes()[:900]), "weights .* be read"),
        ("adapter_model.safetensors", lambda file: file.unlink(), "has no weights"),
        ("adapter_config.json", lambda file: file.write_text("{"), "adapter_config.json cannot be read"),
        ("adapter_config.json", lambda file: file.write_text("[]"), "adapter_config.json .* it holds no settings"),
    ],
)
def test_a_damaged_adapter_is_to_be_copied_again(adapter: Path, name: str, damage: Any, said: str) -> None:
    damage(adapter / name)
    with pytest.raises(RequestError, match=said) as error:
        load_emotion_model(str(adapter))
    assert str(adapter) in error.value.found and "copy the adapter again" in str(error.value.fix)


def test_a_whole_model_is_no_adapter_to_merge_which_is_said_before_its_weights_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_model(tmp_path / "base")
    (tmp_path / "base/model.safetensors").write_bytes(b"")
    (tmp_path / "nothing").mkdir()
    for name, said in (("base", "is a whole model"), ("nothing", "it has no config.json"), ("no/x", "no folder")):
        assert main(["merge", str(tmp_path / name), str(tmp_path / "merged")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_whom_another_trainer_has_shown_an_adapter_is_unknown(tmp_path: Path) -> None:
    adapter = peft.LoraConfig(target_modules=["q_proj"])
    base = saved_model(tmp_path / "base", seen_speakers=["other/old"], logit_temperature=4.0)
    peft.get_peft_model(base, adapter).save_pretrained(tmp_path / "adapter")
    assert seen_speakers(tmp_path / "adapter") == ["other/old", "unknown"]
    config = SpeechEmotionClassifier.from_pretrained(tmp_path / "adapter", device="cpu").model.config
    assert (config.seen_speakers, config.logit_temperature) == (["other/old", "unknown"], 1.0)

    build_backbone().save_pretrained(tmp_path / "plain")
    peft.get_peft_model(HubertForGMPATL.from_pretrained(tmp_path / "plain"), adapter).save_pretrained(tmp_path / "a")
    assert seen_speakers(tmp_path / "a") == ["unknown"]


def test_int8_is_not_computed_past_an_adapter_that_is_not_merged() -> None:
    model = add_lora(small_model(HubertForGMPATL).eval())
    with pytest.raises(RequestError, match=r"layers.0.attention.[qv]_proj has an adapter(.|\n)*merge_and_unload"):
        make_scorer(model.get_base_model(), feature_extractor(), "int8")


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd")
@pytest.mark.parametrize("target", [r".*conv_layers\.\d\.conv", r".*pos_conv_embed\.conv", r".*(q_proj|output_dense)"])
def test_a_classifier_hears_an_adapter_wherever_it_is_and_whenever_it_was_put_in(target: str) -> None:
    model: Any = small_model(HubertForGMPATL, initializer_range=0.2).eval()
    classifier = SpeechEmotionClassifier(model, feature_extractor())
    clip = np.random.default_rng(0).standard_normal(9_000).astype(np.float32)
    before = classifier((16_000, clip))
    peft.get_peft_model(model, peft.LoraConfig(target_modules=target, init_lora_weights=False)).eval()
    found = classifier((16_000, clip))
    with torch.inference_mode():
        values = feature_extractor()(clip, sampling_rate=16_000, return_tensors="pt")["input_values"]
        wanted = model(values).logits.softmax(-1)[0].tolist()
    assert list(found.scores.values()) == pytest.approx(wanted, abs=1e-5)
    assert before.scores != pytest.approx(found.scores, abs=1e-4)


def test_adapters_are_not_frozen_with_the_encoder(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="freeze_encoder is true, and the adapters are in the encoder"):
        trainer_for(add_lora(small_model(HubertForGMPATL)), tmp_path, freeze_encoder=True)


def test_layers_that_are_dropped_at_the_first_update_are_not_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = cycle([0.0, 0.9])  # every other layer is dropped
    monkeypatch.setattr("torch.rand", lambda *_, **__: torch.tensor(next(draws)))
    model = add_lora(small_model(HubertForGMPATL, layerdrop=0.5))
    trainer_for(model, tmp_path, num_train_epochs=1).train()


def test_an_adapter_needs_no_vector_for_masked_frames_that_its_model_has_not(tmp_path: Path) -> None:
    build_backbone(mask_time_prob=0.0).save_pretrained(tmp_path / "plain")
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: n for n, label in enumerate(LABELS)}}
    base = HubertForGMPATL.from_pretrained(tmp_path / "plain", mask_time_prob=0.1, **names)
    trainer = trainer_for(adapted(base), tmp_path / "out", num_train_epochs=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    classifier = SpeechEmotionClassifier.from_pretrained(tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(classifier.model.classifier.weight, trainer.base.classifier.weight.detach())
