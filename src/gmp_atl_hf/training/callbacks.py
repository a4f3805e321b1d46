"""What happens between the steps of a training: epoch, best checkpoint, divergence, its end, the progress bar."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..batching.sampler import StepBatchSampler
from ..data.audio import SAMPLING_RATE
from ..errors import DivergenceError, counted


class SetEpoch(TrainerCallback):
    """Tell the sampler the epoch, however the loader around it has been wrapped or resumed."""

    def __init__(self, sampler: StepBatchSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Pass the epoch on."""
        self.sampler.set_epoch(state.global_step // self.sampler.steps)


class FindBestModel(TrainerCallback):
    """Find the best checkpoint again when its folder was moved between two halves of a training."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look for it in the output folder."""
        known = state.best_model_checkpoint
        if state.best_global_step and not (known and Path(known).is_dir()):
            here = Path(args.output_dir or ".", f"checkpoint-{state.best_global_step}")
            state.best_model_checkpoint = str(here) if here.is_dir() else None


class StopAtDivergence(TrainerCallback):
    """Fail at the first step whose loss, gradient or parameters are not finite, before anything is saved of it.

    In float16 single steps overflow and are passed over, with half the loss scale in the next one. That ends where the
    scale falls below 1: then the gradients themselves are beyond float16. The scale is kept in checkpoints, so that a
    training that was resumed fails at the same step.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.loss = torch.zeros(())
        self.gradient_norm: float | Tensor | None = None
        self.performed = self.passed_over = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin to count."""
        self.performed = self.passed_over = 0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget the step before; the trainer adds the loss of each batch to `loss` and sets `gradient_norm`."""
        self.loss, self.gradient_norm = torch.zeros((), device=args.device), None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Raise `DivergenceError`, naming step, figures and what to change."""
        scaler, figures = self.accelerator.scaler, {"loss": float(self.loss)}
        if self.gradient_norm is not None:
            figures["gradient norm"] = float(self.gradient_norm)
        # Not `optimizer_step_was_skipped`: it does not know of the steps that fused optimisers pass over by themselves.
        if scaler is not None and not math.isfinite(figures.get("gradient norm", 0.0)):
            self.passed_over += 1
            if scaler.get_scale() >= 1:
                return
            found = f"training diverged at step {state.global_step}: gradients overflow even without a loss scale"
            raise DivergenceError(f"{found}, the loss is {figures['loss']:g}", *_advice(args, state))
        self.performed += 1
        figures["largest parameter"] = _largest(model)
        if not all(map(math.isfinite, figures.values())):
            values = ", ".join(f"the {name} is {value:g}" for name, value in figures.items())
            raise DivergenceError(f"training diverged at step {state.global_step}: {values}", *_advice(args, state))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Raise `DivergenceError` if every step has overflowed."""
        if self.passed_over and not self.performed:
            found = f"all {self.passed_over} steps up to step {state.global_step} overflowed: nothing was trained"
            raise DivergenceError(f"{found}, the loss is {float(self.loss):g}", *_advice(args, state))


class StopAtStep(TrainerCallback):
    """End training after a given optimiser step, with the learning-rate schedule of the whole length."""

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


class StopAtEpoch(TrainerCallback):
    """End training at the optimiser step next to some number of epochs, with the schedule of the whole length."""

    def __init__(self, epochs: float) -> None:
        self.epochs = epochs

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask to stop at once if the resumed checkpoint is that of the last step."""
        control.should_training_stop = self._done(state) or control.should_training_stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask to stop once the step is done."""
        control.should_training_stop = self._done(state) or control.should_training_stop

    def _done(self, state: TrainerState) -> bool:
        if not state.global_step or not state.epoch:
            return False
        return state.global_step >= round(self.epochs * state.global_step / state.epoch)


class StopAtEnd(TrainerCallback):
    """Do not train past the planned steps when the resumed checkpoint is the last one, in the middle of an epoch."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask to stop at once if nothing is left to do."""
        if state.global_step >= state.max_steps:
            control.should_training_stop = True


class WarnOfWarmUp(TrainerCallback):
    """Say so where a training is so short that its rate never gets beyond the warm-up, which begins at 0."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Warn once, on the main process."""
        if state.is_world_process_zero and 0 < state.max_steps <= args.get_warmup_steps(state.max_steps):
            warnings.warn(
                f"{args.output_dir}: the training has {counted(state.max_steps, 'update')}, all warm-up, so next to "
                "nothing is learned. Train for more epochs, or set warmup_steps: 0",
                stacklevel=1,  # what calls it is transformers, whose lines tell nobody anything
            )


def usual_callbacks() -> tuple[TrainerCallback, ...]:
    """Those that every training has."""
    return StopAtEnd(), FindBestModel(), WarnOfWarmUp()


class StopWithoutImprovement(EarlyStoppingCallback):
    """Early stopping that still stops when the resumed checkpoint is the one at which patience ran out."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask to stop at once if patience had run out."""
        super().on_train_begin(args, state, control, **kwargs)  # type: ignore[no-untyped-call]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class TrainingProgress(TrainerCallback):
    """One bar per training on the main process, with the last loss and development UAR behind it."""

    SHOWN = {"loss": "loss", "eval_uar": "dev UAR", "eval_loss": "dev loss"}

    def __init__(self, description: str) -> None:
        self.description = description
        self.bar: tqdm[Any] | None = None
        self.figures: dict[str, str] = {}
        self.seconds_per_step: float | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **others: Any) -> None:
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

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        """Show the newest figures."""
        if self.bar is not None and logs:
            self.figures |= {shown: f"{logs[key]:.3f}" for key, shown in self.SHOWN.items() if key in logs}
            if (rate := self.bar.format_dict["rate"]) and self.seconds_per_step:
                self.figures["audio"] = f"{rate * self.seconds_per_step:.0f} s/s"
            self.bar.set_postfix(self.figures)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _largest(model: torch.nn.Module) -> float:
    """The largest absolute value of all trained parameters, nan if one is nan; of this process' part where cut up."""
    trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
    here = [part.to_local() if hasattr(part, "to_local") else part for part in trained]
    full = [part for part in here if part.numel()]
    return float(torch.nn.utils.get_total_norm(full, math.inf)) if full else 0.0


def _advice(args: TrainingArguments, state: TrainerState) -> tuple[str, str]:
    """What was expected, and how to get there."""
    clipped = f"max_grad_norm below {args.max_grad_norm:g}" if args.max_grad_norm > 0 else "max_grad_norm: 1.0 to clip"
    advice = f"a learning_rate below {args.learning_rate:g}, or {clipped}"
    if args.fp16 or args.bf16:
        advice += ", or bf16 or float32 in place of fp16" if args.fp16 else ", or float32 in place of bf16"
    if state.global_step == 1:
        advice += "; in the first step the weights that it starts from may be at fault, or a recording"
    return "a loss, gradients and parameters that are finite numbers", advice
