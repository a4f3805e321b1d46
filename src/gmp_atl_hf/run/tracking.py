"""Trackers (`report_to`): each training has a name and a log of its own, which outlive its checkpoints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers.integrations import TensorBoardCallback

from ..run_folder.layout import RECIPE_FILE, TENSORBOARD
from ..run_folder.step_folder import UNFINISHED
from ..training.arguments import GMPATLTrainingArguments
from ..training.trainer import GMPATLTrainer


@dataclass(frozen=True)
class Tracking:
    """Where the log of one training goes, and what it is called.

    Args:
        name: The run's name and the path in its folder: `mine/gmp-atl/seed-0/fold-01/1-multitask`.
        folder: Where TensorBoard's files of this training go.
    """

    name: str
    folder: Path

    @staticmethod
    def of(working: Path, run_name: str | None = None) -> Tracking:
        """That of a training in a step's folder, finished or not, with another name for the run if one is given."""
        working = working.absolute()
        root = next((each for each in working.parents if (each / RECIPE_FILE).is_file()), working.parent)
        inside = "/".join(part.removesuffix(UNFINISHED) for part in working.relative_to(root).parts)
        name = f"{run_name or root.name}/{inside}"
        elsewhere = os.environ.get("TENSORBOARD_LOGGING_DIR")
        folder = Path(elsewhere).expanduser() / name if elsewhere else root / TENSORBOARD / inside
        return Tracking(name, folder)

    def name_run(self, arguments: GMPATLTrainingArguments) -> None:
        """Give the arguments the name, which W&B, MLflow and others show."""
        arguments.run_name = self.name

    @contextmanager
    def follow(self, trainer: GMPATLTrainer, updates_before: int) -> Iterator[None]:
        """Send what the trainer logs to the right place, and end what the trackers have begun.

        Args:
            trainer: It has not trained yet.
            updates_before: Optimiser steps of the checkpoint that it goes on from; 0 begins the log anew.
        """
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and trainer.is_world_process_zero():
                self._direct(callback, updates_before)
        wandb: Any = sys.modules.get("wandb")  # its callback has imported it, if there is one
        before = getattr(wandb, "run", None)
        try:
            yield
        finally:
            # Its callback leaves it open, and the next training would go on writing into it.
            if getattr(wandb, "run", None) is not None and wandb.run is not before:
                wandb.finish()

    def _direct(self, callback: Any, updates_before: int) -> None:
        callback.logging_dir = str(self.folder)
        # What an interrupted training had logged after its last checkpoint is logged again, and all that is there of
        # one that was begun otherwise: TensorBoard hides events from this step on, and no file is deleted.
        purge = updates_before + 1 if updates_before else 0
        callback._SummaryWriter = partial(callback._SummaryWriter, purge_step=purge)
