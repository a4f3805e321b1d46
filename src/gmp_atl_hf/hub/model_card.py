"""The card of a model that a run has trained, written from the run's own report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..evaluation.report_markdown import percent, protocol_line
from ..files import write_whole

_CROSS_VALIDATED = (
    "The figures are those of the cross-validation. This very model was then trained once more on every speaker and "
    "has itself not been tested: no speaker was left to test it on."
)
_ONE_FOLD = "The figures are those of this very model on speakers that it has never heard."
_SEEDS = "The figures are means over several seeds, on speakers never heard; this model is that of the first seed."


def write_model_card(folder: Path, report: Mapping[str, Any], cross_validated: bool, variant: str) -> None:
    """Write `README.md` beside the model.

    Args:
        folder: The model's folder.
        report: The report of the run.
        cross_validated: Whether the model was trained on all speakers after cross-validation, and so is untested.
        variant: The variant that the model comes from.
    """
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "hubert", "gmp-atl"],
    )
    figures, corpus, labels = report["variants"][variant], report["corpus"], report["labels"]
    seeds = ", ".join(map(str, figures["seeds"]))
    one_fold = _SEEDS if len(figures["per_seed"]) > 1 else _ONE_FOLD
    stamps = "".join(f"\n> {stamp}\n" for stamp in report["stamps"])
    text = f"""---
{data.to_yaml()}
---

# {report["name"]}: speech emotion recognition with GMP-ATL

Tells {len(labels)} emotions ({", ".join(labels)}) from speech. Trained with gmp_atl_hf, variant `{variant}`, after
[GMP-ATL](https://arxiv.org/abs/2405.02151).
{stamps}
```python
from transformers import pipeline

classifier = pipeline("audio-classification", model="path/or/hub-id", trust_remote_code=True)
classifier(waveform)  # numpy array, (samples,), float32, 16 kHz, mono
```

## Figures

| WAR | UAR | macro F1 |
|---|---|---|
| {percent(figures["war"]["pooled"])} | {percent(figures["uar"]["pooled"])} | {percent(figures["macro_f1"]["pooled"])} |

{protocol_line(report)} Done: {figures["folds_done"]}, {figures["seeds_done"]} ({seeds}).

{_CROSS_VALIDATED if cross_validated else one_fold} Command: `{report["command"]}`.

## Training data

{corpus["name"]}: {corpus["recordings"]} recordings, {corpus["hours"]} hours, {corpus["speakers"]} speakers.
Licence: {corpus["licence"] or "see the corpus"}.

## Limits

An emotion is not a fact about a person, and this model only tells which of its labels a recording sounds most like.
It has heard the speakers, languages and rooms of its training data and nothing else. Do not decide about people
with it.
"""
    write_whole(folder / "README.md", text)
