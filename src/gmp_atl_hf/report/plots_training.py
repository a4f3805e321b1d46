"""Pictures of how the trainings went and of what the clusters stand for; needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.scale_names import SINGLE_FRAME, ScaleName
from ..evaluation.metrics import FloatArray
from .blocks import percent
from .details import ClusterUsage, TrainingLog
from .drawing import FAINT, GREY, INK, SERIES, LineLook, footnote, new_figure

STAGE_TITLES = {"multitask": "1 multi-task training", "retrain": "3 retraining", "finetune": "4 fine-tuning"}


def learning_figure(report: Mapping[str, Any], variant: str, logs: Sequence[TrainingLog]) -> Any:
    """Draw the losses of each training with their parts, and below what the epoch was chosen by.

    Lines are means over folds and seeds, bands one standard deviation of them.
    """
    from matplotlib.ticker import MaxNLocator

    stages = [stage for stage in STAGE_TITLES if any(one.stage == stage for one in logs)]
    figure = new_figure(max(4.6, 3.35 * len(stages)), 5.0)
    grid = figure.subplots(2, len(stages), squeeze=False, sharex="col", height_ratios=[1.25, 1])
    for column, stage in enumerate(stages):
        upper, lower = grid[:, column]
        of_stage = [one for one in logs if one.stage == stage]
        parts = _keys(of_stage, "loss_")
        shown = parts if len(parts) > 1 else ["loss"]
        layers = _several_layers(key.removeprefix("loss_") for key in shown)
        for number, key in enumerate(shown):
            look, name = LineLook.of(number), "loss" if key == "loss" else _part(key.removeprefix("loss_"), layers)
            _curve(upper, of_stage, key, look, "-", name)
            _curve(upper, of_stage, f"eval_{key}", look, (0, (4, 2)), None)
        upper.set_title(STAGE_TITLES[stage])
        upper.grid(axis="y")
        # A legend of two columns or more has no free corner: it lies over the lines, on a ground of its own.
        columns = 1 + (len(shown) - 1) // len(SERIES)
        ground = {"frameon": columns > 1, "framealpha": 0.85, "edgecolor": "none"}
        upper.legend(loc="best", fontsize=7.5, handlelength=1.4, ncols=columns, **ground)
        upper.set_ylim(bottom=0)
        measured = _keys(of_stage, "eval_accuracy_") if stage == "retrain" else ["eval_uar", "eval_war"]
        known = [key for key in measured if any(key in entry for one in of_stage for entry in one.log)]
        for number, key in enumerate(known):
            name = _part(key.removeprefix("eval_accuracy_").removeprefix("eval_"), layers)
            _curve(lower, of_stage, key, LineLook.of(number), "-", name, scale=100)
        if known:
            if stage == "retrain":
                # The colours are those above: a second legend would only cover the lines.
                lower.set_title("accuracy of masked frames", fontsize=8)
            else:
                lower.legend(loc="lower right", fontsize=7.5, handlelength=1.4)
            lower.set_ylim(bottom=0)
        else:
            lower.set_yticks([])
            lower.text(
                0.5, 0.5, "no development speakers", ha="center", va="center", color=GREY, transform=lower.transAxes
            )
        lower.set_xlabel("epoch")
        lower.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        lower.grid(axis="y")
        if stage != "retrain" and known:
            _best_epochs(lower, of_stage)
    grid[0, 0].set_ylabel("loss (solid: training,\ndashed: development)")
    grid[1, 0].set_ylabel("development, %")
    runs = len({(one.seed, one.fold) for one in logs})
    line = (
        f"{variant}: mean of {runs} trainings, band one standard deviation" if runs > 1 else f"{variant}: one training"
    )
    if any("eval_uar" in entry for one in logs for entry in one.log):
        line += "; marks at the bottom: epochs kept"
    footnote(figure, report, [line])
    return figure


def clusters_figure(report: Mapping[str, Any], variant: str, usage: Sequence[ClusterUsage]) -> Any:
    """Draw which clusters each emotion uses more, and which less, than the others do."""
    labels = report["labels"]
    height = 0.55 + 0.19 * len(labels)
    figure = new_figure(7.4, 1.35 + (height + 0.75) * len(usage))
    grid = figure.subplots(
        2 * len(usage), 1, squeeze=False, height_ratios=[part for _ in usage for part in (0.32, height)]
    )
    figure.get_layout_engine().set(h_pad=0.02, hspace=0.0)
    picture = None
    for number, one in enumerate(usage):
        bars, axes = grid[2 * number : 2 * number + 2, 0]
        ratios, order = _over_use(one)
        clusters = one.counts.shape[1]
        edges = np.arange(clusters + 1) - 0.5
        picture = axes.imshow(
            ratios[:, order], cmap="PuOr_r", vmin=-2, vmax=2, aspect="auto", interpolation="nearest",
            extent=(-0.5, clusters - 0.5, len(labels) - 0.5, -0.5),
        )  # fmt: skip
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(length=0)
        axes.set_xticks([])
        shares = 100 * one.counts.sum(axis=0)[order] / max(one.counts.sum(), 1)
        bars.stairs(shares, edges, color=GREY, fill=True)
        bars.set_xlim(-0.5, clusters - 0.5)
        bars.set_xticks([])
        bars.set_yticks([0, float(f"{shares.max():.1g}")])
        bars.tick_params(labelsize=7)
        bars.spines["bottom"].set_visible(False)
        bars.set_title(
            f"{ScaleName.parse(one.scale).in_words}: {one.used} used, perplexity {one.perplexity:.0f}, "
            f"{percent(one.explained)} % of the emotion's entropy explained",
            fontsize=9,
        )
        for spine in axes.spines.values():
            spine.set_color(FAINT)
    assert picture is not None
    bar = figure.colorbar(picture, ax=grid[:, 0].tolist(), location="right", shrink=0.6, aspect=30, pad=0.015)
    bar.set_ticks([-2, -1, 0, 1, 2], labels=["¼", "½", "as all", "2 ×", "4 ×"])
    bar.ax.tick_params(labelsize=8, length=0)
    bar.outline.set_visible(False)
    where = f"seed {usage[0].seed}, fold {usage[0].fold}"
    footnote(
        figure,
        report,
        [
            f"{variant}, {where}, frames of training speakers. One column per cluster, sorted by the emotion that "
            "prefers it; colour: use by this emotion against all emotions. Above: share of frames in %."
        ],
    )
    return figure


def _over_use(usage: ClusterUsage) -> tuple[FloatArray, Any]:
    """Binary logarithm of p(cluster | emotion) / p(cluster), and an order that puts like clusters side by side."""
    # A pseudo-frame per cell keeps clusters that an emotion never uses from being infinitely rare.
    counts = usage.counts + 1.0
    within = counts / counts.sum(axis=1, keepdims=True)
    everywhere = within.mean(axis=0)
    ratios: FloatArray = np.log2(within / everywhere)
    best = ratios.argmax(axis=0)
    order = np.lexsort((-ratios.max(axis=0), best))
    return ratios, order


def _keys(logs: Sequence[TrainingLog], prefix: str) -> list[str]:
    """Names that start so, in the order in which they were logged, small numbers of clusters first."""
    found = dict.fromkeys(key for one in logs for entry in one.log for key in entry if key.startswith(prefix))
    return sorted(found, key=lambda key: int(key.rpartition("_k")[2]) if "_k" in key else 0)


def _several_layers(names: Iterable[str]) -> bool:
    """Whether some of these names are scales of different layers: then K alone would not tell their lines apart."""
    return len({ScaleName.parse(name).layer for name in names if "_k" in name}) > 1


def _part(name: str, layers: bool) -> str:
    """The name of a line; with `layers`, that of a scale says its layer."""
    if "_k" not in name:
        return name.upper() if name in ("uar", "war") else name
    scale = ScaleName.parse(name)
    if layers or scale.layer is None:
        return scale.in_words
    return f"K = {scale.clusters}" + ("" if scale.window == SINGLE_FRAME else f", {scale.window:g} s")


def _curve(
    axes: Any, logs: Sequence[TrainingLog], key: str, look: LineLook, style: Any, label: str | None, scale: float = 1
) -> None:
    """Draw mean and spread over trainings, at the epochs that all of them have reached."""
    curves = [[(e["epoch"], scale * e[key]) for e in one.log if key in e and "epoch" in e] for one in logs]
    curves = [curve for curve in curves if curve]
    if not curves:
        return
    longest = max(map(len, curves))
    # Early stopping ends some before others: each epoch is the mean of those that got there.
    table = np.full((len(curves), longest), np.nan)
    for row, curve in enumerate(curves):
        table[row, : len(curve)] = [value for _, value in curve]
    epochs = [epoch for epoch, _ in max(curves, key=len)]
    mean = np.nanmean(table, axis=0)
    marks: dict[str, Any] = {"marker": look.mark, "markersize": look.mark_size}
    axes.plot(epochs, mean, color=look.colour, linestyle=style, linewidth=1.6, label=label, **marks)
    if len(curves) > 1 and style == "-":
        spread = np.nanstd(table, axis=0)
        axes.fill_between(epochs, mean - spread, mean + spread, color=look.colour, alpha=0.15, linewidth=0)


def _best_epochs(axes: Any, logs: Sequence[TrainingLog]) -> None:
    """Mark the epoch that each training kept."""
    kept = [e["epoch"] for one in logs for e in one.log if e.get("step") == one.best_step and "eval_uar" in e]
    axes.plot(kept, [0.0] * len(kept), "|", color=INK, markersize=9, markeredgewidth=1.2, clip_on=False, zorder=5)
