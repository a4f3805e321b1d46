"""The encoder that comes with the package: its size, its frames, how it loads, and what its card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoFeatureExtractor, AutoModel, HubertModel

from gmp_atl_hf.checkpoints import describe_backbone, load_model, locate, seen_speakers
from gmp_atl_hf.data.audio import SAMPLING_RATE
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count, hop_length, receptive_field
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.pretraining.recipe import PretrainRecipe

MINI = Path(locate("mini"))
REPORT = json.loads((MINI / "pretraining.json").read_text(encoding="utf-8"))
CARD = (MINI / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def encoder() -> HubertModel:
    return AutoModel.from_pretrained(MINI, dtype=torch.float32).eval()


def test_it_is_small(encoder: HubertModel) -> None:
    assert sum(parameter.numel() for parameter in encoder.parameters()) <= 6_000_000
    assert sum(file.stat().st_size for file in MINI.iterdir()) <= 12_000_000


def test_it_makes_the_frames_of_its_big_relatives(encoder: HubertModel) -> None:
    config = encoder.config
    assert hop_length(config.conv_stride) == 320
    assert receptive_field(config.conv_kernel, config.conv_stride) == 400
    for samples in (400, 719, 720, 16_000):
        expected = frame_count(samples, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
        assert frame_count(samples, config.conv_kernel, config.conv_stride) == expected
    assert AutoFeatureExtractor.from_pretrained(MINI).sampling_rate == SAMPLING_RATE


def test_it_ships_in_half_precision_and_is_trained_in_full() -> None:
    with safe_open(MINI / "model.safetensors", framework="pt") as stored:
        assert {stored.get_tensor(name).dtype for name in stored.keys()} == {torch.float16}  # noqa: SIM118
    model = load_model(HubertForGMPATL, "mini", seed=0, fields={"id2label": {"0": "a", "1": "b"}})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_its_name_is_enough_and_a_folder_of_that_name_is_something_else() -> None:
    assert Path(locate("mini")) == MINI
    assert locate("./mini") == "./mini"
    assert describe_backbone("mini")["config"]["hidden_size"] == 192


def test_it_says_whom_it_has_heard_and_none_of_them_is_of_an_emotional_corpus() -> None:
    heard = seen_speakers(locate("mini"))
    assert {"plain-speech/kerstin", "plain-speech/nathalie", "plain-speech/unknown"} < set(heard)
    assert {speaker.partition("/")[0] for speaker in heard} == {"plain-speech"}
    assert len(heard) == REPORT["speech"]["train"]["speakers"] + REPORT["speech"]["dev"]["speakers"]


def test_the_recipe_on_the_page_is_the_one_it_was_made_by(encoder: HubertModel) -> None:
    recipe = PretrainRecipe.from_yaml("pretrain-mini-mfcc")
    assert not isinstance(recipe.backbone, str)
    for name, value in recipe.backbone.items():
        assert getattr(encoder.config, name) == value, name
    for entry, spec in zip(REPORT["iterations"], recipe.iterations, strict=True):
        assert (entry["features"], entry["start"]) == (spec.features, spec.start)
        assert {int(facts["clusters"]) for facts in entry["labels"].values()} == {*spec.clusters}
        assert round(entry["log"][-1]["epoch"]) == spec.arguments["num_train_epochs"]


def test_the_card_has_the_figures_of_the_run() -> None:
    for entry in REPORT["iterations"]:
        assert f"{entry['updates']:,}" in CARD
        for name, value in entry["masked_frames_right"].items():
            assert f"{100 * value:.1f} % of {entry['labels'][name]['clusters']:g}" in CARD, name
    assert f"{REPORT['seconds'] / 60:.0f} minutes" in CARD
    for part in ("train", "dev"):
        assert f"{REPORT['speech'][part]['hours']:.2f} h" in CARD
    last = REPORT["iterations"][-1]
    ended = next(row for row in reversed(last["log"]) if "eval_loss" in row)
    for name, facts in last["labels"].items():
        assert f"{100 * ended[f'eval_accuracy_{name}']:.1f} % of {facts['clusters']:g}" in CARD
        assert facts["used"] == facts["clusters"]
    assert f"share {last['agreement_with_labels_before']['gmp_layer4_k100']['gmp_layer0_k100']:.2f} of" in CARD
    for name in ("LibriSpeech", "CC BY 4.0", "Picovoice", "Apache-2.0", "rhasspy", "CC0"):
        assert name in CARD
    assert (MINI / "curves.png").is_file()


def test_a_folder_with_an_adapter_goes_before_the_encoder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mini").mkdir()
    assert Path(locate("mini")) == MINI, "an empty folder is no model"
    Path("mini", "adapter_config.json").write_text("{}", encoding="utf-8")
    assert locate("mini") == "mini"
