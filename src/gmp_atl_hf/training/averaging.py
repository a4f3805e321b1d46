"""The mean of the weights over the last epochs in place of the last ones: nobody has to choose an epoch.

Two development speakers among ten epochs choose one by chance as much as by merit. Stochastic weight averaging
(Izmailov et al. 2018, arXiv 1803.05407) needs no development speaker, and costs one more copy of the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_swa_multi_avg_fn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import RequestError

AVERAGE_FILE = "average.safetensors"
"""In a checkpoint: the mean so far, beside the weights from which the training goes on."""


class AverageWeights(TrainerCallback):
    """Average the trained parameters over the ends of the last epochs, and put their mean into the model at the end.

    Epochs are counted back from the last update: averaged are the weights after it, and those one, two, … epochs before
    it, as far as the training reaches back. Whatever looks at the model after the last update, evaluation and
    checkpoint among them, finds the mean. Buffers, such as the statistics of `standardize`, are left alone.

    Args:
        epochs: How many ends of epochs, at least 1.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.mean: dict[str, Tensor] = {}
        self.averaged = 0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Begin anew, or where the checkpoint left off; a `RequestError` if that has another average."""
        if state.global_step == 0:
            self.mean, self.averaged = {}, 0
        expected = sum(
            self._counts(state.max_steps - step, train_dataloader) for step in range(1, state.global_step + 1)
        )
        if self.averaged != expected:
            raise RequestError(
                f"the checkpoint of step {state.global_step} averages the weights of {self.averaged} epochs",
                f"those of {expected}, with average_epochs {self.epochs} and {state.max_steps} steps in all",
                "resume with the settings that the checkpoint was made with, or train from the start",
            )
        if self.averaged:
            # In the model's order, on its device.
            self.mean = {name: self.mean[name].to(values.device) for name, values in _trained(model).items()}

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Average at the end of an epoch; after the last update the mean takes the place of the weights."""
        if not self._counts(state.max_steps - state.global_step, train_dataloader):
            return
        weights = _trained(model)
        if not self.averaged:
            self.mean = {name: values.clone() for name, values in weights.items()}
        else:
            get_swa_multi_avg_fn()(list(self.mean.values()), list(weights.values()), self.averaged)
        self.averaged += 1
        if state.global_step == state.max_steps:
            for name, values in weights.items():
                values.copy_(self.mean[name])

    def _counts(self, steps_left: int, train_dataloader: Any) -> bool:
        epochs_left, within = divmod(steps_left, train_dataloader.batch_sampler.steps)
        return within == 0 and epochs_left < self.epochs

    def save(self, folder: Path) -> None:
        """Write the mean so far into a checkpoint; nothing before the first epoch that counts."""
        if self.averaged:
            tensors = {name: mean.contiguous() for name, mean in self.mean.items()}
            save_file(tensors, folder / AVERAGE_FILE, {"averaged": str(self.averaged)})

    def load(self, folder: Path) -> None:
        """Take the mean up again from a checkpoint."""
        self.mean, self.averaged = {}, 0
        if (folder / AVERAGE_FILE).is_file():
            with safe_open(folder / AVERAGE_FILE, framework="pt") as file:
                self.mean = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                self.averaged = int(file.metadata()["averaged"])


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters by name: the tensors themselves, outside the graph."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


class AveragingTrainer(Trainer):
    """The stock trainer with `average_epochs`; the mean so far is part of its checkpoints."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        epochs: int = self.args.average_epochs  # type: ignore[attr-defined]
        self.average = AverageWeights(epochs) if epochs else None
        if self.average is not None:
            self.add_callback(self.average)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.average is not None and self.args.should_save:
            self.average.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.average is not None and checkpoint is not None:
            self.average.load(Path(checkpoint))
