"""Where the test of a finished model goes: a folder of its own, in which the same test alone replaces itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..files import read_json
from ..run_folder.layout import RECIPE_FILE, REPORT_FILE, FoldFolder, RunFolder
from ..run_folder.lock import refuse_file
from ..run_folder.occupied import source_in
from ..run_folder.step_folder import differences

SETTINGS = "settings"
"""In `metrics.json` of the test: from what it was made, as far as numbers may depend on it."""


def place_of_test(folder: Path) -> FoldFolder:
    """Where predictions and metrics are: as in a run of one model, one seed and one fold, so that others read it."""
    return RunFolder(folder).fold("model", 0, 1)


def settings_of_test(model: str | Path, corpus: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """From what a test is made, JSON types; a folder or file is the same however its path is written."""
    found = {name: _place(each) if name == "root" or os.sep in str(each) else each for name, each in corpus.items()}
    named = {**others, "model": _place(str(model)), "corpus": found}
    plain: dict[str, Any] = json.loads(json.dumps(named, default=str))
    return plain


def _place(value: Any) -> Any:
    """A path of something that is there, written out; anything else as it is."""
    if not isinstance(value, str | Path) or not str(value):
        return value
    place = Path(value).expanduser()
    return str(place.resolve()) if place.exists() else value


def refuse_other_results(folder: Path, settings: Mapping[str, Any], note: Path | None = None) -> None:
    """Refuse a folder that holds a run, a model, the corpus, or a test that was made from something else.

    Args:
        folder: Where the test is to go, there or not.
        settings: What `settings_of_test` gives for it.
        note: The file of such a test that has its `model` and `settings`; None for that of an evaluation.

    Raises:
        RequestError: Says what is there, and in what it differs.
    """
    refuse_file(folder)
    found, fix = None, "choose another --output-dir"
    corpus = settings.get("corpus")
    if source := source_in(folder, [corpus.get("root")] if isinstance(corpus, Mapping) else []):
        found = f"{folder} {source}"
    elif (folder / RECIPE_FILE).is_file():
        found = f"{folder} is the folder of a run"
    elif (note := note or place_of_test(folder).metrics).is_file():
        found, fix = _other_test(folder, note, settings), f"{fix}, or delete {folder}"
    elif (folder / REPORT_FILE).is_file():
        found = f"{folder} holds a report of something else"
    if found is not None:
        expected = "a folder of its own for each test; the same test may be made again in its folder"
        raise RequestError(found, expected, fix)


def _other_test(folder: Path, note: Path, settings: Mapping[str, Any]) -> str | None:
    """What a test is that was made from something else; None for the same one."""
    unclear = f"{folder} holds a test of which nobody can say what was tested"
    try:
        noted = read_json(note)
    except RequestError as error:
        return f"{unclear}: {error.found}"
    if not isinstance(noted, Mapping):
        return f"{unclear}: {note} is no mapping"
    if (before := noted.get(SETTINGS)) is None:
        return f"{folder} holds a test of {noted.get('model')} by an earlier version, which did not note on what"
    if not (differ := differences(before, settings)):
        return None
    model = before.get("model") if isinstance(before, Mapping) else noted.get("model")
    return f"{folder} holds a test of {model} that was made from other settings: {'; '.join(differ[:5])}"
