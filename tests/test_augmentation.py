"""Speed perturbation: what it does to a clip, what decides it, and what never gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmp_atl_hf import GMPATLTrainer, Recipe
from gmp_atl_hf.batching.clips import TableClips
from gmp_atl_hf.batching.sampler import ClipKey
from gmp_atl_hf.batching.speed import HIGHEST, LOWEST, AugmentedClips, change_speed
from gmp_atl_hf.data.audio import MINIMUM_SAMPLES
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.run.stages import stage_arguments
from gmp_atl_hf.training.checks import check_training_arguments
from runs import recipe_dict
from tables import feature_extractor, small_model, speech_table, training_arguments

TABLE = speech_table(6)


def waveform(key: ClipKey, seed: int = 0) -> np.ndarray:
    return AugmentedClips(TableClips(TABLE, ()), "speed", seed)[key]["waveform"]


def trainer_in(folder: Path, **fields: Any) -> GMPATLTrainer:
    arguments = training_arguments(folder, freeze_feature_encoder=True, **fields)
    return GMPATLTrainer(small_model(HubertForGMPATL), arguments, TABLE, TABLE, processing_class=feature_extractor())


def lengths(batches: Any) -> list[int]:
    return sorted(int(length) for batch in batches for length in batch["attention_mask"].sum(-1))


@pytest.mark.parametrize("factor", [LOWEST, 1.0371, HIGHEST])
def test_a_faster_clip_is_shorter_and_higher_by_the_same_factor(factor: float) -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(16_000) / 16_000).astype(np.float32)
    changed = change_speed(tone, factor)
    assert changed.dtype == np.float32
    assert abs(len(changed) - 16_000 / factor) <= 1
    loudest = np.abs(np.fft.rfft(changed)).argmax() * 16_000 / len(changed)
    assert loudest == pytest.approx(400 * factor, abs=1)


def test_a_clip_of_one_frame_stays_one() -> None:
    tone = np.ones(MINIMUM_SAMPLES, dtype=np.float32)
    assert len(change_speed(tone, HIGHEST)) == MINIMUM_SAMPLES
    assert len(change_speed(np.ones(450, dtype=np.float32), HIGHEST)) >= MINIMUM_SAMPLES


def test_the_speed_hangs_on_seed_epoch_and_row_and_on_nothing_else() -> None:
    speeds = [waveform(ClipKey(0, epoch), seed) for epoch in range(4) for seed in range(4)]
    assert len({len(one) for one in speeds}) > 8
    np.testing.assert_array_equal(waveform(ClipKey(2, 1)), waveform(ClipKey(2, 1)))
    recorded = len(TableClips(TABLE, ())[ClipKey(0)]["waveform"])
    assert all(recorded / HIGHEST - 1 <= len(one) <= recorded / LOWEST + 1 for one in speeds)


def test_training_hears_it_and_evaluation_does_not(tmp_path: Path) -> None:
    recorded = sorted(TABLE["num_samples"])
    plain, augmented = trainer_in(tmp_path / "plain"), trainer_in(tmp_path / "augmented", augment="speed")
    assert "conv_features" in next(iter(plain.get_train_dataloader()))
    assert lengths(augmented.get_train_dataloader()) != recorded
    assert lengths(augmented.get_eval_dataloader()) == recorded
    augmented.train()
    assert not list(tmp_path.glob("augmented/**/*.npy"))


def test_frame_labels_are_never_trained_on_another_waveform_than_theirs(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(recipe_dict(tmp_path, data={"augment": "speed"}))
    augmented = {stage: stage_arguments(recipe, stage).get("augment") for stage in ("multitask", "retrain", "finetune")}
    assert augmented == {"multitask": "speed", "retrain": None, "finetune": "speed"}
    arguments = training_arguments(tmp_path, augment="speed")
    with pytest.raises(RequestError, match="frame labels"):
        check_training_arguments(arguments, frame_labels=True, emotions=3)


def test_an_unknown_augmentation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of none, speed"):
        training_arguments(tmp_path, augment="noise")
