"""Fine-tuning with frame labels as a second loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gmp_atl_hf.checkpoints import describe_backbone, load_model
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL, HubertForGMPATLFrameClassification
from gmp_atl_hf.training.head_first import prepare_heads
from gmp_atl_hf.training.joint import HubertForGMPATLJoint
from gmp_atl_hf.training.trainer import GMPATLTrainer
from recipes import SMALL, recipe, refused
from runs import SPLIT, files_of, given_split, read_json, recipe_dict, run, write_corpus
from tables import SCALES, changed, feature_extractor, small_model, speech_table, training_arguments, weights_of

TABLE, DEV = speech_table(11), speech_table(6, seed=1)
WEIGHT = 0.25


def trainer_for(model: Any, folder: Path, **fields: Any) -> GMPATLTrainer:
    return GMPATLTrainer(model, training_arguments(folder, **fields), TABLE, DEV, feature_extractor())


def first_loss(model: Any, folder: Path) -> dict[str, float]:
    """The loss of the first update over all clips and its parts."""
    trainer = trainer_for(model, folder, per_device_train_batch_size=len(TABLE), max_steps=1)
    trainer.train()
    return {name: value for name, value in trainer.state.log_history[0].items() if name.startswith("loss")}


def joint_model(**fields: Any) -> HubertForGMPATLJoint:
    return small_model(HubertForGMPATLJoint, **{"frame_weight": WEIGHT, **fields})


@pytest.mark.parametrize("targets", ["masked", "all"])
def test_the_loss_is_that_of_the_emotion_and_a_share_of_that_of_the_frames(targets: str, tmp_path: Path) -> None:
    joint = joint_model(frame_targets=targets)
    kinds = (HubertForGMPATL, HubertForGMPATLFrameClassification)
    alone = {kind: small_model(kind, frame_targets=targets) for kind in kinds}
    for model in alone.values():
        model.load_state_dict(joint.state_dict(), strict=False)
    found = first_loss(joint, tmp_path)
    emotion, frames = (first_loss(model, tmp_path) for model in alone.values())
    assert found["loss"] == pytest.approx(emotion["loss"] + WEIGHT * frames["loss"], rel=1e-5)
    assert found["loss_emotion"] == pytest.approx(emotion["loss"], rel=1e-5)
    assert {name: found[f"loss_{name}"] for name in SCALES} == pytest.approx(
        {name: frames[f"loss_{name}"] for name in SCALES}, rel=1e-5
    )


def test_clips_are_standardised_by_their_own_speaker_there_too(tmp_path: Path) -> None:
    table = TABLE.add_column("speaker", [f"tones/{row % 3}" for row in range(len(TABLE))])
    joint = joint_model(standardize=True, speaker_normalization="speaker")
    losses = []
    for model in (joint, joint.without_frame_heads()):
        arguments = training_arguments(tmp_path, per_device_train_batch_size=len(table), max_steps=1)
        trainer = GMPATLTrainer(model, arguments, table, processing_class=feature_extractor())
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss_emotion"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_losses_do_not_depend_on_how_a_step_is_cut_into_batches(tmp_path: Path) -> None:
    trained = []
    for batch, accumulation in ((8, 1), (2, 4)):
        model = joint_model(frame_targets="masked")
        how = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        trainer_for(model, tmp_path, max_steps=3, learning_rate=1e-3, **how).train()
        trained.append(weights_of(model))
    for name, weights in trained[0].items():
        torch.testing.assert_close(trained[1][name], weights, rtol=0, atol=2e-5)


def test_an_evaluation_is_that_of_the_plain_model(tmp_path: Path) -> None:
    joint = joint_model()
    plain = joint.without_frame_heads()
    assert type(plain) is HubertForGMPATL and not plain.config.frame_scales
    shown = [trainer_for(model, tmp_path).evaluate() for model in (joint, plain)]
    for name in ("eval_uar", "eval_loss", "eval_loss_emotion"):
        assert shown[0][name] == shown[1][name]
    scores = [trainer_for(model, tmp_path).predict(DEV).predictions for model in (joint, plain)]
    assert torch.equal(*map(torch.from_numpy, scores))


def test_heads_first_learn_the_emotion(tmp_path: Path) -> None:
    """Of pooled vectors nothing is known about frames."""
    trained = []
    for model in (joint_model(), joint_model().without_frame_heads()):
        trainer = trainer_for(model, tmp_path, head_epochs=2)
        prepare_heads(trainer, model, None)
        trained.append(weights_of(model)["classifier.weight"])
    assert torch.equal(*trained)
    assert not torch.equal(trained[0], weights_of(joint_model())["classifier.weight"])


def test_clips_at_another_speed_have_no_frame_labels(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="augment is speed"):
        trainer_for(joint_model(), tmp_path, augment="speed")
    with pytest.raises(RequestError, match="no column gmp_layer1_k5, gmp_layer1_k7"):
        GMPATLTrainer(
            joint_model(), training_arguments(tmp_path), TABLE.remove_columns(list(SCALES)), None, feature_extractor()
        )


def test_a_recipe_needs_frame_labels_for_it() -> None:
    made = recipe(variants=["joint", "direct", {"name": "both", "set": {"stages.finetune.model.frame_weight": 1}}])
    assert [made.method(name).joint for name in made.variant_names] == [True, False, True]
    assert made.method("joint").stages.performed == ("multitask", "finetune")
    assert made.method("joint").stages.start_of("finetune") == "backbone"
    no_teacher = {"name": "a", "base": "direct", "set": {"stages.finetune.model.frame_weight": 1}}
    assert "pseudo_labels: {source: backbone}" in str(refused({**SMALL, "variants": [no_teacher]}))
    control = {"name": "o", "base": "joint", "set": {"pseudo_labels.control": "oracle"}}
    assert recipe(variants=[control]).method("o").control.startswith("a control")


def test_a_run_trains_both_and_keeps_a_plain_model(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    variants = ["joint", "multitask-only"]
    folder = tmp_path / "run"
    run(given_split(root, variants=variants, final=False, stages__finetune__num_train_epochs=1), folder)
    fold = folder / "joint/seed-0/fold-01"
    assert {path.name for path in fold.iterdir() if path.is_dir()} == {"1-multitask", "2-pseudo-labels", "4-finetune"}
    config = read_json(fold / "4-finetune/config.json")
    assert config["architectures"] == ["HubertForGMPATL"] and not config.get("frame_scales")
    weights = load_file(fold / "4-finetune/model.safetensors")
    assert not any(name.startswith("frame_heads") for name in weights)
    model = load_model(HubertForGMPATL, fold / "4-finetune", seed=0, whole=True)
    assert not changed(weights_of(model), weights)
    first = read_json(fold / "4-finetune/training.json")["log"][0]
    assert {"loss_emotion", "loss_gmp_layer2_k3", "loss_gmp_layer2_k5"} <= set(first)
    inputs = read_json(fold / "4-finetune/step.json")["inputs"]
    assert inputs["pseudo_labels"] == read_json(fold / "2-pseudo-labels/step.json")["key"]
    assert "model.safetensors" in files_of(fold / "4-finetune")
    other = read_json(folder / "multitask-only/seed-0/fold-01/4-finetune/step.json")["inputs"]
    assert "pseudo_labels" not in other and "frame_weight" not in other["model"]


def test_a_field_that_came_later_is_in_no_key_of_a_backbone_unless_it_is_set(tmp_path: Path) -> None:
    for weight in (0.0, 0.5):
        small_model(HubertForGMPATL, frame_weight=weight).save_pretrained(tmp_path)
        feature_extractor().save_pretrained(tmp_path)
        assert ("frame_weight" in describe_backbone(str(tmp_path))["config"]) == (weight == 0.5)


def test_an_adapter_cannot_keep_frame_heads_that_the_model_does_without(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    adapters = {"stages__finetune__lora": {"r": 2}, "stages__finetune__freeze_feature_encoder": True}
    with pytest.raises(RequestError, match="finetune: `lora`, and frame_weight"):
        run(given_split(root, variants=["joint"], **adapters), tmp_path / "run")


def test_its_weight_can_be_searched_and_the_final_model_is_as_long_as_it_is_told(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus")
    skipped = {"name": "second-loss", "set": {"stages.retrain.skip": True, "stages.finetune.average_epochs": 2}}
    folder, weights = tmp_path / "run", [0.0, 0.5]
    run(recipe_dict(root, variants=[skipped], search={"stages.finetune.model.frame_weight": weights}), folder)
    chosen = read_json(folder / "model/step.json")["inputs"]["settings"]["stages.finetune.model.frame_weight"]
    for fold, labelled in (("fold-01", True), ("all-speakers", chosen == 0.5)):
        assert (folder / "second-loss/seed-0" / fold / "2-pseudo-labels").is_dir() == labelled
    tried = read_json(folder / "second-loss/seed-0/fold-01/4-finetune/step.json")["inputs"]["candidates"]
    assert ["pseudo_labels" in tried[number] for number in "01"] == [False, True]
    final = folder / "second-loss/seed-0/all-speakers/4-finetune"
    inputs, training = (read_json(final / name) for name in ("step.json", "training.json"))
    assert "stop_after" not in inputs["inputs"] and training["updates"] == training["planned_updates"]
    assert "stop_after" in read_json(final.parent / "1-multitask/step.json")["inputs"]
    assert read_json(folder / "model/config.json")["architectures"] == ["HubertForGMPATL"]
    card = (folder / "model/README.md").read_text(encoding="utf-8")
    assert "| Epoch | the mean of the weights of the last 2 |" in card
    said = "| Frame labels as a second loss | cross-entropy of each scale, times 0.5; frames that count: masked ones |"
    assert (said in card) == (chosen == 0.5)
    assert ("2. and 3. Frame labels and retraining | not done" in card) == (chosen == 0.0)
