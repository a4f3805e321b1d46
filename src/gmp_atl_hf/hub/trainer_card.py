"""What `GMPATLTrainer.push_to_hub` sends: the model as a run would ship it, and a card of what the trainer knows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import CommitInfo, ModelCardData

from ..card.card import CARD_FILE
from ..card.repository import HubFile, push_files
from ..card.usage import CODE, MODEL_ID
from ..checkpoints import quiet_transformers

if TYPE_CHECKING:
    from ..training.trainer import GMPATLTrainer


def push_trainer(
    trainer: GMPATLTrainer,
    repo_id: str,
    message: str | None,
    private: bool | None,
    revision: str | None,
    token: str | None,
) -> CommitInfo:
    """Send the trainer's model as one commit.

    Args:
        trainer: The trainer.
        repo_id: Id of the repository.
        message: Message of the commit; None for a standing one.
        private: Whether a new repository is private; None for what the trainer's arguments or the owner's setting say.
        revision: Branch to commit to; None for that of the trainer's arguments, or the main one.
        token: A token in place of that of the trainer's arguments, or the one that is stored.

    Returns:
        What the Hub says of the commit.

    Raises:
        RequestError: Nobody is logged in, the Hub cannot be reached, or it refuses.
    """
    args = trainer.args
    private = args.hub_private_repo if private is None else private
    message, revision, token = message or "End of training", revision or args.hub_revision, token or args.hub_token
    with tempfile.TemporaryDirectory() as folder:
        with quiet_transformers():
            trainer._save(folder)
        # PEFT writes a card of its own.
        files = [HubFile(one.name, one) for one in sorted(Path(folder).iterdir()) if one.name != CARD_FILE]
        files.append(HubFile(CARD_FILE, trainer_card(trainer, repo_id).encode()))
        return push_files(files, repo_id, message=message, private=private, revision=revision, token=token)


def trainer_card(trainer: GMPATLTrainer, repo_id: str) -> str:
    """Write a card from what a trainer knows, which is no test.

    Args:
        trainer: The trainer.
        repo_id: Id of the repository.

    Returns:
        Markdown with metadata in front.
    """
    config, state = trainer.base.config, trainer.state
    # The multi-task model knows emotions too, but no task of the Hub loads its head; its encoder gives embeddings.
    emotions, classifies = "labels" in trainer.base.target_names, type(trainer.base).__name__ == "HubertForGMPATL"
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-classification" if classifies else "feature-extraction",
        tags=["speech-emotion-recognition", "hubert", "gmp-atl"],
    )
    fields: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    labels = ", ".join(config.emotions)
    chosen_by_uar = str(trainer.args.metric_for_best_model or "").removeprefix("eval_") == "uar"
    known = ""
    if chosen_by_uar and state.best_metric is not None:
        known = f"Best development UAR while training: {100 * state.best_metric:.1f} %."
    parts = [
        f"---\n{yaml.safe_dump(fields, sort_keys=False)}---",
        f"# {repo_id.split('/')[-1]}",
        f"A `{type(trainer.base).__name__}`, trained with gmp_atl_hf after GMP-ATL "
        "([arXiv 2405.02151](https://arxiv.org/abs/2405.02151)).",
        f"Labels: {labels}." if emotions else "",
        f"```python\n{CODE.replace(MODEL_ID, repo_id)}```" if classifies else "",
        f"{state.global_step} optimiser steps, seed {trainer.args.seed}. {known}".strip(),
        "Nothing here says how good the model is on speakers that it has not heard: it was pushed by its trainer, "
        "without a test. `gmp-atl run` tests a model and `gmp-atl push` sends it with a whole card.",
        "An emotion is not a fact about a person. Do not decide about people with this model.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
