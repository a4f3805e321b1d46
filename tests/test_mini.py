"""The encoder `mini`: how it was made, what its card says, and what goes before it; see also test_shipped.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, HubertModel

from gmp_atl_hf.checkpoints import describe_backbone, locate
from gmp_atl_hf.pretraining.recipe import PretrainRecipe

MINI = Path(locate("mini"))
REPORT = json.loads((MINI / "pretraining.json").read_text(encoding="utf-8"))
CARD = (MINI / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def encoder() -> HubertModel:
    return AutoModel.from_pretrained(MINI, dtype=torch.float32).eval()


def test_its_name_is_enough_and_a_folder_of_that_name_is_something_else() -> None:
    assert Path(locate("mini")) == MINI
    assert locate("./mini") == "./mini"
    assert describe_backbone("mini")["config"]["hidden_size"] == 192


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
