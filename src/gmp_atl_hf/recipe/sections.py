"""The sections of a recipe: dataclasses that a person can read in a minute, as Python or as YAML.

*Stated* and *our choice* refer to arXiv 2405.02151. The metadata of fields are explained at `convert`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..data.scale_names import SINGLE_FRAME
from ..errors import RequestError
from ..pseudo_labels.choices import Normalize, Per, Positions
from ..ranges import MOST_SECONDS, ONE_FRAME
from ..training.lora_settings import LoraSettings

StageName = Literal["multitask", "retrain", "finetune"]
Start = Literal["auto", "backbone", "multitask", "retrain"]
Source = Literal["multitask", "backbone"]
Control = Literal["none", "shuffled", "oracle"]

BACKBONE: Mapping[str, Any] = {"expand": True, "non_empty": True}
"""Metadata of a backbone: a Hub id or folder, or the configuration of one from scratch."""

REPLAY = "replay"
"""Before the names of recordings of plain speech, `replay/<file>`, and of their people, `replay/unknown`."""

STAGE_NAMES: tuple[StageName, ...] = ("multitask", "retrain", "finetune")


@dataclass(frozen=True)
class CorpusSpec:
    """Which recordings to read.

    Args:
        name: A reader: emodb, iemocap, demo, folder, csv or hub. Our choice; the paper reports IEMOCAP.
        root: The corpus folder or file; None for corpora that need none. A relative path starts at the folder the
            command is typed in; `${NAME}` is replaced by the environment variable. No part of the method.
        options: Every further key: the reader's own options. No part of the method.
    """

    name: str
    root: str | None = field(default=None, metadata={"expand": True, "quiet": True})
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"rest": True})


@dataclass(frozen=True)
class DataSpec:
    """How recordings are given to the training.

    Args:
        max_seconds: Longest piece of a clip in training, in seconds; None for whole clips. Tests use whole clips.
            Our choice; the paper does not say.
        augment: `speed` plays clips 0.9 to 1.1 times as fast in the trainings on emotions, drawn anew in every epoch;
            no front-end cache then. Our choice: none.
        shuffle_labels: Permute emotions among the training and development clips of each speaker, to see what chance
            looks like; the report is stamped. No part of the method.
        short_clips: What to do with clips too short for one frame (25 ms): stop with their names (`error`), `pad` them
            with zeros, or list them and `drop` them. Our choice.
        front_end_cache: Where the output of a frozen convolution front end is kept, in half precision, so that it is
            computed once rather than in every epoch of every stage: true for `front-end` inside the run's folder, a
            folder of one's own, or false to do without. About 184 MB for each hour of audio. No part of the method.
    """

    max_seconds: float | None = field(default=10.0, metadata={"at_least": ONE_FRAME, "at_most": MOST_SECONDS})
    augment: Literal["none", "speed"] = "none"
    shuffle_labels: bool = False
    short_clips: Literal["error", "pad", "drop"] = "error"
    front_end_cache: bool | str = field(default=True, metadata={"expand": True})

    def __post_init__(self) -> None:
        cache = self.front_end_cache
        if isinstance(cache, str) and cache.strip().lower() in ("", "true", "false", "yes", "no", "on", "off"):
            raise RequestError(
                f"`data.front_end_cache` is the text {cache!r}",
                "true, false, or a folder",
                "front_end_cache: true, without quotes",
            )


@dataclass(frozen=True)
class PseudoLabelSpec:
    """Frame labels for the retraining.

    Args:
        layers: Transformer layers, from 1, or from the top as -1, -2, …. The third-last (-3) being the best is stated
            (known from summaries of the paper).
        clusters: Numbers of clusters, one scale each. That there are several scales is stated, the numbers are our
            choice.
        source: The model whose hidden states are clustered: `multitask` (stated) or the untouched `backbone`
            (ablation).
        sample_frames: Most frames that k-means is fitted on, drawn from the training speakers. Our choice.
        seed: Seed of the draw and of k-means. Our choice.
        windows: Seconds over which hidden states are averaged around each frame before they are clustered, one scale
            for each window and number of clusters; still one label every 20 ms. 0.02 is the frame as it is. Our choice.
        normalize: Centre and scale frames by the statistics of their own training `speaker` or `gender` before they are
            clustered; those that were not clustered by their own. Our choice.
        positions: `remove` takes the mean state of each place in a clip away before frames are clustered, `auto` where
            the encoder has absolute positions, as Whisper's: its clusters of single frames are clusters of time. Our
            choice.
        per: Cluster the frames of each `emotion` or `gender` of the training clips by themselves, with an equal share
            of each number of clusters, and join the centres. Our choice.
        control: `shuffled` permutes the labels over all frames, `oracle` replaces them by the emotion of the clip: they
            show whether the content of the labels matters, and are not the method. No part of the method.
    """

    layers: tuple[int, ...] = field(default=(-3,), metadata={"non_empty": True, "unique": True, "not_zero": True})
    clusters: tuple[int, ...] = field(
        default=(50, 100, 500), metadata={"non_empty": True, "unique": True, "at_least": 2}
    )
    source: Source = "multitask"
    sample_frames: int = field(default=500_000, metadata={"at_least": 1})
    seed: int = field(default=0, metadata={"at_least": 0})
    windows: tuple[float, ...] = field(
        default=(SINGLE_FRAME,), metadata={"non_empty": True, "unique": True, "above": 0, "at_most": 60}
    )
    normalize: Normalize = "none"
    positions: Positions = field(default="auto", metadata={"quiet": True})
    per: Per = "none"
    control: Control = field(default="none", metadata={"quiet": True})


@dataclass(frozen=True)
class ReplaySpec:
    """Plain speech, without emotions, that the retraining hears beside the training clips.

    Args:
        root: A folder of recordings in any layout; nobody needs to know who speaks. `${NAME}` is replaced by the
            environment variable. Our choice: none.
        seconds: How much of it, drawn as whole recordings; None for as much as the fold has of training clips, or all
            of it where there is less. Our choice where set.
        seed: Seed of the draw. Our choice.
    """

    root: str = field(metadata={"expand": True, "non_empty": True})
    seconds: float | None = field(default=None, metadata={"above": 0})
    seed: int = field(default=0, metadata={"at_least": 0})


@dataclass(frozen=True)
class StageSpec:
    """One of the three trainings.

    Args:
        skip: Leave this stage out. The paper performs all three; leaving one out is an ablation.
        start: The weights to start from. `auto` is the backbone for `multitask` and `retrain` (retraining HuBERT
            itself is stated), and the last stage before it that is performed for `finetune` (stated).
        start_weight: Share of those weights in the encoder that the stage starts from; the rest is the backbone's. 1 is
            `start` itself, 0.5 half-way between the two. Our choice where set.
        lora: Train adapters beside the encoder's layers, and the heads; the encoder itself stays as it is. `{}` has the
            defaults of `LoraSettings`, None trains the encoder. Our choice where set.
        model: `GMPATLConfig` fields for this stage alone, on top of the recipe's `model`. Our choice where set.
        same_updates_as_all: Fine-tune with as many updates as all stages of the whole method together; `finetune`
            only. Not in the paper: it makes the comparison with fine-tuning alone fair.
        arguments: Every further key: `GMPATLTrainingArguments` fields. The paper's values are not known: our choice.
    """

    skip: bool = False
    start: Start = "auto"
    start_weight: float = field(default=1.0, metadata={"quiet": True, "at_least": 0, "at_most": 1})
    lora: LoraSettings | None = field(default=None, metadata={"quiet": True})
    model: Mapping[str, Any] = field(default_factory=dict, metadata={"quiet": True})
    same_updates_as_all: bool = field(default=False, metadata={"quiet": True})
    arguments: Mapping[str, Any] = field(default_factory=dict, metadata={"rest": True})

    @property
    def keeps_last_step(self) -> bool:
        """Whether the training is as long as it is told, so that no development speaker chooses among its epochs."""
        given = self.arguments
        chooses = given.get("load_best_model_at_end", True) and not given.get("average_epochs", 0)
        return not chooses and given.get("early_stopping_patience") is None


@dataclass(frozen=True)
class StagesSpec:
    """The three trainings, in their order.

    Args:
        multitask: Emotion and gender together (stated).
        retrain: Frame labels of masked frames. Cross-entropy on frame labels is stated, masking is our choice.
        finetune: Emotion with AM-Softmax (stated).
    """

    multitask: StageSpec = field(default_factory=StageSpec)
    retrain: StageSpec = field(default_factory=StageSpec)
    finetune: StageSpec = field(default_factory=StageSpec)

    @property
    def performed(self) -> tuple[StageName, ...]:
        """Names of the stages that are not skipped, in their order."""
        return tuple(name for name in STAGE_NAMES if not getattr(self, name).skip)

    def start_of(self, name: StageName) -> Literal["backbone", "multitask", "retrain"]:
        """Whose weights a stage starts from, `auto` resolved."""
        start: Start = getattr(self, name).start
        if start != "auto":
            return start
        if name == "finetune":
            if not self.retrain.skip:
                return "retrain"
            if not self.multitask.skip:
                return "multitask"
        return "backbone"


@dataclass(frozen=True)
class VariantSpec:
    """A name for a set of overrides.

    Args:
        name: A built-in variant, or a new name with `set`. Our choice.
        base: A built-in variant that `set` comes on top of. Our choice.
        set: Dotted path to value. Our choice.
    """

    name: str
    base: str | None = field(default=None, metadata={"quiet": True})
    set: Mapping[str, Any] = field(default_factory=dict, metadata={"quiet": True})
