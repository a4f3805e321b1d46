"""Stopping at a step that was chosen elsewhere."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StopAtStep(TrainerCallback):
    """End training after a given optimiser step, with the learning-rate schedule of the whole length.

    Args:
        step: The last step to perform.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask to stop once the step is done."""
        if state.global_step >= self.step:
            control.should_training_stop = True
