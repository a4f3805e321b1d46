"""A progress bar that says which training it belongs to."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..batching.sampler import StepBatchSampler
from ..data.audio import SAMPLING_RATE


class TrainingProgress(TrainerCallback):
    """One bar per training on the main process, with the last loss and development UAR behind it.

    Args:
        description: What is being trained.
    """

    SHOWN = {"loss": "loss", "eval_uar": "dev UAR", "eval_loss": "dev loss"}

    def __init__(self, description: str) -> None:
        self.description = description
        self.bar: tqdm[Any] | None = None
        self.figures: dict[str, str] = {}
        self.seconds_per_step: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Open the bar; after a resume it starts where training does."""
        if state.is_world_process_zero:
            sampler = getattr(others.get("train_dataloader"), "batch_sampler", None)
            if isinstance(sampler, StepBatchSampler):
                self.seconds_per_step = float(sampler.samples.sum()) / SAMPLING_RATE / sampler.steps
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.description, unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show the newest figures."""
        if self.bar is not None and logs:
            self.figures |= {shown: f"{logs[key]:.3f}" for key, shown in self.SHOWN.items() if key in logs}
            rate = self.bar.format_dict["rate"]
            if rate and self.seconds_per_step:
                self.figures["audio"] = f"{rate * self.seconds_per_step:.0f} s/s"
            self.bar.set_postfix(self.figures)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
