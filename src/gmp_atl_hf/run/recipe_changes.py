"""What somebody has changed in the recipe since a run was begun: first of all that a refused step has to name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError
from ..recipe.recipe import Recipe
from ..run_folder.layout import RECIPE_FILE
from ..run_folder.step_folder import differences

_MAY_GROW = ("name", "variants", "seeds", "final")
"""Keys that change no step; a variant's settings may, and then stand in the step alone."""

_TRACKERS = ("report_to", "run_name")
"""Arguments of a stage that change no step."""

_ACTS_THROUGH = {
    "corpus": "data",
    "labels": "data",
    "protocol": "data",
    "data.short_clips": "data",
    "data.front_end_cache": "front_end",
    "replay": "replay",
}
"""Settings of which a step knows only what comes of them, and the part of its inputs that this is: a corpus that was
moved has the same recordings."""


_RECORDINGS = {
    "replay": "the recordings of plain speech below `replay.root`",
    "rows": "the corpus' recordings, or what it says of them",
}
"""What a step knows by a hash alone, and what that is made of: somebody may have changed it and no setting."""


@dataclass(frozen=True)
class RecipeChanges:
    """The settings in which a recipe differs from the one that a run's folder was last used with.

    Args:
        settings: `path: before → after` of each; none where the folder holds no recipe that this version reads.
    """

    settings: tuple[str, ...] = ()

    @classmethod
    def since(cls, folder: Path, recipe: Recipe) -> RecipeChanges:
        """Compare a recipe with that of a run's folder."""
        file = folder / RECIPE_FILE
        if not file.is_file():
            return cls()
        try:
            before = Recipe.from_yaml(file).to_dict()
        except RequestError:  # of another version, or damaged: what a step was made from is beside it as well
            return cls()
        now = recipe.to_dict()
        for name in _MAY_GROW:
            before.pop(name, None)
            now.pop(name, None)
        return cls(tuple(differences(before, now)))

    def behind(self, inputs: Iterable[str]) -> list[str]:
        """Give those that may be why a step's inputs differ, and leave out those that are not.

        Where there are none, it says which recordings have changed, if any have.

        Args:
            inputs: `path: before → after` of each input that differs.
        """
        parts = {part for path in map(_path, inputs) for part in path.split(".")}
        # Of an earlier step only the key is known, which everything may be behind.
        changed = [
            setting
            for setting in self.settings
            if (part := _acts_through(_path(setting))) is None or parts & {part, "key", "pseudo_labels"}
            if _path(setting).rpartition(".")[2] not in _TRACKERS
        ]
        return changed or [f"{made_of} are not the same" for part, made_of in _RECORDINGS.items() if part in parts]


def _acts_through(path: str) -> str | None:
    return next((part for own, part in _ACTS_THROUGH.items() if f"{path}.".startswith(f"{own}.")), None)


def _path(difference: str) -> str:
    return difference.partition(": ")[0]
