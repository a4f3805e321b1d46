"""`lora` in a recipe: the encoder stays as it is, what comes next is a plain model, and the adapter lies beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from torch.nn import functional
from transformers import pipeline
from transformers.models.hubert.modeling_hubert import HubertAttention

from gmp_atl_hf import GMPATLConfig, GMPATLTrainer, HubertForGMPATL, HubertForGMPATLMultiTask, LoraSettings, add_lora
from gmp_atl_hf.checkpoints import heard_recordings, load_emotion_model, seen_speakers
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data.audio import read_clip
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.files import write_json
from gmp_atl_hf.inference.classifier import SpeechEmotionClassifier
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from gmp_atl_hf.run.adapters import describe_adapters
from gmp_atl_hf.training.lora import count_trained
from hub_server import TOKEN, serve_hub
from kills import run_until
from models import MODELS, head_fields
from recipes import at, recipe, refused
from runs import SPLIT, changed_recipe, given_split, read_json, read_lines, results, run, write_corpus
from tables import feature_extractor, small_model, speech_table, training_arguments

pytest.importorskip("peft")

FOLD = "gmp-atl/seed-0/fold-01"
STEPS = ("1-multitask", "3-retrain", "4-finetune")


@pytest.fixture(scope="module")
def adapted_recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All that goes together with adapters, at once; fine-tuned without them, too."""
    stage = {"freeze_feature_encoder": True, "lora": {"r": 2, "lora_dropout": 0.1}, "learning_rate": 3e-2}
    first = {"head_epochs": 2, "layer_decay": 0.7}
    changes = {f"stages__{name}__{key}": value for name in ("multitask", "retrain") for key, value in stage.items()}
    changes |= {f"stages__finetune__{key}": value for key, value in {**stage, **first}.items()}
    changes |= {f"stages__multitask__{key}": value for key, value in first.items()}
    return given_split(
        write_corpus(tmp_path_factory.mktemp("corpus"), split=SPLIT),
        model={"readout": "sum", "standardize": True, "layerdrop": 0.0, "am_softmax_scale": 30.0},
        variants=["gmp-atl", {"name": "whole", "set": {"stages.finetune.lora": None}}],
        **changes,
    )


@pytest.fixture(scope="module")
def finished(adapted_recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(adapted_recipe, folder)
    return folder


def speech_wave(row: int = 0) -> np.ndarray:
    return read_clip(speech_table(3)["audio"][row])


# ---- in a run --------------------------------------------------------------------------------------------------------


def test_each_stage_changes_what_its_adapters_reach_and_nothing_else_of_the_encoder(finished: Path) -> None:
    weights = {step: load_file(finished / FOLD / step / "model.safetensors") for step in STEPS}
    before = {
        f"hubert.{key}": value for key, value in load_file(finished / "backbone/seed-0/model.safetensors").items()
    }
    starts = {"1-multitask": before, "3-retrain": before, "4-finetune": weights["3-retrain"]}
    for step, start in starts.items():
        changed = {key for key, value in start.items() if not torch.equal(value, weights[step].get(key, value))}
        reached = {
            f"hubert.encoder.layers.{n}.attention.{name}.weight" for n in range(3) for name in ("q_proj", "v_proj")
        }
        assert changed - {"hubert.layer_weights", "hubert.masked_spec_embed"} == reached, step
        assert not torch.equal(weights[step]["hubert.layer_weights"], start.get("hubert.layer_weights", torch.zeros(4)))
        assert not any("lora" in key or "original_module" in key for key in weights[step])


def test_the_adapter_beside_the_model_is_the_model_with_its_speakers_and_temperature(finished: Path) -> None:
    whole, merged = (load_emotion_model(str(finished / name)) for name in ("model", "model/adapter"))
    torch.testing.assert_close(whole.state_dict(), merged.state_dict(), rtol=0, atol=0)
    assert whole.config.to_diff_dict() == merged.config.to_diff_dict()
    assert merged.config.logit_temperature != 1
    assert seen_speakers(finished / "model/adapter") == ["folder/f1", "folder/f2", "folder/m1", "folder/m2"]
    assert not list(finished.rglob("adapter/README.md"))
    for step in STEPS:
        assert (finished / FOLD / step / "adapter" / "adapter_model.safetensors").is_file(), step


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "gmp_atl_config.json"])
@pytest.mark.parametrize("place", ["model", f"{FOLD}/4-finetune"])
def test_an_adapter_that_was_damaged_is_refused(place: str, name: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / place / "adapter", tmp_path / "adapter")
    load_emotion_model(str(tmp_path / "adapter"))
    file = tmp_path / "adapter" / name
    file.write_bytes(file.read_bytes().replace(b"0", b"1"))
    with pytest.raises(RequestError, match=f"{name} is damaged or was changed"):
        load_emotion_model(str(tmp_path / "adapter"))
    if name == "gmp_atl_config.json":
        with pytest.raises(RequestError, match=f"{name} is damaged or was changed"):
            seen_speakers(tmp_path / "adapter")


def test_what_is_to_be_done_about_a_damaged_adapter_of_a_run_helps(
    adapted_recipe: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    folder, weights = tmp_path / "run", "model/adapter/adapter_model.safetensors"
    shutil.copytree(finished, folder)
    (folder / weights).unlink()
    with pytest.raises(RequestError, match=rf"not there any more.*\n.*\n.*fix: delete the folder {folder}/model and"):
        run(adapted_recipe, folder)
    shutil.rmtree(folder / "model")
    run(adapted_recipe, folder)
    assert (folder / weights).read_bytes() == (finished / weights).read_bytes()


def test_the_share_of_trained_parameters_is_kept_and_told(finished: Path) -> None:
    counts = read_json(finished / FOLD / "4-finetune" / "training.json")["lora"]
    # 3 layers, 2 of their layers, rank 2, 16 inputs and outputs; 3 classes of 16, 4 weights of a sum, the mask's 16.
    assert (counts["adapters"], counts["heads"]) == (3 * 2 * 2 * (16 + 16), 3 * 16 + 4 + 16)
    plain = sum(
        value.numel() for key, value in load_file(finished / "model/model.safetensors").items() if "standard" not in key
    )
    assert counts["all"] == plain + counts["adapters"]
    assert counts["share"] == pytest.approx((counts["adapters"] + counts["heads"]) / counts["all"], abs=1e-6)
    [told] = [note for note in read_json(finished / "report.json")["notes"] if note.startswith("gmp-atl: finetune:")]
    assert f"{100 * counts['share']:.2f} %" in told
    assert "LoRA adapters of rank 2 at q_proj, v_proj" in (finished / "model/README.md").read_text("utf-8")


def test_shares_that_differ_among_folds_are_told_with_the_number_of_their_trainings(tmp_path: Path) -> None:
    """As after a search among ranks, one of which is none at all."""
    steps: list[Any] = []
    for number, adapters in enumerate((100, 200, 200, None)):
        counts = {} if adapters is None else {"lora": {"adapters": adapters, "heads": 50, "all": 10_000}}
        write_json(tmp_path / str(number) / "training.json", counts)
        steps.append(SimpleNamespace(finished=True, resolve=lambda number=number: tmp_path / str(number)))
    assert describe_adapters("direct", {"finetune": steps, "retrain": steps[3:]}) == [
        "direct: finetune: "
        "LoRA trains 2.50 % of 10,000 parameters: 200 of adapters and 50 of heads (in 2 of 4 trainings); "
        "LoRA trains 1.50 % of 10,000 parameters: 100 of adapters and 50 of heads (in 1 of 4 trainings); "
        "no LoRA (in 1 of 4 trainings)."
    ]
    assert describe_adapters("direct", {"finetune": steps[1:3]}) == [
        "direct: finetune: LoRA trains 2.50 % of 10,000 parameters: 200 of adapters and 50 of heads."
    ]


def test_without_lora_neither_a_key_nor_a_recipe_says_anything_of_it(finished: Path) -> None:
    whole = finished / "whole/seed-0/fold-01/4-finetune"
    assert "lora" not in read_json(whole / "step.json")["inputs"]
    assert read_json(finished / FOLD / "4-finetune/step.json")["inputs"]["lora"]["r"] == 2
    assert not (whole / "adapter").exists()
    assert "lora" not in str(recipe().to_dict()["stages"])


def test_a_training_of_adapters_that_was_killed_ends_as_if_it_had_not_been(
    adapted_recipe: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    for stage, step in (("1-multitask", 4), ("4-finetune", 4)):
        run_until(adapted_recipe, tmp_path / "run", "after_step", stage=stage, step=step)
    run(adapted_recipe, tmp_path / "run")
    assert results(tmp_path / "run") == results(finished)


def test_fine_tuning_may_search_among_ranks_on_an_encoder_without_a_mask(
    adapted_recipe: dict[str, Any], tmp_path: Path
) -> None:
    searching = changed_recipe(
        adapted_recipe,
        variants=["direct"],
        search={"stages.finetune.lora.r": [1, 3]},
        backbone__mask_time_prob=0.0,
    )
    run(searching, tmp_path / "run")
    assert "masked_spec_embed" not in load_file(tmp_path / "run/backbone/seed-0/model.safetensors")
    step = tmp_path / "run/direct/seed-0/fold-01/4-finetune"
    rank = [1, 3][read_json(step / "search.json")["chosen"]]
    assert read_json(step / "adapter/adapter_config.json")["r"] == rank
    assert f"LoRA adapters of rank {rank} at q_proj" in (tmp_path / "run/model/README.md").read_text("utf-8")
    whole, merged = (load_emotion_model(str(place)) for place in (step, step / "adapter"))
    torch.testing.assert_close(whole.state_dict(), merged.state_dict(), rtol=0, atol=0)


# ---- how much is trained ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", [HubertForGMPATL, HubertForGMPATLMultiTask])
def test_at_most_two_percent_of_small_are_trained_with_the_defaults(model_class: type[GMPATLPreTrainedModel]) -> None:
    with torch.device("meta"):
        model = model_class(GMPATLConfig.from_pretrained("small", **head_fields(), pooling="statistics", readout="sum"))
        assert 0.004 < count_trained(add_lora(model)).share < 0.02


# ---- what does not go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"freeze_encoder": True}, "`freeze_encoder` is true"),
        ({"freeze_feature_encoder": False}, "`freeze_feature_encoder` is false"),
        ({"start_weight": 0.5}, "`start_weight` is 0.5"),
        ({"lora": {"alpha": 8}}, "did you mean `lora_alpha`"),
        ({"lora": {"r": 0}}, "`stages.finetune.lora.r` is 0"),
        ({"lora": True}, "expected: a mapping with `r`"),
    ],
)
def test_a_recipe_that_contradicts_its_adapters_is_refused(stage: dict[str, Any], said: str) -> None:
    assert said in str(refused(at("stages.finetune", {"lora": {}, **stage})))


def test_a_layer_that_is_not_there_is_refused_before_any_training(
    adapted_recipe: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RequestError) as caught:
        run(changed_recipe(adapted_recipe, stages__finetune__lora={"target_modules": ["query"]}), tmp_path / "run")
    assert "stages.finetune: target_modules has 'query'" in caught.value.found
    assert all(name in str(caught.value.expected) for name in ("q_proj", "out_proj", "intermediate_dense"))
    assert not list(tmp_path.rglob("1-multitask*"))


def test_without_peft_a_run_stops_before_any_training(
    adapted_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmp_atl_hf.training.lora.is_peft_available", lambda: False)
    with pytest.raises(RequestError, match=r"peft is not installed.*\n.*\n.*gmp-atl-hf\[peft\]"):
        run(adapted_recipe, tmp_path / "run")
    assert not list(tmp_path.rglob("1-multitask*"))


def test_adapters_that_an_encoder_passes_by_are_refused_before_the_first_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_wavlm_does(self: Any, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        return functional.linear(hidden_states, self.q_proj.weight, self.q_proj.bias), None

    monkeypatch.setattr(HubertAttention, "forward", as_wavlm_does)
    model = add_lora(small_model(HubertForGMPATL), LoraSettings(target_modules=("q_proj", "output_dense")))
    arguments = training_arguments(tmp_path, freeze_feature_encoder=True)
    trainer = GMPATLTrainer(
        model,
        arguments,
        speech_table(6).add_column("speaker", ["a"] * 6),
        None,
        feature_extractor(),
    )
    with pytest.raises(RequestError, match="target_modules has q_proj, and this encoder"):
        trainer.train()


# ---- by hand, and for others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS)
def test_an_adapter_changes_nothing_until_it_is_trained(model_class: Any) -> None:
    model = small_model(model_class).eval()
    waves = torch.randn(2, 4_000)
    before = model.hubert(waves).last_hidden_state
    adapted = add_lora(model)
    torch.testing.assert_close(adapted.get_base_model().hubert(waves).last_hidden_state, before, rtol=0, atol=0)
    trained = {name for name, each in adapted.named_parameters() if each.requires_grad}
    assert {name for name in trained if ".hubert." in name and "lora_" not in name} == {
        "base_model.model.hubert.masked_spec_embed"
    }
    heads = {name for name, _ in model.named_parameters() if "modules_to_save" in name}
    assert {name.removeprefix("base_model.model.") for name in trained if ".hubert." not in name} == heads != set()


def test_the_adapter_alone_scores_and_merges_as_the_model(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [(16_000, speech_wave(row)) for row in range(3)]
    scores = [
        [
            list(one.scores.values())
            for one in SpeechEmotionClassifier.from_pretrained(finished / name, device="cpu")(clips)
        ]
        for name in ("model", "model/adapter")
    ]
    np.testing.assert_allclose(*scores, atol=1e-7)
    assert main(["merge", str(finished / "model/adapter"), str(tmp_path / "merged")]) == 0
    merged, model = (load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", finished / "model"))
    torch.testing.assert_close(merged, model, rtol=0, atol=0)
    assert seen_speakers(tmp_path / "merged") == seen_speakers(finished / "model")
    heard = [heard_recordings(place) for place in (tmp_path / "merged", finished / "model", finished / "model/adapter")]
    assert heard[0] == heard[1] == heard[2] != set()
    assert (tmp_path / "merged/preprocessor_config.json").is_file()

    assert main(["merge", str(finished / "model"), str(tmp_path / "again")]) == 2
    assert "is a whole model" in capsys.readouterr().err
    assert main(["merge", str(finished / "model/adapter"), str(tmp_path / "merged")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_transformers_and_evaluate_score_with_an_adapter_as_with_its_model(
    adapted_recipe: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    wave = speech_wave()
    model, adapter = finished / "model", finished / "model/adapter"
    expected = SpeechEmotionClassifier.from_pretrained(model, device="cpu")((16_000, wave)).scores
    pipe = pipeline("audio-classification", model=str(adapter), device="cpu")
    assert {each["label"]: each["score"] for each in pipe(wave, top_k=None)} == pytest.approx(expected, abs=1e-5)
    assert pipe.model.config.seen_speakers == seen_speakers(model)
    with pytest.raises(ValueError, match="was trained in a model with pooling 'mean'"):
        HubertForGMPATL.from_pretrained(model, pooling="attention").load_adapter(str(adapter))

    corpus = adapted_recipe["corpus"]
    words = ["--corpus", "folder", "--root", corpus["root"], "--options", f"speaker={json.dumps(corpus['speaker'])}"]
    rows = []
    for place in (model, adapter):
        out = tmp_path / place.name
        assert main(["evaluate", str(place), *words, "--unseen-only", "--output-dir", str(out)]) == 0
        [found] = out.rglob("predictions.jsonl")
        rows.append(read_lines(found))
    assert rows[0] == rows[1] and {row["speaker"] for row in rows[0]} == {"folder/f3", "folder/m3"}


def test_an_adapter_is_pushed_alone_and_loaded_from_the_hub(
    adapted_recipe: dict[str, Any],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shipped = changed_recipe(
        adapted_recipe,
        backbone="mini",
        model={"am_softmax_scale": 30.0},
        stages__finetune={"lora": {"r": 1}, "max_steps": 1, "use_cpu": True, "learning_rate": 1e-2},
        variants=["direct"],
    )
    run(shipped, tmp_path / "run")
    with serve_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert main(["push", str(finished), "ana/tones", "--adapter"]) == 2
        assert "3-retrain, which is on this machine only" in capsys.readouterr().err
        assert main(["push", str(tmp_path / "run"), "ana/tones", "--adapter"]) == 0
        sent = hub.files("ana/tones")
        # Another process: parts of the client keep the address that they were imported with.
        place = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        words = [sys.executable, "-m", "gmp_atl_hf.cli", "merge", "ana/tones", str(tmp_path / "merged")]
        merging = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **place}, check=False)
    assert merging.returncode == 0, merging.stderr
    assert not {"model.safetensors", "config.json", "usage.json"} & set(sent)
    assert {"adapter_config.json", "adapter_model.safetensors", "gmp_atl_config.json", "report.md"} <= set(sent)
    assert b'SpeechEmotionClassifier.from_pretrained("ana/tones")' in sent["README.md"]
    assert b"trust_remote_code" not in sent["README.md"] and b"the model `mini`" in sent["README.md"]
    merged, model = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "run/model"))
    torch.testing.assert_close(merged, model, rtol=0, atol=0)
    assert seen_speakers(tmp_path / "merged") == seen_speakers(tmp_path / "run/model")
    assert heard_recordings(tmp_path / "merged") == heard_recordings(tmp_path / "run/model") != set()
