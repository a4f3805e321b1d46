"""The files of a run's model that go to the Hub."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from ..checkpoints import Adapter, locate
from ..errors import RequestError
from ..files import HASHES_FILE, STEP_FILE, check_files, is_half_written
from ..hub.commit import HubFile
from ..hub.metadata import CARD_FILE
from ..report.build import pictures_of
from ..run_folder.layout import ADAPTER, RECIPE_FILE, REPORT_FILE, USAGE_FILE
from .card import FIGURE_FILE, draw_figure, hub_dataset, metric_results, render_card
from .facts import RunFacts, read_run

_NOT_SENT = (STEP_FILE, HASHES_FILE, USAGE_FILE, CARD_FILE, FIGURE_FILE)
"""Files of the model's folder that are the run's own, or made anew for the Hub."""

_TEXTS = (RECIPE_FILE, "report.md", REPORT_FILE, "report.html")


def files_of_run(
    run: Path,
    repo_id: str,
    licence: str | None = None,
    benchmark: tuple[str, str] | None = None,
    adapter: bool = False,
) -> list[HubFile]:
    """List what goes to the Hub with a run's model, sorted by path.

    That is the model's folder (weights, configuration, feature extractor, code), the card with the repository's own
    id in its example, its picture, the recipe, the report with its pictures, and the figures in the Hub's own format.
    Where text names files or folders of this machine, the copy that is sent has a placeholder.

    Args:
        run: The run's folder.
        repo_id: Id of the repository.
        licence: Licence of the weights as the Hub names it.
        benchmark: Dataset on the Hub and task, whose leaderboard the UAR belongs to; None for the dataset that the
            run has read from the Hub, if it has.
        adapter: Send the adapter alone in place of the model that it is merged into.

    Raises:
        RequestError: The folder is not that of a run with a final model, or the model has no adapter, or one that
            belongs to weights of this machine.
    """
    facts = read_run(run)
    figure = draw_figure(facts)
    base = base_of_adapter(facts.model) if adapter else None
    card = render_card(facts, repo_id, None if figure is None else FIGURE_FILE, licence, base)
    files = [
        HubFile(one.name, one)
        for one in (facts.model / ADAPTER if adapter else facts.model).iterdir()
        if one.is_file() and one.name not in _NOT_SENT and not is_half_written(one)
    ]
    texts = {CARD_FILE: card}
    check_files(run, *_TEXTS)
    for name in _TEXTS:
        if (run / name).is_file():  # a run of an earlier version has no page of its own
            texts[name] = (run / name).read_text(encoding="utf-8")
    hidden = folders_of(facts)
    files += [HubFile(name, hide_paths(text, hidden).encode()) for name, text in texts.items()]
    if figure is not None:
        files.append(HubFile(FIGURE_FILE, figure))
    pictures = [name for name in pictures_of(run) if name.endswith(".png") and (run / name).is_file()]
    files += [HubFile(name, run / name) for name in pictures]
    check_files(run, *pictures)
    dataset = hub_dataset(facts)
    if benchmark is None and dataset is not None:
        benchmark = dataset, "default"
    if benchmark is not None:
        files.append(HubFile(f".eval_results/{benchmark[0].split('/')[-1]}.yaml", _eval_results(facts, *benchmark)))
    return sorted(files, key=lambda file: file.path)


def base_of_adapter(model: Path) -> str:
    """Which model the adapter of a run's model belongs to; a `RequestError` where others could not load it."""
    found = Adapter.find(str(model / ADAPTER)) if (model / ADAPTER).is_dir() else None
    if found is None:
        raise RequestError(
            f"{model} has no adapter",
            "a run whose last training had `lora`",
            "stages: {finetune: {lora: {}}} in the recipe, or push without --adapter",
        )
    if locate(found.base) == found.base and Path(found.base).is_absolute():
        raise RequestError(
            f"the adapter of {model} belongs to {found.base}, which is on this machine only",
            "an adapter of a model on the Hub, or of an encoder that comes with the package",
            "push without --adapter: the model has the adapter merged",
        )
    return found.base


def folders_of(facts: RunFacts) -> list[str]:
    """List the absolute paths that a run's texts may name: its own folder, and those of its recipe and command."""
    found = [str(facts.folder.resolve())]
    left: list[Any] = [facts.recipe.to_dict()]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            left.extend(value)
        elif isinstance(value, str):
            found.append(value)
    command = str(facts.report.get("command", ""))
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation mark alone, as in a folder's name
        words = command.split()
    # `--set key=value` and `--option=value` name a path behind the sign.
    found += [part for word in words for part in (word, word.partition("=")[2])]
    return [path for path in found if Path(path).is_absolute() and len(Path(path).parts) > 1]


def hide_paths(text: str, paths: Sequence[str]) -> str:
    """Replace absolute paths, which tell nobody anything and may name a person, by `path/to/<name>`.

    Example:
        >>> hide_paths("root: /home/ana/emodb", ["/home/ana/emodb"])
        'root: path/to/emodb'
    """
    for path in sorted({path for path in paths if Path(path).is_absolute()}, key=len, reverse=True):
        plain, name = path.rstrip("/"), Path(path).name
        # A command is kept as a shell reads it, where an apostrophe is spelt otherwise; so is it, and &, in the page.
        quoted = shlex.quote(plain).strip("'")
        spellings = {plain: name, quoted: name}
        spellings |= {html.escape(spelt): html.escape(name) for spelt in spellings}
        for spelt, shown in spellings.items():
            # Not inside of an address or of a longer path: /data is no part of https://x.org/data or runs/data.
            text = re.sub(rf"(?:(?<=file://)|(?<![\w./-])){re.escape(spelt)}(?![\w-])", f"path/to/{shown}", text)
    return text


def _eval_results(facts: RunFacts, dataset: str, task: str) -> bytes:
    """The Hub's file of evaluation results: one value per task, so the headline, with what it is in its notes."""
    _, name, value = metric_results(facts)["uar"]
    protocol = facts.report["protocol"].get("sentence") or facts.report["protocol"]["kind"]
    notes = "; ".join([name, *facts.report["stamps"], str(protocol)])
    entry = EvalResultEntry(dataset_id=dataset, task_id=task, value=round(100 * value, 2), notes=notes)
    rows: list[dict[str, Any]] = eval_result_entries_to_yaml([entry])
    return yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=1000).encode()
