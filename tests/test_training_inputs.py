"""What a training depends on is written once: its key follows from the fields that it is trained with."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from gmp_atl_hf.batching.conv_features import PRECISION
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL, HubertForGMPATLMultiTask
from gmp_atl_hf.protocols.leakage import HeldOut
from gmp_atl_hf.run.training import Training, Weights
from gmp_atl_hf.run_folder.step_folder import StepFolder

ROWS = datasets.Dataset.from_dict({"id": ["c/1"], "speaker": ["c/a"]})
TRAINING = Training(
    step="4-finetune",
    model_class=HubertForGMPATL,
    start=Weights("one", {"weights": "1"}),
    backbone=Weights("two", {"weights": "2"}),
    fields={"hidden_dropout": 0.1},
    arguments={"learning_rate": 1e-4},
    data={"rows": "hash"},
    train=ROWS,
    dev=None,
    seed=0,
)
OTHERS: dict[str, Any] = {
    "step": "3-retrain",
    "seed": 1,
    "data": {"rows": "another"},
    "backbone": Weights("two", {"weights": "3"}),
    "start": Weights("one", {"weights": "3"}),
    "fields": {"hidden_dropout": 0.2},
    "arguments": {"learning_rate": 1e-3},
    "labels": StepFolder(Path("2-pseudo-labels"), {"step": "2-pseudo-labels"}),
    "start_weight": 0.5,
    "lora": {"r": 4},
    "stop_at": 3,
    "stop_after": 1.5,
    "front_end_cache": Path("front-end"),
    # Follow from the fields above, or change no weight.
    "model_class": HubertForGMPATLMultiTask,
    "max_steps": 7,
    "train": ROWS.select([]),
    "dev": ROWS,
    "description": "a bar",
    "held_out": HeldOut(frozenset({"c/b"})),
    "also_seen": ("c/c",),
    "digests": {"c/a": "hash"},
    "replay": ROWS,
    "trainer": print,
}
FREE = {
    *("model_class", "max_steps", "train", "dev", "description", "held_out", "also_seen", "digests", "replay"),
    "trainer",
}


def test_every_field_is_looked_at() -> None:
    assert [each.name for each in fields(Training)] == list(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
def test_a_changed_field_changes_the_key_unless_it_follows_from_others(name: str) -> None:
    before = TRAINING.inputs()
    after = replace(TRAINING, **{name: OTHERS[name]}).inputs()
    assert (before == after) is (name in FREE)


def test_the_inputs_are_plain_values_and_leave_out_what_is_not_asked_for() -> None:
    assert TRAINING.inputs() == {
        "step": "4-finetune",
        "seed": 0,
        "data": {"rows": "hash"},
        "backbone": {"weights": "2"},
        "start": {"weights": "1"},
        "model": {"hidden_dropout": 0.1},
        "arguments": {"learning_rate": 1e-4},
    }
    asked = replace(TRAINING, labels=OTHERS["labels"], stop_at=3, front_end_cache=Path("anywhere"))
    assert asked.inputs() == {
        **TRAINING.inputs(),
        "pseudo_labels": OTHERS["labels"].key,
        "stop_at": 3,
        "front_end": PRECISION,
    }


def test_a_length_that_follows_from_other_trainings_is_that_of_the_arguments() -> None:
    arguments = {"learning_rate": 1e-4, "same_updates_as": {"multitask": {}}}
    task = replace(TRAINING, arguments=arguments, max_steps=7)
    assert task.settings == {"learning_rate": 1e-4, "max_steps": 7}
    assert task.inputs()["arguments"] == arguments
    assert TRAINING.settings == TRAINING.arguments
