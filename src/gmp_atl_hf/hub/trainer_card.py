"""What `GMPATLTrainer.push_to_hub` sends: the model as a run would ship it, and a card of what the trainer knows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitInfo
from transformers import TrainerState, TrainingArguments

from ..checkpoints import quiet_transformers
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .commit import HubFile, push_files
from .example import ADAPTER_CODE, CODE, MODEL_ID
from .metadata import CARD_FILE, card_metadata


def push_trainer(
    save: Callable[[str], None],
    model: GMPATLPreTrainedModel,
    state: TrainerState,
    args: TrainingArguments,
    repo_id: str,
    *,
    message: str | None,
    private: bool | None,
    revision: str | None,
    token: str | None,
) -> CommitInfo:
    """Send a trainer's model as one commit.

    Args:
        save: Saves the model and its feature extractor, or the adapter on it, to a folder.
        model: The model, without an adapter around it.
        state: The trainer's state.
        args: The trainer's arguments; what is None below is as they say.
        repo_id: Id of the repository.
        message: Message of the commit.
        private: Whether a new repository is private.
        revision: Branch to commit to.
        token: A token to write with.

    Raises:
        RequestError: Nobody is logged in, the Hub cannot be reached, or it refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        with quiet_transformers():
            save(folder)
        adapter = (Path(folder) / "adapter_config.json").is_file()
        # PEFT writes a card of its own.
        files = [HubFile(one.name, one) for one in sorted(Path(folder).iterdir()) if one.name != CARD_FILE]
        files.append(HubFile(CARD_FILE, trainer_card(model, state, args, repo_id, adapter).encode()))
        return push_files(
            files,
            repo_id,
            message=message or "End of training",
            private=args.hub_private_repo if private is None else private,
            revision=revision or args.hub_revision,
            token=token or args.hub_token,
        )


def trainer_card(
    model: GMPATLPreTrainedModel, state: TrainerState, args: TrainingArguments, repo_id: str, adapter: bool = False
) -> str:
    """Write a card from what a trainer knows, which is no test; of the model, or of an adapter for it."""
    kind = type(model).__name__
    # The multi-task model knows emotions too, but no task of the Hub loads its head; its encoder gives embeddings.
    emotions, classifies = "labels" in model.target_names, kind == "HubertForGMPATL"
    chosen_by_uar = str(args.metric_for_best_model or "").removeprefix("eval_") == "uar"
    known = ""
    if chosen_by_uar and state.best_metric is not None:
        known = f"Best development UAR while training: {100 * state.best_metric:.1f} %."
    task = "audio-classification" if classifies else "feature-extraction"
    parts = [
        f"---\n{card_metadata(task, model.config.encoder_type)}\n---",
        f"# {repo_id.split('/')[-1]}",
        f"A `{kind}`, trained with gmp_atl_hf after GMP-ATL ([arXiv 2405.02151](https://arxiv.org/abs/2405.02151)).",
        f"Labels: {', '.join(model.config.emotions)}." if emotions else "",
        f"```python\n{(ADAPTER_CODE if adapter else CODE).replace(MODEL_ID, repo_id)}```" if classifies else "",
        f"{state.global_step} optimiser steps, seed {args.seed}. {known}".strip(),
        "Nothing here says how good the model is on speakers that it was not trained on: it was pushed by its trainer, "
        "without a test. `gmp-atl run` tests a model and `gmp-atl push` sends it with a whole card.",
        "An emotion is not a fact about a person. Do not decide about people with this model.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
