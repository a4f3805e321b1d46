"""Whether a folder that a run is to be written into belongs to something else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from ..errors import RequestError
from .layout import MODEL, RECIPE_FILE

_MODEL_FILES = ("config.json", "adapter_config.json")
_KIND = {"iterations": "pre-training", "variants": "run"}
_KEY = re.compile(rf"^({'|'.join(_KIND)}):", flags=re.MULTILINE)


def refuse_occupied(folder: Path, kind: Literal["run", "pre-training"], roots: Iterable[str | None]) -> None:
    """Refuse a folder whose files a run would stand among, or write over: no other `recipe.yaml` may be lost.

    Args:
        folder: Where the run is to go, there or not.
        kind: What it is.
        roots: The folders of its corpora.

    Raises:
        RequestError: It is a model's, a corpus', a test's, or that of the other kind.
    """
    recipe = folder / RECIPE_FILE
    found = source_in(folder, roots)
    if found is None and recipe.is_file():
        key = _KEY.search(recipe.read_text(encoding="utf-8", errors="replace"))
        if key and _KIND[key[1]] != kind:
            found = f"is the folder of a {_KIND[key[1]]}"
    if found is None and any((folder / MODEL).glob("seed-*")):
        found = "holds the test of a model"
    if found is not None:
        raise RequestError(f"{folder} {found}", f"a folder of its own for the {kind}", "choose another --output-dir")


def source_in(folder: Path, roots: Iterable[str | os.PathLike[str] | None]) -> str | None:
    """Say that a folder is that of a model, or one of the corpora's; None where it is neither."""
    if any((folder / name).is_file() for name in _MODEL_FILES):
        return "is the folder of a model"
    if any(root is not None and folder.resolve() == Path(root).resolve() for root in roots):
        return "is the folder of the corpus"
    return None
