"""One training: all that it needs, and from the same fields the key that says whether it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import datasets

from ..batching.conv_features import PRECISION
from ..checkpoints import heard_recordings, seen_speakers, short_hash
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..protocols.leakage import NO_TEST_SET, HeldOut
from ..pseudo_labels.codebook import codebook_speakers
from ..run_folder.step_folder import StepFolder
from ..training.trainer import GMPATLTrainer
from .stages import without_trackers


def keyed(name: str, identity: Callable[[Any], Any] = lambda value: value) -> Mapping[str, Any]:
    """Metadata of a field that the key holds: under which name, and what of it."""
    return {"key": name, "identity": identity}


NOT_KEYED: Mapping[str, Any] = {"key": None}
"""Metadata of a field that follows from others, or changes no weight."""


@dataclass(frozen=True)
class Weights:
    """Where weights come from.

    Args:
        checkpoint: Folder or Hub id, or the step that makes them.
        identity: What they are, JSON types, known before they are there.
    """

    checkpoint: str | Path | StepFolder
    identity: Mapping[str, Any] = field(default_factory=dict)

    def locate(self) -> str | Path:
        """Folder or Hub id; if a step makes them, once that is finished."""
        return self.checkpoint.resolve() if isinstance(self.checkpoint, StepFolder) else self.checkpoint


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that one training needs.

    Args:
        step: What kind of step it is.
        seed: Seed of everything random.
        data: What the rows are, JSON types.
        backbone: The backbone: its configuration, not the last stage's, is the base.
        start: The weights to start from.
        start_weight: Share of them in the encoder's first weights, the rest being the backbone's; None for all.
        fields: `GMPATLConfig` fields on top of it.
        arguments: `GMPATLTrainingArguments` fields; with `same_updates_as`, those of the trainings it is as long as.
        labels: The step with the frame labels of the rows; None where the rows have all that is needed.
        lora: `LoraSettings` of adapters that are trained in place of the encoder, JSON types; None trains the encoder.
        stop_at: Last optimiser step, of final models that were made before `stop_after`; None for the whole length.
        stop_after: Number of epochs, any fraction, after which training ends; None for the whole length.
        front_end_cache: Folder of the front-end cache; None computes the front end in every epoch.
        model_class: Which of the three models; follows from the step.
        max_steps: The length that follows from `same_updates_as`, the rows and the number of processes.
        train: Rows to train on.
        dev: Rows to choose the epoch on; None trains to the end.
        description: What the progress bar says.
        held_out: What will be tested: nothing of it may be in any of the above.
        also_seen: Whom a teacher has seen.
        digests: id → hash of the samples, of the rows of which it is known.
        replay: Rows of plain speech to train on as well; they follow from the step with their frame labels.
        trainer: Makes the trainer; None for `GMPATLTrainer`.
    """

    step: str = field(metadata=keyed("step"))
    seed: int = field(metadata=keyed("seed"))
    data: Mapping[str, Any] = field(metadata=keyed("data"))
    backbone: Weights = field(metadata=keyed("backbone", lambda weights: weights.identity))
    start: Weights = field(metadata=keyed("start", lambda weights: weights.identity))
    fields: Mapping[str, Any] = field(metadata=keyed("model"))
    arguments: Mapping[str, Any] = field(metadata=keyed("arguments", without_trackers))
    labels: StepFolder | None = field(default=None, metadata=keyed("pseudo_labels", lambda step: step.key))
    start_weight: float | None = field(default=None, metadata=keyed("start_weight"))
    lora: Mapping[str, Any] | None = field(default=None, metadata=keyed("lora"))
    stop_at: int | None = field(default=None, metadata=keyed("stop_at"))
    stop_after: float | None = field(default=None, metadata=keyed("stop_after"))
    front_end_cache: Path | None = field(default=None, metadata=keyed("front_end", lambda folder: PRECISION))
    model_class: type[GMPATLPreTrainedModel] = field(metadata=NOT_KEYED)
    max_steps: int | None = field(default=None, metadata=NOT_KEYED)
    train: datasets.Dataset = field(metadata=NOT_KEYED)
    dev: datasets.Dataset | None = field(metadata=NOT_KEYED)
    description: str | None = field(default=None, metadata=NOT_KEYED)
    held_out: HeldOut = field(default=NO_TEST_SET, metadata=NOT_KEYED)
    also_seen: tuple[str, ...] = field(default=(), metadata=NOT_KEYED)
    digests: Mapping[str, str] = field(default_factory=dict, metadata=NOT_KEYED)
    replay: datasets.Dataset | None = field(default=None, metadata=NOT_KEYED)
    trainer: Callable[..., GMPATLTrainer] | None = field(default=None, metadata=NOT_KEYED)

    def inputs(self) -> dict[str, Any]:
        """All that the training depends on, for its key; what is None is left out."""
        found = {}
        for each in fields(self):
            value, key = getattr(self, each.name), each.metadata["key"]
            if key is not None and value is not None:
                found[key] = each.metadata["identity"](value)
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """`GMPATLTrainingArguments` fields, the length that follows from other trainings among them."""
        settings = {name: value for name, value in self.arguments.items() if name != "same_updates_as"}
        return settings if self.max_steps is None else {**settings, "max_steps": self.max_steps}

    def seen_speakers(self) -> list[str]:
        """Whom the trained model will have seen, after making sure that nobody of the test is among them.

        Raises:
            RequestError: Names the test speaker or recording, and what would see them.
        """
        self.held_out.refuse_rows(self.train, "training")
        self.held_out.refuse_rows(self.dev, "choosing the epoch")
        self.held_out.refuse_rows(self.replay, "training")
        heard = [part["speaker"] for part in (self.train, self.dev, self.replay) if part is not None]
        seen = {*self.also_seen, *(speaker for speakers in heard for speaker in speakers)}
        for checkpoint in dict.fromkeys((self.start.locate(), self.backbone.locate())):
            before = seen_speakers(checkpoint)
            self.held_out.refuse_speakers(before, f"the checkpoint {checkpoint} has seen")
            seen.update(before)
        if self.labels is not None:
            codebooks = self.labels.resolve()
            clustered = codebook_speakers(codebooks)
            self.held_out.refuse_speakers(clustered, f"the codebooks in {codebooks} were fitted on")
            seen.update(clustered)
        return sorted(seen)

    def heard_recordings(self) -> set[str]:
        """Short hashes of the recordings that the trained model, or one before it, will have heard, as far as known."""
        ids = (one for part in (self.train, self.dev, self.replay) if part is not None for one in part["id"])
        heard = {short_hash(self.digests[one]) for one in ids if one in self.digests}
        for checkpoint in dict.fromkeys((self.start.locate(), self.backbone.locate())):
            heard |= heard_recordings(checkpoint)
        return heard
