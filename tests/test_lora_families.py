"""Adapters beside the layers of every family of encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from families import ONE_EACH, make_stock
from gmp_atl_hf.checkpoints import load_emotion_model
from runs import SPLIT, given_split, run, write_corpus

pytest.importorskip("peft")


@pytest.mark.parametrize("case", ONE_EACH)
def test_adapters_of_every_family_are_trained_and_make_the_model_with_their_encoder(case: str, tmp_path: Path) -> None:
    make_stock(case, tmp_path / "stock")
    recipe = given_split(
        write_corpus(tmp_path / "corpus", split=SPLIT),
        backbone=str(tmp_path / "stock"),
        stages__finetune={"lora": {}, "num_train_epochs": 1, "head_epochs": 1, "learning_rate": 1e-2, "use_cpu": True},
        variants=["direct"],
    )
    run(recipe, tmp_path / "run")
    adapter = load_file(tmp_path / "run/model/adapter/adapter_model.safetensors")
    trained = {name for name, value in adapter.items() if "lora_B" in name and value.any()}
    assert {name.split(".")[-3] for name in trained} == {"q_proj", "v_proj"}
    assert len(trained) == sum("lora_B" in name for name in adapter) == len(set(trained))
    whole, merged = (load_emotion_model(str(tmp_path / "run" / name)) for name in ("model", "model/adapter"))
    torch.testing.assert_close(whole.state_dict(), merged.state_dict(), rtol=0, atol=0)
