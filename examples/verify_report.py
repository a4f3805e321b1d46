"""Rebuild WAR, UAR, intervals and p values of a run from its predictions, and compare them with its report."""
# python verify_report.py runs/demo: a line for each number that is wrong, and then exit status 1

import json
import sys
from pathlib import Path

import numpy as np

report = json.loads(Path(sys.argv[1], "report.json").read_bytes())
labels, unseen, numbers = report["labels"], report["protocol"].get("speaker_independent", True), {}
np.seterr(invalid="ignore")  # 0 / 0 is null: the spread of one value, the UAR of a speaker whom a seed does not test
SCORES = {  # of confusions (..., true labels, predicted labels); UAR is the mean over the labels that occur
    "war": lambda n: np.trace(n, axis1=-2, axis2=-1) / n.sum((-2, -1)),
    "uar": lambda n: (np.diagonal(n, 0, -2, -1) / np.maximum(n.sum(-1), 1)).sum(-1) / (n.sum(-1) > 0).sum(-1),
}


def confusions(name, speakers, seed, fold):
    """Count the utterances of some speakers in one test: (speakers, true labels, predicted labels)."""
    counts = np.zeros((len(speakers), len(labels), len(labels)))
    lines = Path(sys.argv[1], name, f"seed-{seed}/fold-{fold:02d}/predictions.jsonl").read_bytes().splitlines()
    for row in (row for row in map(json.loads, lines) if row["speaker"] in speakers):
        counts[speakers.index(row["speaker"]), labels.index(row["emotion"]), labels.index(row["predicted"])] += 1
    return counts


def interval(score, rows):
    """Percentiles of the score of 2,000 draws from the speakers, widened; one row of counts or a difference each."""
    n, freedom = len(rows), max(len(rows) - 1, 1)
    draws = np.random.default_rng(0).integers(max(n, 1), size=(2000, n))
    ends = np.percentile([score(rows[drawn]) for drawn in draws], [2.5, 97.5]) - score(rows)
    ends *= np.polyval([1.5895, 2.5558, 2.8225, 2.3723, 1.96], 1 / freedom) / 1.96 * np.sqrt(n / freedom)
    return np.clip(score(rows) + ends, 0 if rows.ndim > 1 else -1, 1) if unseen and n >= 5 else None


for name, said in ((name, said) for name, said in report["variants"].items() if said["folds"]):
    tests = [[confusions(name, [*said["per_speaker"]], seed, fold) for seed in said["seeds"]] for fold in said["folds"]]
    for metric, score in SCORES.items():
        folds, pooled = score(np.sum(tests, 2)).mean(1), score(np.sum(tests, (0, 2)))  # pooled: one for each seed
        for key, number in said[metric].items():
            own = folds if "folds" in key else pooled
            mine = np.sqrt(own.var() / (1 - 1 / own.size)) if "std" in key else own.mean()
            numbers[f"{name} {metric} {key}"] = number, mine
    people = np.sum(tests, 0).swapaxes(0, 1)[[not who.lower().endswith("/unknown") for who in said["per_speaker"]]]
    numbers[f"{name} uar_ci95"] = said["uar_ci95"], interval(lambda some: SCORES["uar"](some.sum(0)).mean(), people)
for said in report["comparisons"]:
    who, seeds = list(said["per_speaker"]), np.array([pair["seed"] for pair in said["pairs"]])
    tests = np.array([[confusions(said[side], who, **pair) for pair in said["pairs"]] for side in ("first", "other")])
    gaps = np.subtract(*np.nanmean([SCORES["uar"](tests[:, seeds == seed].sum(1)) for seed in set(seeds)], axis=0))
    gains = gaps[abs(gaps) > 1e-12]  # without the ties
    drawn = np.random.default_rng(0).integers(2, size=(100_000, gains.size), dtype=np.int8)
    signs = drawn if gains.size > 20 else np.arange(2**gains.size - 1)[:, None] >> np.arange(gains.size) & 1
    sums = np.append((signs * 2.0 - 1) @ gains, gains.sum())  # the observed ones last
    p = np.mean(abs(sums) >= abs(gains.sum()) - 1e-12 * abs(gains).sum())
    rebuilt = {"mean_difference": gaps.mean(), "p": p, "ci95": interval(np.mean, gaps)}
    numbers |= {f"{said['first']} - {said['other']} {key}": (said[key], rebuilt[key]) for key in rebuilt}
wrong = [name for name, pair in numbers.items() if not np.allclose(*map(np.float64, pair), 0, 1e-9, equal_nan=True)]
print(f"{len(numbers)} numbers compared, {len(wrong)} of them wrong")
sys.exit("\n".join("{}: {} in the report, {} by the predictions".format(name, *numbers[name]) for name in wrong) or 0)
