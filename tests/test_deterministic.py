"""What is asked of a GPU so that the same seed gives the same numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from gmp_atl_hf.numerics import deterministic
from gmp_atl_hf.run import steps
from runs import SPLIT, given_split, recipe_dict, run, write_corpus


def switches() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_a_gpu_is_asked_for_fixed_orders_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = switches()
    with pytest.raises(ZeroDivisionError), deterministic(torch.device("cuda")):
        assert switches() == (True, True, True, False, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise ZeroDivisionError
    assert switches() == before
    with deterministic(torch.device("cpu")):
        assert switches() == before


def test_what_somebody_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.use_deterministic_algorithms(True)
    try:
        with deterministic(torch.device("cuda")):
            assert switches()[:2] == (True, False), "the strict mode was weakened"
        assert switches()[:2] == (True, False)
    finally:
        torch.use_deterministic_algorithms(False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_every_step_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def noted(device: torch.device) -> Any:
        asked.append(device.type)
        return deterministic(device)

    monkeypatch.setattr(steps, "deterministic", noted)
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    recipe = given_split(root, final=False, **{f"stages__{name}__max_steps": 1 for name in recipe_dict(root)["stages"]})
    run(recipe, tmp_path / "run")
    assert asked == ["cpu"] * 5, "three trainings, the labels and the test"
