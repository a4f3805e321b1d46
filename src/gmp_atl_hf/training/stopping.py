"""When a training ends, with which model, and that it stays so after a resume from its last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StopAtStep(TrainerCallback):
    """End training after a given optimiser step, with the learning-rate schedule of the whole length.

    Args:
        step: The last step to perform.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask to stop at once if the resumed checkpoint is that of the last step."""
        if state.global_step >= self.step:
            control.should_training_stop = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask to stop once the step is done."""
        if state.global_step >= self.step:
            control.should_training_stop = True


class StopAtEnd(TrainerCallback):
    """Do not train past the planned steps when the resumed checkpoint is the last one, in the middle of an epoch."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask to stop at once if nothing is left to do."""
        if state.global_step >= state.max_steps:
            control.should_training_stop = True


class StopWithoutImprovement(EarlyStoppingCallback):
    """Early stopping that still stops when the resumed checkpoint is the one at which patience ran out."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask to stop at once if patience had run out."""
        super().on_train_begin(args, state, control, **kwargs)  # type: ignore[no-untyped-call]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class FindBestModel(TrainerCallback):
    """Find the best checkpoint again when its folder was moved between two halves of a training."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look where checkpoints are now."""
        known = state.best_model_checkpoint
        if state.best_global_step and not (known and Path(known).is_dir()):
            here = Path(str(args.output_dir), f"checkpoint-{state.best_global_step}")
            state.best_model_checkpoint = str(here) if here.is_dir() else None
