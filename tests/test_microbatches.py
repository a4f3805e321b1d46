"""A batch in pieces of like length: the same clips, the same gradient, less padding."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmp_atl_hf.batching.collator import GMPATLDataCollator
from gmp_atl_hf.modeling.modeling_gmp_atl import (
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from gmp_atl_hf.training.microbatches import group_by_length, split_by_length
from gmp_atl_hf.training.trainer import GMPATLTrainer
from tables import feature_extractor, small_model, speech_table, training_arguments

TABLE = speech_table(9, shortest=4_000, longest=60_000)
MODELS = [HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification, HubertForGMPATL]


def cost(lengths: list[int], pieces: list[list[int]], microbatch_cost: int) -> int:
    return sum(len(piece) * max(lengths[clip] for clip in piece) + microbatch_cost for piece in pieces)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_division_costs_less(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(10, 300, 5).tolist()
    pieces = group_by_length(lengths, microbatch_cost=40)
    assert sorted(itertools.chain(*pieces)) == list(range(5))
    every_division = (
        [[clip for clip in range(5) if which[clip] == piece] for piece in set(which)]
        for which in itertools.product(range(5), repeat=5)
    )
    assert cost(lengths, pieces, 40) == min(cost(lengths, division, 40) for division in every_division)


def test_clips_of_one_length_stay_together() -> None:
    assert group_by_length([70, 70, 70]) == [[0, 1, 2]]


def batch_for(model: Any, max_seconds: float | None, cached: bool) -> dict[str, torch.Tensor]:
    collator = GMPATLDataCollator(feature_extractor(), model.config, model.target_names, max_seconds=max_seconds)
    rows = [dict(row) for row in TABLE]
    if cached:
        rng = np.random.default_rng(0)
        for row in rows:
            frames = len(row["gmp_layer1_k5"])
            row["conv_features"] = rng.standard_normal((frames, model.config.conv_dim[-1]), dtype=np.float32)
    return collator(rows)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("max_seconds", [None, 1.5])
@pytest.mark.parametrize("model_class", MODELS)
def test_the_gradients_of_the_pieces_add_up_to_the_batch(
    model_class: Any, max_seconds: float | None, cached: bool
) -> None:
    def gradient(batches: list[dict[str, torch.Tensor]]) -> tuple[float, dict[str, torch.Tensor]]:
        model = small_model(model_class).train()
        loss = sum(model(**each, loss_denominators=denominators).loss for each in batches)
        loss.backward()
        return loss.item(), {name: value.grad for name, value in model.named_parameters() if value.grad is not None}

    model = small_model(model_class)
    batch = batch_for(model, max_seconds, cached)
    denominators = model.count_parts(batch)
    pieces = split_by_length(batch, model.config)
    assert len(pieces) > 1
    loss, expected = gradient([batch])
    loss_of_pieces, of_pieces = gradient(pieces)
    assert loss_of_pieces == pytest.approx(loss, rel=1e-5)
    assert of_pieces.keys() == expected.keys()
    for name, value in of_pieces.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_the_trainer_takes_pieces_unless_the_collator_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(GMPATLDataCollator):
        pass

    model = small_model(HubertForGMPATL)
    sizes: list[int] = []
    forward = HubertForGMPATL.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["labels"]))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(HubertForGMPATL, "forward", counted)
    fields = {"max_steps": 1, "per_device_train_batch_size": 9}
    for collator in (None, Own(feature_extractor(), model.config)):
        GMPATLTrainer(model, training_arguments(tmp_path, **fields), TABLE, None, feature_extractor(), collator).train()
    assert len(sizes) > 2 and sum(sizes[:-1]) == 9
    assert sizes[-1] == 9
