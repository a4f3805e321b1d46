"""The recipes that come with the package, by name."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import RequestError, did_you_mean, known_names


def packaged_recipes() -> dict[str, Path]:
    """Name to file of the recipes that come with the package, sorted by name."""
    here = Path(__file__).resolve().parent
    # In the wheel the recipes lie inside the package; in a source checkout beside `src`.
    folder = next((f for f in (here / "packaged", here.parents[2] / "recipes") if f.is_dir()), None)
    return {} if folder is None else {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_recipe(path: str | os.PathLike[str], pretraining: bool | None = None) -> Path:
    """Find a recipe file by its path, or a packaged one by its name.

    Args:
        path: The path or name.
        pretraining: Whether only recipes of pre-trainings, or only others, are offered when there is none.

    Raises:
        RequestError: With the known names when there is neither.
    """
    file = Path(path)
    if file.is_file():
        return file
    known = packaged_recipes()
    name = os.fspath(path)
    if name in known:
        return known[name]
    if pretraining is not None:
        known = {one: file for one, file in known.items() if one.startswith("pretrain-") is pretraining}
    raise RequestError(
        f"there is no recipe {name}" + (" (it is a folder)" if file.is_dir() else ""),
        f"a YAML file, or {known_names(known)}" if known else "a YAML file",
        did_you_mean(file.stem, known) or "correct the path; a relative path starts where the command is run",
    )
