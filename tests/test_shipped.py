"""The encoders that come with the package: their size, their frames, how they load, and what their cards say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoFeatureExtractor, AutoModel, HubertModel

from gmp_atl_hf.checkpoints import describe_backbone, load_model, locate, maybe_seen_stamp, seen_speakers
from gmp_atl_hf.data.audio import SAMPLING_RATE
from gmp_atl_hf.modeling.configuration_gmp_atl import SHIPPED
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count, hop_length, receptive_field
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.pretraining.recipe import PretrainRecipe
from gmp_atl_hf.protocols.leakage import MAYBE_SEEN_STAMP

MOST_BYTES = {"mini": 12_000_000, "small": 24_000_000}

every_encoder = pytest.mark.parametrize("name", sorted(MOST_BYTES))


def folder_of(name: str) -> Path:
    return Path(locate(name))


def card_of(name: str) -> str:
    return (folder_of(name) / "README.md").read_text(encoding="utf-8")


def report_of(name: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder_of(name) / "pretraining.json").read_text(encoding="utf-8"))
    return report


def encoder_of(name: str) -> HubertModel:
    return AutoModel.from_pretrained(folder_of(name), dtype=torch.float32).eval()


def test_each_of_them_is_tested_here() -> None:
    assert set(SHIPPED) == set(MOST_BYTES)


def test_its_name_is_enough_and_a_folder_of_that_name_is_something_else() -> None:
    assert locate("./mini") == "./mini"
    assert describe_backbone("mini")["config"]["hidden_size"] == 256


def test_a_folder_with_an_adapter_goes_before_the_encoder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = locate("mini")
    monkeypatch.chdir(tmp_path)
    Path("mini").mkdir()
    assert locate("mini") == own, "an empty folder is no model"
    Path("mini", "adapter_config.json").write_text("{}", encoding="utf-8")
    assert locate("mini") == "mini"


@every_encoder
def test_it_is_small(name: str) -> None:
    assert sum(file.stat().st_size for file in folder_of(name).iterdir()) <= MOST_BYTES[name]
    millions = sum(parameter.numel() for parameter in encoder_of(name).parameters()) / 1e6
    assert f"{millions:.1f} million parameters" in card_of(name)


@every_encoder
def test_it_makes_the_frames_of_its_big_relatives(name: str) -> None:
    config = encoder_of(name).config
    assert hop_length(config.conv_stride) == 320
    assert receptive_field(config.conv_kernel, config.conv_stride) == 400
    for samples in (400, 719, 720, 16_000):
        expected = frame_count(samples, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
        assert frame_count(samples, config.conv_kernel, config.conv_stride) == expected
    assert AutoFeatureExtractor.from_pretrained(folder_of(name)).sampling_rate == SAMPLING_RATE


@every_encoder
def test_it_ships_in_half_precision_and_is_trained_in_full(name: str) -> None:
    with safe_open(folder_of(name) / "model.safetensors", framework="pt") as stored:
        assert {stored.get_tensor(each).dtype for each in stored.keys()} == {torch.float16}  # noqa: SIM118
    model = load_model(HubertForGMPATL, name, seed=0, fields={"id2label": {"0": "a", "1": "b"}})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@every_encoder
def test_it_says_whom_it_has_seen_and_none_of_them_is_of_an_emotional_corpus(name: str) -> None:
    seen, report = seen_speakers(locate(name)), report_of(name)
    assert {"plain-speech/kerstin", "plain-speech/nathalie", "plain-speech/unknown"} < set(seen)
    assert {speaker.partition("/")[0] for speaker in seen} == {"plain-speech", "unknown"}, "unknown: the teacher's own"
    assert len(seen) == sum(report["speech"][part]["speakers"] for part in ("train", "dev")) + 1


@every_encoder
def test_its_stamp_says_that_nobody_knows_whom_its_teacher_has_heard(name: str) -> None:
    assert f"The encoder {name} was taught by openai/whisper-base, and nobody knows" in maybe_seen_stamp(name)
    assert maybe_seen_stamp(locate(name)) == MAYBE_SEEN_STAMP


@every_encoder
def test_the_recipe_on_the_page_is_the_one_it_was_made_by(name: str) -> None:
    recipe, config = PretrainRecipe.from_yaml(f"pretrain-{name}"), encoder_of(name).config
    assert not isinstance(recipe.backbone, str)
    for field, value in recipe.backbone.items():
        assert getattr(config, field) == value, field
    for entry, spec in zip(report_of(name)["iterations"], recipe.iterations, strict=True):
        assert (entry["features"], entry["start"]) == (spec.features, spec.start)
        assert entry["log"][-1]["epoch"] == pytest.approx(spec.arguments["num_train_epochs"], abs=0.05)


@every_encoder
def test_the_card_has_the_figures_of_the_run(name: str) -> None:
    report, card = report_of(name), card_of(name)
    for entry in report["iterations"]:
        assert f"{entry['updates']:,}" in card
        for column, cosine in entry.get("cosines", {}).items():
            assert f"{cosine:.2f}" in card, column
    assert f"{report['seconds'] / 60:.0f} minutes" in card
    for part in ("train", "dev"):
        assert f"{report['speech'][part]['hours']:.2f} h" in card
    for word in ("LibriSpeech", "CC BY 4.0", "Picovoice", "Apache-2.0", "rhasspy", "CC0"):
        assert word in card
    assert (folder_of(name) / "curves.png").is_file()
