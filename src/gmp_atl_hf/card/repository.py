"""A run's model on the Hub: what goes there, and sending it as one commit."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    EvalResultEntry,
    HfApi,
    constants,
    eval_result_entries_to_yaml,
    get_token,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ..errors import RequestError
from ..files import HASHES_FILE, STEP_FILE, check_files, is_half_written
from ..report.build import pictures_of
from ..run_folder.layout import RECIPE_FILE, REPORT_FILE, USAGE_FILE
from .card import CARD_FILE, FIGURE_FILE, draw_figure, hub_dataset, metric_results, render_card
from .facts import RunFacts, read_run

_STAYS = (STEP_FILE, HASHES_FILE, USAGE_FILE, CARD_FILE, FIGURE_FILE)
"""Files of the model's folder that are the run's own, or made anew for the Hub."""

_TEXTS = (RECIPE_FILE, "report.md", REPORT_FILE, "report.html")

_LOST = (OfflineModeIsEnabled, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class HubFile:
    """A file to send.

    Args:
        path: Its path in the repository.
        content: Its bytes, or where it lies.
    """

    path: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def files_of_run(
    run: Path, repo_id: str, licence: str | None = None, benchmark: tuple[str, str] | None = None
) -> list[HubFile]:
    """List what goes to the Hub with a run's model.

    That is the model's folder (weights, configuration, feature extractor, code), the card with the repository's own
    id in its example, its picture, the recipe, the report with its pictures, and the figures in the Hub's own format.
    Where text names files or folders of this machine, a placeholder stands in the copy that is sent.

    Args:
        run: The run's folder.
        repo_id: Id of the repository.
        licence: Licence of the weights as the Hub names it.
        benchmark: Dataset on the Hub and task, whose leaderboard the UAR belongs to; None for the dataset that the
            run has read from the Hub, if it has.

    Returns:
        The files, by their paths.

    Raises:
        RequestError: The folder is not that of a run with a final model.
    """
    facts = read_run(run)
    figure = draw_figure(facts)
    card = render_card(facts, repo_id, None if figure is None else FIGURE_FILE, licence)
    files = [
        HubFile(one.name, one)
        for one in facts.model.iterdir()
        if one.is_file() and one.name not in _STAYS and not is_half_written(one)
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


def folders_of(facts: RunFacts) -> list[str]:
    """List the absolute paths that a run's texts may name: its own folder, and all of its recipe and its command.

    Args:
        facts: The run.

    Returns:
        Files and folders of the machine it ran on.
    """
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
    """Replace absolute folders of this machine, which tell nobody anything and may name a person.

    Args:
        text: Any text.
        paths: The folders; relative ones stay.

    Returns:
        The text with `path/to/<name>` in their place.

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


def check_repo_id(repo_id: str) -> None:
    """Refuse what can be no repository's id.

    Raises:
        RequestError: Says what an id looks like.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RequestError(
            f"{repo_id!r} can be no id of a repository: {str(error).splitlines()[0]}",
            "owner/name, of letters, digits and - _ .",
            "gmp-atl push runs/demo your-name/your-model",
        ) from error


def push_files(
    files: Sequence[HubFile],
    repo_id: str,
    *,
    message: str,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    space: bool = False,
) -> CommitInfo:
    """Make the repository if there is none, and send the files as one commit.

    Args:
        files: What to send.
        repo_id: Id of the repository.
        message: Message of the commit.
        private: Whether a new repository is private; None for the owner's setting. Nothing changes in an old one.
        revision: Branch to commit to, made if it is missing; None for the main one.
        token: A token in place of the one that is stored; it is never shown.
        space: Whether it is a Space with a Gradio page instead of a model.

    Returns:
        What the Hub says of the commit.

    Raises:
        RequestError: Nobody is logged in, the Hub cannot be reached, or it refuses.
    """
    check_repo_id(repo_id)
    token = token or get_token()
    if token is None:
        raise RequestError(
            "you are not logged in to the Hub", "a token that may write", "hf auth login, or set HF_TOKEN"
        )
    api = HfApi(token=token)
    kind = "space" if space else "model"
    with _explained(repo_id, token):
        made = api.create_repo(
            repo_id, private=private, exist_ok=True, repo_type=kind, space_sdk="gradio" if space else None
        )
        # The Hub adds the owner to a bare name.
        repo_id = made.repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True, repo_type=kind)
        return api.create_commit(
            repo_id,
            [CommitOperationAdd(file.path, _content(file)) for file in files],
            commit_message=message,
            revision=revision,
            repo_type=kind,
        )


def _content(file: HubFile) -> str | bytes:
    return file.content if isinstance(file.content, bytes) else str(file.content)


@contextmanager
def _explained(repo_id: str, token: str) -> Iterator[None]:
    """Turn the Hub's refusals into wrong requests, with no token in any of them."""
    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reason = _without(token, error.server_message or str(error).splitlines()[0])
        if isinstance(error, RevisionNotFoundError):
            raise RequestError(f"the Hub knows no such revision of {repo_id}: {reason}", "a branch") from None
        if status == 401 and not isinstance(error, RepositoryNotFoundError):
            raise RequestError(
                f"the Hub does not accept your token: {reason}", "a token that is valid", "hf auth login"
            ) from None
        if status in (401, 403, 404):
            raise RequestError(
                f"the Hub does not let you write to {repo_id}: {reason}",
                "a repository of your own or of an organisation you may write for, and a token that may write",
                "hf auth whoami shows who you are; hf auth login takes another token",
            ) from None
        raise RuntimeError(f"the Hub could not take {repo_id} (status {status}): {reason}") from None
    except Exception as error:
        if isinstance(error, _LOST) or type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore"):
            raise RequestError(
                f"the Hub at {constants.ENDPOINT} cannot be reached: {_without(token, str(error))}",
                "a network, and HF_HUB_OFFLINE not set",
                "try again",
            ) from None
        raise


def _without(token: str, text: str) -> str:
    return text.replace(token, "***")


def _eval_results(facts: RunFacts, dataset: str, task: str) -> bytes:
    """The Hub's file of evaluation results: one value per task, so the headline, with what it is in its notes."""
    _, name, value = metric_results(facts)["uar"]
    protocol = facts.report["protocol"].get("sentence") or facts.report["protocol"]["kind"]
    notes = "; ".join([name, *facts.report["stamps"], str(protocol)])
    entry = EvalResultEntry(dataset_id=dataset, task_id=task, value=round(100 * value, 2), notes=notes)
    rows: list[dict[str, Any]] = eval_result_entries_to_yaml([entry])
    return yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=1000).encode()
