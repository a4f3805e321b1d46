"""Whether a folder that a run is to be written into belongs to something else."""

from __future__ import annotations

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
    found = None
    if any((folder / name).is_file() for name in _MODEL_FILES):
        found = "is the folder of a model"
    elif any(root is not None and _same(folder, Path(root)) for root in roots):
        found = "is the folder of the corpus"
    elif recipe.is_file():
        key = _KEY.search(recipe.read_text(encoding="utf-8", errors="replace"))
        if key and _KIND[key[1]] != kind:
            found = f"is the folder of a {_KIND[key[1]]}"
    elif any((folder / MODEL).glob("seed-*")):
        found = "holds the test of a model"
    if found is not None:
        raise RequestError(f"{folder} {found}", f"a folder of its own for the {kind}", "choose another --output-dir")


def _same(folder: Path, other: Path) -> bool:
    return folder.resolve() == other.resolve()
