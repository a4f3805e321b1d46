"""A training of nothing but warm-up says so: the first of its rates is 0."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.training.trainer import GMPATLTrainer
from tables import feature_extractor, small_model, speech_table, training_arguments

TABLE = speech_table(6)


def train(folder: Path, **fields: Any) -> None:
    arguments = training_arguments(folder, warmup_steps=0.1, **fields)
    GMPATLTrainer(small_model(HubertForGMPATL), arguments, TABLE, processing_class=feature_extractor()).train()


def test_a_single_update_is_warm_up_alone(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="1 update, all warm-up"):
        train(tmp_path, max_steps=1)


def test_more_updates_need_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(tmp_path, max_steps=2)
