"""LoRA in a run: adapters are trained, kept by themselves, and merged for whatever comes next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import set_seed

from ..checkpoints import locate
from ..files import read_json
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..recipe.sections import StageName
from ..run_folder.layout import TRAINING_FILE
from ..run_folder.step_folder import StepFolder
from ..training.lora import TrainedParameters, add_lora, count_trained, save_adapter
from ..training.lora_settings import LoraSettings
from .training import Training, Weights


class Adapters:
    """The adapters of one training.

    Args:
        plain: The model to train, changed in place; it is plain again after `save_and_merge`.
        task: What to train; `lora` is set.
    """

    def __init__(self, plain: GMPATLPreTrainedModel, task: Training) -> None:
        assert task.lora is not None
        self.plain, self.start = plain, task.start
        # peft would ask the Hub for whatever is named here, at every checkpoint.
        plain.name_or_path = ""
        set_seed(task.seed)
        self.model = add_lora(plain, LoraSettings(**task.lora))
        self.trained: TrainedParameters = count_trained(self.model)
        if task.description is not None and PartialState().is_main_process:
            tqdm.write(f"{task.description}: {self.trained}")

    def save_and_merge(self, folder: Path) -> None:
        """Save the adapter, then make the model a plain one that scores the same."""
        save_adapter(self.model, self.plain, folder, base_of(self.start))
        self.model.merge_and_unload()


def base_of(start: Weights) -> str:
    """What an adapter calls the weights it belongs to: as the recipe names them, or where a folder is."""
    name = str(start.locate())
    return str(Path(name).resolve()) if locate(name) == name and Path(name).is_dir() else name


def describe_adapters(variant: str, steps: Mapping[StageName, Iterable[StepFolder]]) -> list[str]:
    """Say for each stage of a variant how much of the model adapters and heads were, in its finished steps.

    Where a search has chosen other adapters for some folds, or none, each share has the number of its trainings.
    """
    described = []
    for stage, folders in steps.items():
        files = dict.fromkeys(folder.resolve() / TRAINING_FILE for folder in folders if folder.finished)
        found = [read_json(file).get("lora") for file in files]
        shares = Counter(None if counts is None else TrainedParameters.from_json(counts) for counts in found)
        if set(shares) <= {None}:
            continue
        if len(shares) == 1:
            said = str(next(iter(shares)))
        else:
            named = ((share or "no LoRA", count) for share, count in shares.most_common())
            said = "; ".join(f"{share} (in {count} of {len(found)} trainings)" for share, count in named)
        described.append(f"{variant}: {stage}: {said}.")
    return described
