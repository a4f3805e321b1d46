"""Training clips standardised by their own speaker, with statistics that follow the encoder and survive a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.configuration_gmp_atl import GMPATLConfig
from gmp_atl_hf.modeling.heads_gmp_atl import PRIOR_CLIPS
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.training.head_first import pool_clips
from gmp_atl_hf.training.joint import HubertForGMPATLJoint
from gmp_atl_hf.training.lora import add_lora
from gmp_atl_hf.training.trainer import GMPATLTrainer
from tables import changed, feature_extractor, small_model, speech_table, training_arguments, weights_of
from test_trainer_resume import BY_EPOCH, BY_STEPS, CutOff, CutOffAt

NAMES = ["tones/a", "tones/b", "tones/a", "tones/unknown", "tones/b", "tones/a", "tones/c", "tones/b", "tones/a"]
TABLE = speech_table(len(NAMES)).add_column("speaker", NAMES)
DEV = speech_table(4, seed=1).add_column("speaker", ["tones/d"] * 4)


def trainer_for(
    folder: Path, *callbacks: Any, table: Any = TABLE, dropout: float = 0.2, kind: str = "plain", **fields: Any
) -> GMPATLTrainer:
    model_class = HubertForGMPATLJoint if kind == "joint" else HubertForGMPATL
    model: Any = small_model(model_class, dropout, standardize=True, speaker_normalization="speaker")
    if kind == "adapter":
        pytest.importorskip("peft", reason="the extra `peft`")
        model = add_lora(model)
    arguments = training_arguments(folder, **{**BY_EPOCH, "head_epochs": 2, **fields})
    return GMPATLTrainer(model, arguments, table, DEV, feature_extractor(), callbacks=list(callbacks))


def statistics_by_hand(pooled: np.ndarray, speaker: str) -> np.ndarray:
    """(2, size): the speaker's own, as many parts as clips, and four parts of all clips'."""
    own = pooled[[name == speaker for name in NAMES]]
    parts = len(own) + PRIOR_CLIPS
    mean = (own.sum(0) + PRIOR_CLIPS * pooled.mean(0)) / parts
    variance = (len(own) * own.var(0) + PRIOR_CLIPS * pooled.var(0)) / parts
    return np.stack([mean, np.sqrt(variance)])


def test_each_clip_is_standardised_by_its_own_speaker_drawn_to_all_where_clips_are_few(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path)
    pooled = pool_clips(trainer, trainer.base, TABLE).vectors
    trainer._speakers.take(pooled)
    found = trainer._speakers.of(torch.arange(len(NAMES))).numpy()
    values = pooled.double().numpy()
    for row, speaker in enumerate(NAMES):
        everybody = np.stack([values.mean(0), values.std(0)])
        wanted = everybody if speaker == "tones/unknown" else statistics_by_hand(values, speaker)
        np.testing.assert_allclose(found[row], wanted, rtol=1e-5, atol=1e-7)


def test_the_loss_is_that_of_clips_standardised_by_their_own_speakers(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, num_train_epochs=1)
    pooled = pool_clips(trainer, trainer.base, TABLE).vectors.double().numpy()
    speaker_of = dict(zip(TABLE["num_samples"], NAMES, strict=True))
    assert len(speaker_of) == len(NAMES)
    given = {}

    class Recording(GMPATLTrainer):
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            lengths = inputs["attention_mask"].sum(1).tolist()
            given.update(zip(lengths, inputs["speaker_statistics"].numpy(), strict=True))
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer.__class__ = Recording
    trainer.train()
    assert given.keys() == speaker_of.keys()
    for length, speaker in speaker_of.items():
        if speaker != "tones/unknown":
            np.testing.assert_allclose(given[length], statistics_by_hand(pooled, speaker), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "joint", "adapter", "averaged"])
def test_the_statistics_that_are_saved_are_those_of_the_trained_encoder(kind: str, tmp_path: Path) -> None:
    """Scores without a speaker are standardised by all training clips as they are at the end, not as they began."""
    averaged = {"average_epochs": 2, "load_best_model_at_end": False} if kind == "averaged" else {}
    trainer = trainer_for(tmp_path, kind=kind, **averaged)
    before = pool_clips(trainer, trainer.base, TABLE).vectors.mean(0)
    trainer.train()
    pooled = pool_clips(trainer, trainer.base, TABLE).vectors
    standardization = trainer.base.standardization
    torch.testing.assert_close(standardization.mean, pooled.mean(0))
    torch.testing.assert_close(standardization.deviation, pooled.std(0, correction=0))
    assert not torch.allclose(before, pooled.mean(0), rtol=1e-3)


@pytest.mark.parametrize("cut", [5, 6])
def test_a_resumed_training_ends_as_if_it_had_never_been_cut_off(cut: int, tmp_path: Path) -> None:
    whole = trainer_for(tmp_path / "whole")
    whole.train()
    with pytest.raises(CutOff):
        trainer_for(tmp_path / "cut", CutOffAt(cut)).train()
    again = trainer_for(tmp_path / "cut")
    again.train(resume_from_checkpoint=True)
    assert not changed(weights_of(whole.model), weights_of(again.model))


def test_what_is_learnt_does_not_depend_on_how_a_step_is_cut_into_batches(tmp_path: Path) -> None:
    losses = []
    for batch, accumulated in ((9, 1), (3, 3)):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
        trainer = trainer_for(tmp_path / str(batch), dropout=0.0, learning_rate=1e-3, **sizes)
        trainer.train()
        losses.append([entry["loss_emotion"] for entry in trainer.state.log_history if "loss_emotion" in entry])
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": speech_table(5)}, "has no column speaker"),
        (BY_STEPS, "checkpoints at the ends of epochs"),
    ],
)
def test_what_it_cannot_do_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        trainer_for(tmp_path, **changes)


def test_it_needs_the_statistics_of_all_clips_too() -> None:
    with pytest.raises(ValueError, match="needs standardize=True"):
        GMPATLConfig(speaker_normalization="speaker")
