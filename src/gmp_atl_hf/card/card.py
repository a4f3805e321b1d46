"""The card of a model that a run has trained, written from what the run has left in its folder."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult

from ..errors import counted
from ..evaluation.unknown import UNKNOWN, counted_people, known_and_unknown
from ..files import write_whole
from ..hub.example import ADAPTER_CODE, CODE, MODEL_ID
from ..hub.metadata import CARD_FILE, card_metadata
from ..recipe.sections import REPLAY
from ..report.blocks import (
    DASH,
    adaptation_remark,
    adaptation_table,
    percent,
    points,
    protocol_line,
    speakers_of,
    tested_speakers,
)
from .facts import RunFacts, read_run
from .method import encoder_name, method_settings

FIGURE_FILE = "confusion.png"

_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_CROSS_VALIDATED = (
    "The figures are those of the cross-validation. This very model was then trained once more on every speaker and "
    "has itself not been tested: no speaker was left to test it on."
)
_ONE_FOLD = "The figures are those of this very model on unseen speakers."
_SEEDS = "The figures are means over several seeds, on unseen speakers; this model is that of the first seed."
_SHARED = (
    "The figures are of test recordings that were not trained on, but of speakers who were, or who are not known: they "
    "say nothing about people the model has not seen."
)
_FIRST_SEED = " They are means over several seeds; this model is that of the first."
_ACTED = ("cafe", "crema-d", "cremad", "emodb", "emovo", "esd", "iemocap", "meld", "nemo", "ravdess", "savee", "tess")


def write_model_card(run: Path) -> None:
    """Write the card and the picture of its confusion matrix beside a run's model, or leave them if nothing changed."""
    facts = read_run(run)
    figure = draw_figure(facts)
    files: dict[Path, bytes] = {} if figure is None else {facts.model / FIGURE_FILE: figure}
    files[facts.model / CARD_FILE] = render_card(facts, figure=None if figure is None else FIGURE_FILE).encode()
    for file, content in files.items():
        if not (file.is_file() and file.read_bytes() == content):
            write_whole(file, content)


def draw_figure(facts: RunFacts) -> bytes | None:
    """Draw the confusion matrix as PNG; None without matplotlib (the extra `plots`)."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from ..report.plots import confusion_png

    return confusion_png(facts.report, facts.variant)


def render_card(
    facts: RunFacts,
    model_id: str | None = None,
    figure: str | None = None,
    licence: str | None = None,
    base: str | None = None,
) -> str:
    """Write the card.

    Args:
        facts: The run.
        model_id: What the example loads: the model's id on the Hub; None for a place to fill in.
        figure: Path of the confusion matrix, relative to the card; None for no picture.
        licence: The licence of the weights, as the Hub names it; None leaves it unsaid.
        base: The model that an adapter belongs to, where the card is that of the adapter alone; None for the model.

    Returns:
        Markdown with metadata in front.
    """
    report, summary = facts.report, facts.summary
    labels, corpus = report["labels"], report["corpus"]
    mapping, code = facts.recipe.labels, facts.usage["code"] if facts.usage else CODE
    if base is not None:
        facts, code = replace(facts, usage=None), ADAPTER_CODE
    text = _template().render(
        facts=facts,
        report=report,
        summary=summary,
        labels=labels,
        encoder=encoder_name(facts.config),
        corpus=corpus,
        environment=report["environment"],
        metadata=_metadata(facts, model_id, licence, base),
        base=base,
        code=code.replace(MODEL_ID, model_id or "path/or/hub-id"),
        figure=figure,
        heading="How good it is" + (" on unseen speakers" if facts.speaker_independent else ""),
        sources=_label_sources(mapping, labels),
        dropped=sorted(name for name, label in (mapping or {}).items() if label is None),
        protocol=protocol_line(report),
        whose=_whose_figures(facts),
        who=speakers_of(summary, "speaker"),
        notes=[note for note in report["notes"] if note.startswith(f"{facts.variant}:")],
        counts=_counts(summary, labels),
        comparisons=[_comparison(one) for one in report["comparisons"] if one["first"] == facts.variant],
        trained_on=_trained_on(facts),
        speakers=known_and_unknown(corpus["speakers"], bool(report["protocol"].get("unknown_speakers"))),
        languages=_languages(corpus),
        method=method_settings(facts),
        speech=_kind_of_speech(corpus["name"]),
    )
    # Parts that are left out leave their blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _trained_on(facts: RunFacts) -> str:
    """How many people the weights were trained on, those of the encoder's own training included where it says them."""
    seen = facts.config.seen_speakers
    if seen is None:
        return f"speakers of {facts.report['corpus']['name']}"
    replayed = [speaker for speaker in seen if speaker == f"{REPLAY}/{UNKNOWN}"]
    named = [speaker for speaker in seen if speaker not in replayed]
    more = len({speaker.partition("/")[0] for speaker in named}) > 1
    plain = ", and on plain speech of people whom nobody has named" if replayed else ""
    return f"{counted_people(named)}{', those of its encoder included' if more else ''}{plain}"


def metric_results(facts: RunFacts) -> dict[str, tuple[str, str, float]]:
    """The figures for machines: key → (metric of the Hub, name, fraction)."""
    summary = facts.summary
    tested = f"pooled over {summary['folds_done']}, {summary['seeds_done']}"
    results = {
        "uar": ("recall", f"UAR ({tested})", summary["uar"]["pooled"]),
        "war": ("accuracy", f"WAR ({tested})", summary["war"]["pooled"]),
        "macro_f1": ("f1", f"macro F1 ({tested})", summary["macro_f1"]["pooled"]),
    }
    calibrated = summary["calibration"]["ece_calibrated"] if summary["calibration"] else None
    if calibrated is not None:
        name = f"expected calibration error with temperature ({tested})"
        results["ece"] = ("expected_calibration_error", name, calibrated)
    return results


def hub_dataset(facts: RunFacts) -> str | None:
    """Id of the corpus on the Hub, if the run read it from there and nothing else."""
    corpora = facts.recipe.corpus
    path = corpora[0].options.get("path") if len(corpora) == 1 and corpora[0].name == "hub" else None
    return path if isinstance(path, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", path) else None


def _metadata(facts: RunFacts, model_id: str | None, licence: str | None, base: str | None) -> str:
    report, summary, dataset = facts.report, facts.summary, hub_dataset(facts)
    corpus = report["corpus"]
    protocol = {"protocol": protocol_line(report), "folds": summary["folds_done"], "seeds": list(summary["seeds"])}
    if report["stamps"]:
        protocol["remarks"] = list(report["stamps"])
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech emotion recognition",
            dataset_type=dataset or corpus["name"],
            dataset_name=corpus["name"],
            dataset_args=protocol,
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for kind, name, value in metric_results(facts).values()
    ]
    return card_metadata(
        "audio-classification",
        facts.config.encoder_type,
        language=_languages(corpus) or None,
        license=licence,
        base_model=base if base and "/" in base else None,  # others are no id on the Hub
        datasets=[dataset] if dataset else None,
        metrics=sorted({kind for kind, _, _ in metric_results(facts).values()}),
        model_name=(model_id or report["name"]).split("/")[-1],
        eval_results=results,
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML; `cell` escapes what would tear it
    )
    environment.filters |= {
        "adaptation_remark": adaptation_remark,
        "adaptation_table": adaptation_table,
        "cell": _cell,
        "percent": percent,
        "interval": lambda ends: DASH if ends is None else f"{percent(ends[0])} to {percent(ends[1])}",
        "temperatures": _temperatures,
        "hardware": _hardware,
        "versions": _versions,
        "duration": _duration,
    }
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _cell(text: object) -> str:
    """Keep names with a bar, a star or a line break from tearing the page apart."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _whose_figures(facts: RunFacts) -> str:
    if not facts.speaker_independent:
        return _SHARED + (_FIRST_SEED if len(facts.summary["per_seed"]) > 1 else "")
    unnamed = facts.summary.get("unknown_utterances")  # not in reports of earlier versions
    nobody = f" Nobody knows who speaks {counted(unnamed, 'test utterance')}." if unnamed else ""
    if facts.cross_validated:
        return _CROSS_VALIDATED + nobody
    return (_SEEDS if len(facts.summary["per_seed"]) > 1 else _ONE_FOLD) + nobody


def _label_sources(mapping: Mapping[str, str | None] | None, labels: Sequence[str]) -> dict[str, str]:
    if mapping is None:
        return dict.fromkeys(labels, "the same")
    return {label: ", ".join(old for old, new in mapping.items() if new == label) or label for label in labels}


def _counts(summary: Mapping[str, Any], labels: Sequence[str]) -> dict[str, int]:
    rows = summary["confusion"] or [[0]] * len(labels)
    return {label: round(sum(row)) for label, row in zip(labels, rows, strict=True)}


def _comparison(one: Mapping[str, Any]) -> str:
    kind = "exact sign-flip test" if one["exact"] else "sign-flip test"
    corrected = f", corrected for several comparisons (Holm) {one['p_holm']:.3g}" if "p_holm" in one else ""
    return (
        f"{one['first']} − {one['other']}: {points(one['mean_difference'])} points of UAR per speaker, "
        f"p = {one['p']:.3g}{corrected} ({kind}, {tested_speakers(one)}, "
        f"smallest possible p {one['smallest_attainable_p']:.3g}). {one['remark']}"
    )


def _temperatures(values: Sequence[float]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:.3g}"
    return f"{min(values):.3g} to {max(values):.3g}"


def _languages(corpus: Mapping[str, Any]) -> list[str]:
    return corpus["language"].split("+") if corpus.get("language") else []


def _kind_of_speech(names: str) -> str:
    kinds = names.lower().split("+")
    if "demo" in kinds:
        return (
            "Its voices are synthetic (espeak-ng), and their emotions are rules for pitch, speed and loudness. It "
            "shows that the method runs, and says nothing about human speech."
        )
    if any(kind in _ACTED for kind in kinds):
        return (
            "It has learnt from acted speech. Actors show emotions more strongly and more clearly than people have "
            "them: expect it to be much worse on speech that nobody performed."
        )
    return (
        "Most corpora of emotional speech are acted. If this one is, expect the model to be much worse on speech that "
        "nobody performed."
    )


def _hardware(environment: Mapping[str, Any] | None) -> str:
    if environment is None:
        return "The hardware is not known"
    earlier = [_machine(one) for one in environment.get("earlier", ())]
    return "; ".join([f"Last run on {_machine(environment)}", *(f"an earlier part on {one}" for one in earlier)])


def _machine(environment: Mapping[str, Any]) -> str:
    gpus = [gpu["name"] for gpu in environment["gpus"]]
    parts = [f"{environment['cpus']} CPU cores ({environment['cpu'] or 'model not known'})"]
    if environment["memory_gib"] is not None:
        parts.append(f"{environment['memory_gib']} GiB of memory")
    parts.append(f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}: {', '.join(sorted(set(gpus)))}" if gpus else "no GPU")
    return ", ".join(parts)


def _versions(environment: Mapping[str, Any] | None) -> str:
    if environment is None:
        return "Versions are not known"
    return "; an earlier part with ".join(map(_packages, (environment, *environment.get("earlier", ()))))


def _packages(environment: Mapping[str, Any]) -> str:
    found = {name: version for name, version in environment["packages"].items() if version is not None}
    wanted = [
        f"{name} {found[name]}" for name in ("gmp-atl-hf", "torch", "transformers", "accelerate") if name in found
    ]
    return ", ".join([f"Python {environment['python']}", *wanted])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
