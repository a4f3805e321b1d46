"""The report shows what a learned sum over layers came to weigh."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from gmp_atl_hf.run.layer_weights import WEIGHTS
from runs import SPLIT, given_split, run, write_corpus


def test_the_report_has_the_shares_of_a_learned_sum_and_of_nothing_else(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    summed = {"name": "summed", "base": "direct", "set": {"model.readout": "sum", "model.layerdrop": 0}}
    recipe = given_split(root, variants=["direct", summed])
    report = run(recipe, tmp_path / "run")
    (note,) = [note for note in report["notes"] if "learned sum" in note]
    weights = load_file(tmp_path / "run/summed/seed-0/fold-01/4-finetune/model.safetensors")[WEIGHTS]
    said = [float(share) for share in re.findall(r"layer \d+ ([\d.]+) %", note)]
    assert note.startswith("summed: ")
    assert said == pytest.approx((100 * weights.softmax(0)).tolist(), abs=0.051)
    assert note in (tmp_path / "run/report.md").read_text(encoding="utf-8")
