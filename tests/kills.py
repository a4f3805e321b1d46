"""Runs that kill their own process at a given point, to see that the next one goes on from there.

Each runs in a process forked from a server that has imported everything and computed nothing, which takes a tenth of
the time of a fresh interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["gmp_atl_hf.run.run", "gmp_atl_hf.training.trainer", "datasets", "transformers"])


def run_until(recipe: dict[str, Any], folder: Path, point: str, **where: Any) -> None:
    """Run a recipe in a process that kills itself (SIGKILL) at a point; fails if the run never got there.

    Args:
        recipe: The recipe, plain.
        folder: The run's folder.
        point: A function of this module.
        where: Its arguments.
    """
    process = _CONTEXT.Process(target=_run, args=(recipe, folder, point, where))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, f"{point} {where}: the process ended with {process.exitcode}"


def _run(recipe: dict[str, Any], folder: Path, point: str, where: dict[str, Any]) -> None:
    import runs

    globals()[point](**where)
    runs.run(recipe, folder)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by `around(original, *args, **kwargs)`."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))


def after_step(stage: str, step: int) -> None:
    """In the middle of a training, after an optimiser step."""
    from transformers import TrainerCallback

    from gmp_atl_hf.run import steps

    class Die(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= step:
                die()

    def with_callback(original: Any, *args: Any, **kwargs: Any) -> Any:
        if stage in (kwargs.get("description") or ""):
            kwargs["callbacks"] = [*kwargs["callbacks"], Die()]
        return original(*args, **kwargs)

    _wrap(steps, "GMPATLTrainer", with_callback)


def in_a_checkpoint(stage: str, step: int) -> None:
    """While a checkpoint is written: the weights are there, the state of the optimiser is not."""
    from gmp_atl_hf.training.trainer import GMPATLTrainer

    def half(original: Any, self: Any, output_dir: str) -> None:
        if stage in output_dir and f"checkpoint-{step}" in output_dir:
            die()
        original(self, output_dir)

    _wrap_method(GMPATLTrainer, "_save_optimizer_and_scheduler", half)


def in_the_trainer_state(stage: str, step: int) -> None:
    """While the last file of a checkpoint is written."""
    from transformers.trainer_callback import TrainerState

    def half(original: Any, self: Any, json_path: str) -> None:
        original(self, json_path)
        if stage in str(json_path) and f"checkpoint-{step}" in str(json_path):
            content = Path(json_path).read_text()
            Path(json_path).write_text(content[: len(content) // 2])
            die()

    _wrap_method(TrainerState, "save_to_json", half)


def while_checkpoints_are_deleted(stage: str) -> None:
    """After a training, when its last checkpoint has lost its weights but not yet its name."""
    from gmp_atl_hf.run import steps

    def half(original: Any, folder: Any, **options: Any) -> None:
        if stage in str(folder) and Path(folder).name == steps.CHECKPOINTS:
            for file in Path(folder).rglob("model.safetensors"):
                file.unlink()
            die()
        original(folder, **options)

    class Shutil:
        rmtree = staticmethod(lambda folder, **options: half(original_rmtree, folder, **options))

    original_rmtree = steps.shutil.rmtree
    steps.shutil = Shutil  # type: ignore[assignment]


def after_the_clusters() -> None:
    """In pseudo-labels, when the codebooks are there and the frame labels are not."""
    from gmp_atl_hf.pseudo_labels import cluster as step

    _wrap(step, "label_windows", lambda original, *args, **kwargs: die())


def in_the_weights(stage: str) -> None:
    """At the end of a training, when half of the finished model is written."""
    from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel

    def half(original: Any, self: Any, folder: Any, *args: Any, **kwargs: Any) -> None:
        original(self, folder, *args, **kwargs)
        if Path(folder).name == f"{stage}.unfinished":
            weights = Path(folder, "model.safetensors")
            weights.write_bytes(weights.read_bytes()[:100])
            die()

    _wrap_method(GMPATLPreTrainedModel, "save_pretrained", half)


def around_the_file(ending: str, written: bool) -> None:
    """Before or after a file is written."""
    from gmp_atl_hf import files
    from gmp_atl_hf.card import card as model_card

    def here(original: Any, path: Path, content: Any, durable: bool = True) -> None:
        if written or not str(path).endswith(ending):
            original(path, content, durable)
        if str(path).endswith(ending):
            die()

    for module in (files, model_card):
        _wrap(module, "write_whole", here)


def _wrap_method(owner: type, name: str, around: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    setattr(owner, name, wrapped)
