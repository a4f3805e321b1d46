"""The card: one pattern for the whole page, written from the run's folder, brought up to date when the run grows."""

from __future__ import annotations

import copy
import json
import platform
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from gmp_atl_hf.card.card import render_card
from gmp_atl_hf.card.facts import read_run
from gmp_atl_hf.card.method import _start
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.evaluation.calibration import expected_calibration_error, fit_temperature
from gmp_atl_hf.files import write_known
from gmp_atl_hf.modeling.configuration_gmp_atl import GMPATLConfig
from gmp_atl_hf.recipe.recipe import Recipe
from runs import EMOTIONS, read_json, read_lines, recipe_dict, run, stamps, write_corpus

PERCENT = r"\d{1,3}\.\d"
NUMBER = r"\d[\d.,e-]*"
PATTERN = rf"""---
library_name: transformers
metrics:
(- \w+\n)+pipeline_tag: audio-classification
tags:
- speech-emotion-recognition
- hubert
- gmp-atl
model-index:
- name: tones
  results:
  - task:
      type: audio-classification
      name: Speech emotion recognition
    dataset:
      name: folder
      type: folder
      args:
        protocol: 'group-k-fold, 2 folds, 6 speakers .*'
        folds: 2 of 2 folds
        seeds:
        - 0
    metrics:
(    - type: \w+
      value: 0\.\d+
      name: .* \(pooled over 2 of 2 folds, 1 of 1 seeds\)
){{4}}---

# tones: speech emotion recognition with GMP-ATL

Scores 2 emotions in a recording of speech: anger, calm\. A HuBERT encoder with a
classifier on top, trained with the package gmp_atl_hf by the recipe `tones`, variant `gmp-atl`,
after GMP-ATL \(\[arXiv 2405\.02151\]\(https://arxiv\.org/abs/2405\.02151\), later titled GMP-TL\)\. .*

## Use it

```python
import soundfile
from transformers import pipeline

classifier = pipeline\("audio-classification", model="path/or/hub-id", trust_remote_code=True\)
waveform, rate = soundfile\.read\("speech\.wav", dtype="float32"\)  # one channel, 16 kHz
for score in classifier\({{"raw": waveform, "sampling_rate": rate}}, top_k=None\):
    print\(f"{{score\['label'\]:<12}} {{score\['score'\]:\.3f}}"\)
```

It printed this, for `(anger|neutral)/[fm]\d_\d\.wav` of the corpus \(labelled (anger|calm); the model was .*\):

```
(anger|calm) +[01]\.\d\d\d
(anger|calm) +[01]\.\d\d\d
```

Needs `torch` from 2\.11 on, `transformers` from 5\.17 on and `soundfile`; (.*\n){{3}}
## Labels

\| index \| label \| in the corpus \|
\| --: \| :-- \| :-- \|
\| 0 \| anger \| anger \|
\| 1 \| calm \| neutral \|

Not learned, left out of the corpus: sadness\.

## How good it is on unseen speakers

\| WAR % \| UAR % \| 95 % interval of UAR \| macro F1 % \| UAR by chance % \|
\| --: \| --: \| --: \| --: \| --: \|
\| {PERCENT} \| {PERCENT} \| {PERCENT} to {PERCENT} \| {PERCENT} \| 50\.0 \|

group-k-fold, 2 folds, 6 speakers .* Done: 2 of 2 folds, 1 of 1 seeds \(0\); 24 test
utterances of 6 speakers; UAR: 95 % interval, widened for few speakers .*, from 2000 resamples of 6 test speakers\. .*
.*

The figures are those of the cross-validation\. .* has itself not been tested: .* `gmp-atl run tones\.yaml`\.

### Per emotion

\| label \| recall % \| test utterances \|
\| :-- \| --: \| --: \|
\| anger \| {PERCENT} \| 12 \|
\| calm \| {PERCENT} \| 12 \|

### Per gender

\| gender \| WAR % \| UAR % \| macro F1 % \| utterances \| speakers \|
\| :-- \| --: \| --: \| --: \| --: \| --: \|
\| female \| {PERCENT} \| {PERCENT} \| {PERCENT} \| 12 \| 3 \|
\| male \| {PERCENT} \| {PERCENT} \| {PERCENT} \| 12 \| 3 \|

!\[Confusion matrix: .*\]\(confusion\.png\)

### Beside the other variants of the run

\| variant \| WAR % \| UAR % \| 95 % interval of UAR \| folds \| seeds \|
\| :-- \| --: \| --: \| --: \| --: \| --: \|
\| gmp-atl \| {PERCENT} \| {PERCENT} \| {PERCENT} to {PERCENT} \| 2 of 2 folds \| 1 of 1 seeds \|
\| direct \| {PERCENT} \| {PERCENT} \| {PERCENT} to {PERCENT} \| 2 of 2 folds \| 1 of 1 seeds \|

- gmp-atl − direct: [+−]\d+\.\d points of UAR per speaker, p = {NUMBER} \(exact sign-flip test, 6 speakers, .*\)\. .*

## What a score means

Scores are softmax\(logits\), the logits divided by a temperature of {NUMBER} that was fitted on development
speakers\. .*
\(({NUMBER} to )?{NUMBER}\), pooled over 24 utterances:

\| \| temperature 1 \| fitted temperature \|
\| :-- \| --: \| --: \|
\| expected calibration error \(15 bins\) % \| {PERCENT} \| {PERCENT} \|

The temperature (makes scores more honest here|did not lower the calibration error here).*

## Training data

folder: 24 recordings, {NUMBER} hours, 6 speakers\. Licence of the recordings: .*

- left out: 12 \(.*\)

## What the paper states and what we chose

\| part \| here \| source \|
\| :-- \| :-- \| :-- \|
(\| [^|]+ \| [^|]+ \| [^|]*(stated|our choice)[^|]* \|
){{18}}
The paper claims WAR 80\.0 % and UAR 82\.0 % on IEMOCAP\. Nothing in this card was measured on it\.

## Limits, and what not to do with it

- An emotion is not a fact about a person\. (.*\n)+- .*acted.*
- It was trained on 6 speakers\. (.*\n)+- Do not decide about people with it: (.*\n)+
## Computing

Last run on \d+ CPU cores .* 12 trainings and clusterings of this variant took .*
.* Energy was not measured; at a mean power of P watts it was
{NUMBER} h × P / 1000 kWh\.
Python 3\..*, gmp-atl-hf .*, torch .*, transformers .*, accelerate .*\.

## Citation

```bibtex
@inproceedings\{{pan2024gmptl,
(.*\n)+\}}
```
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


COMMAND = "gmp-atl run tones.yaml"


@pytest.fixture(scope="module")
def crossed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds, two variants, merged labels; must not be changed."""
    folder = tmp_path_factory.mktemp("crossed") / "run"
    merged = {"anger": "anger", "neutral": "calm", "sadness": None}
    # Tame logits, so that the best temperatures are no extremes.
    tame = {"model__am_softmax_scale": 8.0, "stages__finetune__num_train_epochs": 6}
    run(recipe_dict(corpus, labels=merged, **tame), folder, command=COMMAND)
    return folder


def test_the_whole_card_follows_one_pattern(crossed: Path) -> None:
    card = (crossed / "model/README.md").read_text(encoding="utf-8")
    parts = PATTERN.split("\n\n")
    for number, part in enumerate(parts):
        # Part by part, so that a failure shows where; the last round is the whole card.
        assert re.match("\n\n".join(parts[: number + 1]), card), f"up to here it fits, but not this:\n{part}"
    assert re.fullmatch(PATTERN, card)


def test_the_card_has_no_holes_and_no_broken_tables(crossed: Path) -> None:
    card = (crossed / "model/README.md").read_text(encoding="utf-8")
    assert "\n\n\n" not in card
    prose = re.sub(r"```.*?```", "", card, flags=re.DOTALL)
    assert not re.search(r"\bNone\b|\bnan\b|[{}]|Undefined", prose)
    blocks = [block for block in card.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 7
    for block in blocks:
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in block.split("\n") if line}
        assert len(bars) == 1, block
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"


def test_names_with_bars_and_stars_tear_nothing(crossed: Path) -> None:
    facts = read_run(crossed)
    report = dict(facts.report)
    report["corpus"] = {**report["corpus"], "citation": "A | B *et al.*\nsecond line <x>", "licence": "CC | BY"}
    report["labels"] = facts.report["labels"]
    card = render_card(type(facts)(**{**vars(facts), "report": report}))
    assert "A \\| B \\*et al.\\* second line &lt;x>" in card


def test_both_calibration_errors_are_those_of_each_folds_own_development_temperature(crossed: Path) -> None:
    labels = read_json(crossed / "report.json")["labels"]
    plain, scaled, truth, temperatures = [], [], [], []
    for fold in ("fold-01", "fold-02"):
        folder = crossed / "gmp-atl/seed-0" / fold
        dev, test = read_lines(folder / "4-finetune/dev_logits.jsonl"), read_lines(folder / "predictions.jsonl")
        t = fit_temperature(np.array([r["logits"] for r in dev]), [labels.index(r["emotion"]) for r in dev])
        temperatures.append(t)
        for row in test:
            p = np.array([row["scores"][label] for label in labels])
            plain.append(p)
            scaled.append(p ** (1 / t) / (p ** (1 / t)).sum())
            truth.append(labels.index(row["emotion"]))
    before, after = (100 * expected_calibration_error(scores, truth) for scores in (plain, scaled))
    assert temperatures[0] != pytest.approx(temperatures[1], rel=0.01)
    assert read_run(crossed).temperatures == pytest.approx(temperatures)
    card = (crossed / "model/README.md").read_text()
    assert f"| expected calibration error (15 bins) % | {before:.1f} | {after:.1f} |" in card
    assert f"({min(temperatures):.3g} to {max(temperatures):.3g}), pooled over {len(truth)} utterances" in card


def test_the_example_is_executed_and_its_output_is_that_of_the_model(crossed: Path) -> None:
    usage = read_json(crossed / "model/usage.json")
    card = (crossed / "model/README.md").read_text()
    assert f"```\n{usage['output']}```" in card
    scores = [float(line.split()[1]) for line in usage["output"].splitlines()]
    assert sum(scores) == pytest.approx(1, abs=2e-3)
    assert usage["trained_on"] is True


def test_a_run_that_grows_brings_its_card_up_to_date_and_touches_nothing_else(corpus: Path, tmp_path: Path) -> None:
    small = {"variants": ["direct"], "stages__finetune__num_train_epochs": 1}
    run(recipe_dict(corpus, **small), tmp_path, command=COMMAND)
    before, card = stamps(tmp_path / "model"), (tmp_path / "model/README.md").read_text()
    assert "1 of 1 seeds (0)" in card
    run(recipe_dict(corpus, **small), tmp_path, command=COMMAND)
    assert stamps(tmp_path / "model") == before, "nothing is new, nothing is written"
    run(recipe_dict(corpus, seeds=[0, 1], **small), tmp_path, command=COMMAND)
    now = (tmp_path / "model/README.md").read_text()
    assert "2 of 2 seeds (0, 1)" in now
    changed = {name for name, time in stamps(tmp_path / "model").items() if before[name] != time}
    assert changed <= {"README.md", "confusion.png"}
    # A card that was lost is written again.
    (tmp_path / "model/README.md").unlink()
    run(recipe_dict(corpus, seeds=[0, 1], **small), tmp_path, command=COMMAND)
    assert (tmp_path / "model/README.md").read_text() == now


def test_the_command_writes_the_card_again_elsewhere(
    crossed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "cards" / "tones.md"
    assert main(["card", str(crossed), "--output", str(output), "--model-id", "ana/tones", "--license", "mit"]) == 0
    card = output.read_text()
    assert 'model="ana/tones"' in card and "license: mit" in card
    assert "(tones-confusion.png)" in card and (output.parent / "tones-confusion.png").read_bytes()[:4] == b"\x89PNG"
    capsys.readouterr()
    assert main(["card", str(crossed)]) == 0
    assert capsys.readouterr().out.startswith("---\n")
    assert main(["card", str(tmp_path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


def test_the_card_names_the_machines_of_earlier_parts(crossed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(crossed, tmp_path / "moved")
    report = read_json(folder / "report.json")
    now = report["environment"]
    earlier = {**now, "cpu": "Older", "gpus": [{"name": "Some GPU", "memory_gib": 8.0}], "python": "3.0"}
    report["environment"] = {**now, "earlier": [earlier]}
    write_known(folder, {"report.json": json.dumps(report)})
    card = render_card(read_run(folder))
    assert re.search(
        r"Last run on \d+ CPU cores .*; an earlier part on \d+ CPU cores \(Older\).* 1 GPU: Some GPU", card
    )
    assert re.search(rf"Python {platform.python_version()}, gmp-atl-hf .*; an earlier part with Python 3\.0, ", card)


def test_a_step_that_has_lost_its_note_is_refused_and_not_left_out_of_the_computing_time(
    crossed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(crossed, tmp_path / "run")
    fold = folder / "gmp-atl/seed-0/fold-02"
    shutil.copytree(fold / "1-multitask", fold / "1-multitask.unfinished")
    (fold / "1-multitask.unfinished/step.json").unlink()  # of a run that goes on: counted once it is done
    assert read_run(folder).steps == read_run(crossed).steps
    (fold / "3-retrain/step.json").unlink()
    for words in (["card", str(folder)], ["push", str(folder), "ana/tones", "--dry-run"]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert f"{fold / '3-retrain'} has no step.json" in error and "fix:" in error


def test_every_label_of_the_corpus_is_accounted_for(crossed: Path) -> None:
    card = (crossed / "model/README.md").read_text()
    assert all(name in card for name in EMOTIONS)


def test_figures_of_shared_speakers_do_not_pass_for_those_of_strangers(crossed: Path) -> None:
    facts = read_run(crossed)
    assert "unseen speakers" in render_card(facts)
    protocol = {**facts.report["protocol"], "speaker_independent": False}
    card = render_card(replace(facts, report={**facts.report, "protocol": protocol}))
    assert "unseen speakers" not in card
    assert "## How good it is\n" in card
    assert "say nothing about people the model has not seen" in card
    assert "| Test speakers | seen in training as well, or not known | left out or changed on purpose" in card


@pytest.mark.parametrize(
    ("known", "unknown", "words"),
    [(3, 0, "3 speakers"), (1, 0, "1 speaker"), (3, 7, "3 speakers and unknown ones"), (0, 7, "unknown speakers")],
)
def test_unknown_speakers_of_the_corpus_are_not_counted(crossed: Path, known: int, unknown: int, words: str) -> None:
    facts = read_run(crossed)
    corpus = {**facts.report["corpus"], "speakers": known}
    protocol = {**facts.report["protocol"], "unknown_speakers": unknown}
    card = render_card(replace(facts, report={**facts.report, "corpus": corpus, "protocol": protocol}))
    assert f" hours, {words}, language: " in card or f" hours, {words}. Licence" in card


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (("c/a", "c/unknown"), "trained on 1 speaker and unknown ones"),
        (("c/unknown",), "trained on unknown speakers"),
        (("c/a", "c/b"), "trained on 2 speakers"),
    ],
)
def test_nobody_counts_unknown_speakers_among_those_whom_the_weights_know(
    crossed: Path, seen: tuple[str, ...], words: str
) -> None:
    facts = read_run(crossed)
    config = copy.deepcopy(facts.config)
    config.seen_speakers = list(seen)
    assert words in " ".join(render_card(replace(facts, config=config)).split())


def test_speakers_who_tie_are_counted_beside_the_p_value(crossed: Path) -> None:
    facts = read_run(crossed)
    for ties, words in ((0, "6 speakers, smallest"), (2, "6 speakers, 2 without a difference, smallest")):
        comparisons = [{**facts.report["comparisons"][0], "ties": ties}]
        card = render_card(replace(facts, report={**facts.report, "comparisons": comparisons}))
        assert f"exact sign-flip test, {words} possible p " in card


def test_the_card_names_the_start_that_a_search_has_chosen(tmp_path: Path) -> None:
    searched = {"stages.finetune.start_weight": [0.25, 1.0]}
    method = Recipe.from_dict(recipe_dict(tmp_path, variants=["gmp-atl"], search=searched)).method("gmp-atl")
    chosen = method.candidate({"stages.finetune.start_weight": 0.25})
    facts: Any = SimpleNamespace(method=method, chosen=chosen, config=GMPATLConfig())
    start = _start(facts, "finetune", "4.", stated="retrain")
    assert start.value == "the retrained HuBERT, 0.25 of the way to it from the original HuBERT"
