"""What only a GPU can show: its numbers are those of the processor, and they come out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_files import RATE, tone
from classifiers import make_classifier, score_all, values
from gmp_atl_hf.batching.conv_features import FrontEnd
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.numerics import no_tf32
from gmp_atl_hf.training.trainer import GMPATLTrainer
from kills import run_until
from models import MODELS, SHAPES, build, gradients, make_clips
from runs import SPLIT, changed_recipe, given_split, results, run, write_corpus
from tables import feature_extractor, small_model, speech_table, training_arguments
from test_modeling_losses import BATCH, all_targets

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LENGTHS = (12_345, 4_000, 30_000, 719)
STAGES = ("multitask", "retrain", "finetune")
HALF = 2.0**-11  # largest relative error of rounding to float16


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three updates an epoch, with dropout, every step in torch's strict mode."""
    recipe = given_split(write_corpus(tmp_path_factory.mktemp("corpus"), split=SPLIT), backbone__hidden_dropout=0.2)
    settings = {"use_cpu": False, "full_determinism": True}
    return changed_recipe(
        recipe, **{f"stages__{stage}__{name}": value for stage in STAGES for name, value in settings.items()}
    )


def test_a_run_killed_again_and_again_equals_one_that_was_left_alone(recipe: dict[str, Any], tmp_path: Path) -> None:
    run(recipe, tmp_path / "alone")
    points: list[tuple[str, dict[str, Any]]] = [
        ("after_step", {"stage": "1-multitask", "step": 2}),
        ("in_a_checkpoint", {"stage": "1-multitask", "step": 3}),
        ("after_the_clusters", {}),
        ("after_step", {"stage": "3-retrain", "step": 2}),
        ("around_the_file", {"ending": "fold-01/metrics.json", "written": False}),
    ]
    for point, where in points:
        run_until(recipe, tmp_path / "killed", point, **where)
    run(recipe, tmp_path / "killed")
    alone, killed = results(tmp_path / "alone"), results(tmp_path / "killed")
    assert {name for name in alone if alone[name] != killed.get(name)} == set()


@pytest.mark.parametrize("shape", ["base", "large"])
def test_scores_are_those_of_the_processor_and_of_each_clip_alone(shape: str) -> None:
    clips = [(RATE, tone(length)) for length in LENGTHS]
    on_gpu, on_cpu = (make_classifier(shape, device=device) for device in ("cuda", "cpu"))
    scores = np.stack([values(one) for one in score_all(on_gpu, clips)])
    alone = np.stack([values(score_all(on_gpu, [clip])[0]) for clip in clips])
    assert np.abs(scores - np.stack([values(one) for one in score_all(on_cpu, clips)])).max() < 1e-4
    assert np.abs(scores - alone).max() < 1e-4


@pytest.mark.parametrize("shape", ["base", "large"])
@pytest.mark.parametrize("model_class", MODELS)
def test_gradients_are_those_of_the_processor(model_class: Any, shape: str) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        model = build(model_class, shape).train().to(device)
        inputs = {**BATCH, **all_targets(model)}
        with no_tf32(torch.device(device)):
            model(**{name: values.to(device) for name, values in inputs.items()}).loss.backward()
        found[device] = gradients(model)
    noise = 1e-6 * max(
        float(value.abs().max()) for value in found["cpu"].values()
    )  # of key biases there is nothing else
    for name, value in found["cpu"].items():
        atol = 1e-3 * float(value.abs().max()) + noise
        assert torch.allclose(found["cuda"][name].cpu(), value, rtol=1e-3, atol=atol), name


@pytest.mark.parametrize("shape", ["base", "large"])
def test_what_a_trainer_predicts_is_that_of_the_processor_and_of_each_clip_alone(shape: str, tmp_path: Path) -> None:
    table = speech_table(7)
    scores = []
    for cpu, together in ((True, 4), (False, 4), (False, 1)):
        arguments = training_arguments(tmp_path, use_cpu=cpu, per_device_eval_batch_size=together)
        model = small_model(HubertForGMPATL, **SHAPES[shape])
        trainer = GMPATLTrainer(model, arguments, processing_class=feature_extractor(shape == "large"))
        scores.append(torch.from_numpy(trainer.predict(table).predictions).softmax(-1))
    assert (scores[1] - scores[0]).abs().max() < 1e-4
    assert (scores[1] - scores[2]).abs().max() < 1e-4


def test_the_front_end_cache_is_that_of_the_processor() -> None:
    model = small_model(HubertForGMPATL)
    front_end = FrontEnd(model, feature_extractor())
    on_gpu = front_end.layers_on(torch.device("cuda"))
    for clip in make_clips(LENGTHS):
        there, here = front_end.encode(clip.numpy(), on_gpu), front_end.encode(clip.numpy())
        assert np.allclose(there, here, rtol=2 * HALF, atol=1e-6)


def test_training_in_bfloat16_follows_training_in_float32(tmp_path: Path) -> None:
    losses = []
    for half in (False, True):
        arguments = training_arguments(tmp_path, use_cpu=False, bf16=half, num_train_epochs=2, logging_steps=1)
        trainer = GMPATLTrainer(
            small_model(HubertForGMPATL), arguments, speech_table(11), processing_class=feature_extractor()
        )
        assert trainer.args.device.type == "cuda"
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    assert len(losses[0]) == len(losses[1]) > 3
    assert losses[0] != losses[1]
    assert np.allclose(*losses, rtol=0.05)
