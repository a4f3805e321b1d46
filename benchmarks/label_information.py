"""What frame labels tell: normalised mutual information of each scale with emotion, speaker, gender and time.

    python benchmarks/label_information.py runs/emodb/gmp-atl/seed-0/fold-01/2-pseudo-labels …

Reads the labels of finished steps; a variant that shares the step of another one has none of its own. Emotion, speaker
and gender are those of the predictions of all folds, so run all folds of one variant first. Time is a frame's place in
its clip, in steps of 200 ms: labels that agree with it are those of a clock. 0 is unrelated, 1 the same partition.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import normalized_mutual_info_score

FRAMES_PER_STEP = 10


def facts_of(run: Path) -> dict[str, dict[str, str]]:
    """Recording → emotion, speaker and gender, from all predictions of a run."""
    found = {}
    for file in run.glob("*/seed-*/fold-*/predictions.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[row["id"]] = {name: str(row[name]) for name in ("emotion", "speaker", "gender")}
    return found


def information(step: Path) -> dict[str, dict[str, float]]:
    """Scale → what is told → normalised mutual information, over all labelled frames whose recording is known."""
    facts = facts_of(step.parents[2].parent)
    table = pq.read_table(step / "labels.parquet")
    rows = [row for row in table.to_pylist() if row["id"] in facts]
    if not rows:
        sys.exit(f"{step}: no recording of its labels has a prediction in this run; run the other folds first")
    if missing := len(table) - len(rows):
        print(f"{step}: {missing} of {len(table)} recordings have no prediction in this run and are left out")
    scales = [name for name in table.column_names if name != "id"]
    counts = [len(row[scales[0]]) for row in rows]
    told = {
        name: np.repeat([facts[row["id"]][name] for row in rows], counts) for name in ("emotion", "speaker", "gender")
    }
    told["time"] = np.concatenate([np.arange(count) // FRAMES_PER_STEP for count in counts])
    labels = {scale: np.concatenate([row[scale] for row in rows]) for scale in scales}
    return {
        scale: {name: round(float(normalized_mutual_info_score(each, values)), 3) for name, each in told.items()}
        for scale, values in labels.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("steps", nargs="+", type=Path, help="folders `2-pseudo-labels` of a run")
    for step in parser.parse_args().steps:
        if not (step / "labels.parquet").is_file():
            sys.exit(f"{step}: no labels.parquet; give the folder 2-pseudo-labels of a finished step")
        for scale, found in information(step).items():
            print(f"{step}  {scale:26}", "  ".join(f"{name} {value:.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
