"""The pictures of a report and the page that holds them: whole, self-contained, the same every time."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from gmp_atl_hf.report.build import FoldResult, build_report
from gmp_atl_hf.report.details import ClusterUsage, TrainingDiagnostics, TrainingLog
from gmp_atl_hf.report.drawing import Picture, styled
from gmp_atl_hf.report.figures import draw_pictures
from gmp_atl_hf.report.html import render_html
from gmp_atl_hf.report.plots import confusion_png
from gmp_atl_hf.report.plots_training import learning_figure
from runs import SPLIT, given_split, recipe_dict, run, write_corpus

pytest.importorskip("matplotlib")

LABELS = ["anger", "joy & co", "$neutral$"]
VOID = {"meta", "img", "br", "link"}


def fold_result(seed: int, fold: int, skill: float, speakers: int = 1) -> FoldResult:
    rng, rows = np.random.default_rng([seed, fold, round(skill * 100)]), []
    for speaker in range(speakers):
        for number in range(12):
            scores = rng.dirichlet(np.where(np.arange(3) == number % 3, 1 + 8 * skill, 1.0))
            rows.append(
                {
                    "id": f"demo/{fold}-{speaker}-{number}",
                    "speaker": f"demo/s{fold}-{speaker}",
                    "gender": ("female", "male", None)[(fold + speaker) % 3],
                    "emotion": LABELS[number % 3],
                    "predicted": LABELS[int(scores.argmax())],
                    "scores": dict(zip(LABELS, scores.tolist(), strict=True)),
                }
            )
    return FoldResult(seed, fold, rows, temperature=1.5)


def report_of(variants: dict[str, list[FoldResult]], **changes: Any) -> dict[str, Any]:
    options = {
        "name": "demo <b>", "labels": LABELS, "protocol": {"kind": "leave-one-speaker-out"}, "folds_total": 6,
        "seeds": [0, 1], "command": 'gmp-atl run "x" && y',
    }  # fmt: skip
    return build_report(variants=variants, **{**options, **changes})


def logs(stages: tuple[str, ...] = ("multitask", "retrain", "finetune"), dev: bool = True) -> list[TrainingLog]:
    parts = {
        "multitask": ["emotion", "gender"],
        "retrain": ["gmp_layer2_k3", "gmp_layer2_k50"],
        "finetune": ["emotion"],
    }
    found = []
    for stage in stages:
        for fold in (1, 2):
            entries: list[dict[str, Any]] = []
            for epoch in (1.0, 2.0, 3.0):
                losses = {f"loss_{part}": 2 / epoch for part in parts[stage]}
                entries.append({"step": int(epoch) * 5, "epoch": epoch, "loss": 2 / epoch, **losses})
                if dev:
                    measured = {f"eval_accuracy_{part}": 0.1 * epoch for part in parts[stage]}
                    measured |= {} if stage == "retrain" else {"eval_uar": 0.2 * epoch, "eval_war": 0.2 * epoch}
                    evaluated = {f"eval_{name}": value for name, value in {"loss": 2.0, **losses}.items()}
                    entries.append({"step": int(epoch) * 5, "epoch": epoch, **evaluated, **measured})
            found.append(TrainingLog(stage, 0, fold, 10, entries))
    return found


def usage(k: int) -> ClusterUsage:
    return ClusterUsage(f"gmp_layer2_k{k}", 0, 1, np.random.default_rng(k).poisson(5, size=(3, k)))


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    variants = {
        name: [fold_result(seed, fold, skill) for seed in (0, 1) for fold in range(1, 7)]
        for name, skill in (("gmp-atl", 0.8), ("$a_b$ & <c>", 0.3))
    }
    return report_of({**variants, "unfinished": []}, stamps=["labels were shuffled"])


@pytest.fixture(scope="module")
def details() -> TrainingDiagnostics:
    return TrainingDiagnostics({"gmp-atl": logs()}, {"gmp-atl": [usage(3), usage(50)]})


class _Page(HTMLParser):
    """Tags that do not close, pictures, and whatever would have to be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(told)
        for name in ("src", "href", "srcset", "data"):
            value = told.get(name) or ""
            if value and not value.startswith(("data:", "#")):
                self.fetched.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def drawn(report: dict[str, Any], details: TrainingDiagnostics) -> list[Picture]:
    return draw_pictures(report, details)


def test_every_picture_is_a_whole_file_in_both_forms(drawn: list[Picture]) -> None:
    kinds = ("confusion", "reliability", "speakers")
    names = ["variants", *(f"{kind}-1-gmp-atl" for kind in (*kinds, "learning", "clusters"))]
    names += [f"{kind}-2--a_b-c-" for kind in kinds]
    assert [picture.name for picture in drawn] == names
    for picture in drawn:
        assert picture.png.startswith(b"\x89PNG\r\n") and picture.png.rstrip().endswith(b"IEND\xaeB`\x82")
        root = ElementTree.fromstring(picture.svg)
        assert root.tag.endswith("svg")
        links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
        assert all(link.startswith(("#", "data:")) for link in links)
        assert picture.title


def test_the_same_report_gives_the_same_files(details: TrainingDiagnostics) -> None:
    small = report_of({"v": [fold_result(0, 1, 0.5)]}, seeds=[0], folds_total=1)
    own = TrainingDiagnostics({"v": logs(("retrain",))}, {"v": [usage(3)]})
    first, second = draw_pictures(small, own), draw_pictures(small, own)
    assert [(one.png, one.svg) for one in first] == [(one.png, one.svg) for one in second]


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw_pictures(report_of({}), TrainingDiagnostics({"v": logs(("retrain",))}))
    confusion_png(report_of({"v": [fold_result(0, 1, 0.5)]}), "v")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("folds", "speakers"), [(1, 1), (1, 70)], ids=["one speaker", "more speakers than have room for their names"]
)
def test_runs_of_any_size_can_be_drawn(folds: int, speakers: int) -> None:
    results = [fold_result(0, fold, 0.5, speakers) for fold in range(1, folds + 1)]
    small = report_of({"v": results}, seeds=[0], folds_total=folds)
    pictures = draw_pictures(small, TrainingDiagnostics({"v": logs(("finetune",), dev=False)}, {"v": [usage(3)]}))
    assert len(pictures) == 5


def curves_of(stage: str, scales: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Looks of the solid curves of a training's losses, and the names in their legend."""
    entries: list[dict[str, Any]] = []
    for epoch in (1.0, 2.0):
        losses = {f"loss_{scale}": epoch + number for number, scale in enumerate(scales)}
        accuracies = {f"eval_accuracy_{scale}": 0.1 * epoch for scale in scales}
        entries.append({"step": int(epoch), "epoch": epoch, "loss": 2 / epoch, **losses, **accuracies})
    with styled():
        upper, lower = learning_figure(report_of({}), "a", [TrainingLog(stage, 0, 1, 2, entries)]).axes
    looks = [
        [(line.get_color(), line.get_marker()) for line in axes.lines if len(line.get_xdata())]
        for axes in (upper, lower)
    ]
    assert looks[0] == looks[1]
    return looks[0], [text.get_text() for text in upper.get_legend().get_texts()]


def test_every_curve_is_drawn_and_told_from_the_others_however_many_scales_there_are() -> None:
    windows = ("", "_w500ms", "_w1000ms")
    scales = [f"gmp_layer2{window}_k{clusters}" for window in windows for clusters in (50, 100, 500)]
    looks, names = curves_of("retrain", scales)
    assert len(set(looks)) == len(set(names)) == len(looks) == len(scales)
    assert "K = 500, 1 s" in names


def test_curves_of_several_layers_say_their_layer() -> None:
    assert curves_of("retrain", ["gmp_layer1_k50", "gmp_layer2_k50"])[1] == ["layer 1, K = 50", "layer 2, K = 50"]


def test_the_page_holds_all_its_pictures_and_fetches_nothing(report: dict[str, Any], drawn: list[Picture]) -> None:
    text = render_html(report, drawn)
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert "url(" not in text and "<script" not in text and "@import" not in text
    assert [image["alt"] for image in page.images] == [picture.title for picture in drawn]
    for image, picture in zip(page.images, drawn, strict=True):
        kind, data = str(image["src"]).split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data) == picture.svg


def test_the_page_says_what_markdown_says(report: dict[str, Any]) -> None:
    text = render_html(report, remark="no pictures because of this")
    for words in ("labels were shuffled", "leave-one-speaker-out", "no pictures because of this", "Female minus male",
                  "Expected calibration error", "demo &lt;b&gt;", "&amp;&amp; y", "$a_b$ &amp; &lt;c&gt;"):  # fmt: skip
        assert words in text
    assert "<b>" not in text
    assert not re.search(r">\s*(None|nan)\s*<", text)


def test_a_run_draws_its_trainings_and_its_clusters(tmp_path: Path, pictures: None) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    run(given_split(root, variants=["gmp-atl", "direct"], final=False), tmp_path / "run")
    names = {file.stem for file in (tmp_path / "run/figures").glob("*.svg")}
    assert {
        "variants",
        "learning-1-gmp-atl",
        "clusters-1-gmp-atl",
        "learning-2-direct",
        "reliability-1-gmp-atl",
    } <= names
    assert "clusters-2-direct" not in names
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml") == len(names)
    markdown = (tmp_path / "run/report.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((figures/[^)]+)\)", markdown)
    assert len(linked) == len(names) and all((tmp_path / "run" / name).is_file() for name in linked)


def test_clusters_are_counted_over_frames_of_training_speakers(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from gmp_atl_hf.recipe.recipe import Recipe
    from gmp_atl_hf.run.details import collect_details
    from gmp_atl_hf.run.plan import plan_run

    root = write_corpus(tmp_path / "corpus")
    recipe = recipe_dict(root, variants=["gmp-atl"], final=False)
    run(recipe, tmp_path / "run")
    details = collect_details(plan_run(Recipe.from_dict(recipe), tmp_path / "run"))
    small, large = details.usage["gmp-atl"]
    assert (small.scale, large.scale) == ("gmp_layer2_k3", "gmp_layer2_k5")
    fold = tmp_path / "run/gmp-atl/seed-0/fold-01"
    import json

    train = {name.split("/")[1] for name in json.loads((fold / "split.json").read_text())["train"]}
    rows = pq.read_table(fold / "2-pseudo-labels/labels.parquet").to_pylist()
    kept = [row for row in rows if row["id"].split("/")[2].split("_")[0] in train]
    assert 0 < len(kept) < len(rows)
    for place, emotion in enumerate(("anger", "neutral", "sadness")):
        frames = [label for row in kept if row["id"].split("/")[1] == emotion for label in row["gmp_layer2_k3"]]
        assert small.counts[place].tolist() == np.bincount(frames, minlength=3).tolist()
    assert len(details.logs["gmp-atl"]) == 2 * 3


def test_what_clusters_tell_of_emotions_is_between_nothing_and_everything() -> None:
    everything = ClusterUsage("gmp_layer1_k3", 0, 1, np.diag([5, 5, 5]))
    nothing = ClusterUsage("gmp_layer1_k3", 0, 1, np.full((3, 3), 4))
    assert (everything.explained, nothing.explained) == pytest.approx((1, 0), abs=1e-9)
    assert (nothing.used, everything.perplexity) == (3, pytest.approx(3))
    assert ClusterUsage("gmp_layer1_k3", 0, 1, np.array([[9, 0, 0], [1, 0, 0]])).used == 1
