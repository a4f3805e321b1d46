"""What a pre-training is: dataclasses that a person can read in a minute, as Python or as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

from ..errors import RequestError
from ..ranges import MOST_SECONDS, ONE_FRAME
from ..recipe.checks import check_names, known_fields
from ..recipe.file import RecipeFile
from ..recipe.sections import BACKBONE, CorpusSpec

_TEACHER_EXAMPLE = "{features: teacher, teacher: openai/whisper-base, layers: [3], objective: regression}"


@dataclass(frozen=True)
class SpeechSpec:
    """Which part of the speech is used, and how.

    Args:
        max_seconds: Longest piece of a clip seen at once, in seconds; None for whole clips.
        max_hours_per_speaker: No speaker gives more than this, so that one long recording does not become the whole
            world; what is left out is listed. None for no limit. Clips without a named speaker count as one.
        hours_of: Speaker, as `<corpus>/<speaker>`, → hours, in place of the common limit; null for no limit.
        dev_speakers: Speakers that are held out, for the curves only: those with the fewest clips, by the seed
            among equals. Where no speaker is known, one in twenty recordings takes their place.
        short_clips: What to do with clips too short for one frame: `error`, `pad` or `drop`.
    """

    max_seconds: float | None = field(default=10.0, metadata={"at_least": ONE_FRAME, "at_most": MOST_SECONDS})
    max_hours_per_speaker: float | None = field(default=None, metadata={"above": 0})
    hours_of: Mapping[str, float | None] = field(default_factory=dict)
    dev_speakers: int = field(default=8, metadata={"at_least": 1})
    short_clips: Literal["error", "pad", "drop"] = "error"


@dataclass(frozen=True)
class IterationSpec:
    """One round: cluster features, then train the model to predict the clusters of masked frames.

    Args:
        features: `mfcc`, the `hidden-states` of the iteration before, or those of a `teacher`.
        layers: Transformer layers of the hidden states, from 1, or from the top as -1, -2, …; of a teacher also 0,
            what enters its first layer. MFCCs have none.
        clusters: Numbers of clusters, one frame head each.
        start: `scratch` begins with the untrained backbone, as HuBERT does; `previous` goes on from the iteration
            before, which costs less; `teacher` goes on from it, too, if there is one, with the teacher's first layers
            in place of its own, where they have the student's shape.
        teacher: Hub id or folder of another speech encoder: Whisper, HuBERT, WavLM, wav2vec 2.0 or data2vec. None in a
            recipe: that of the iteration before.
        objective: What is learned of a teacher: `clusters` of its states, or by `regression` the states themselves.
        student_layers: Number of transformer layers that the student has in this iteration; None for all. With 0 and
            `layers: [0]` the front end alone learns to give the teacher's layers what they are used to, at a fraction
            of the cost.
        copied_rate: With `start: teacher`, the learning rate of what was taken over from the teacher, as a share of
            that of the rest.
        arguments: Every further key: `GMPATLTrainingArguments` fields.
    """

    features: Literal["mfcc", "hidden-states", "teacher"] = "hidden-states"
    layers: tuple[int, ...] = field(default=(-3,), metadata={"non_empty": True, "unique": True})
    clusters: tuple[int, ...] = field(default=(100,), metadata={"non_empty": True, "unique": True, "at_least": 2})
    start: Literal["scratch", "previous", "teacher"] = "scratch"
    teacher: str | None = None
    objective: Literal["clusters", "regression"] = "clusters"
    student_layers: int | None = field(default=None, metadata={"at_least": 0})
    copied_rate: float = field(default=0.2, metadata={"above": 0})
    arguments: Mapping[str, Any] = field(default_factory=dict, metadata={"rest": True})


@dataclass(frozen=True)
class PretrainRecipe(RecipeFile):
    """A pre-training: speech, a backbone and iterations.

    Args:
        name: Names the run's folder.
        corpus: The speech: any readers, also without emotions (`columns: {emotion: null}`).
        data: Which part of the speech is used.
        backbone: `HubertConfig` fields to start from, or a HuBERT to go on with.
        filters: What the first convolution of a new backbone begins with: `random` numbers, or band-pass filters on the
            `mel` scale.
        model: `GMPATLConfig` fields: masks and frame heads.
        arguments: `GMPATLTrainingArguments` fields of all iterations.
        iterations: In their order; the first one's features are `mfcc` unless the backbone is a checkpoint.
        sample_frames: Most frames that k-means is fitted on.
        teacher_states: Folder where what teachers say is kept, so that another pre-training on the same speech finds
            it; None for one inside the run's folder.
        seed: Of everything random.
        precision: How the finished encoder is stored. Whoever trains it further gets float32 all the same.

    Raises:
        RequestError: A value of the wrong kind, an unknown name, or parts that contradict each other.
    """

    _required: ClassVar[tuple[str, ...]] = ("name", "corpus", "backbone")
    _example: ClassVar[str] = "pretrain-mini"
    _verb: ClassVar[str] = "pretrain"

    name: str
    corpus: tuple[CorpusSpec, ...] = field(metadata={"non_empty": True, "unique": True})
    data: SpeechSpec = field(default_factory=SpeechSpec)
    backbone: str | Mapping[str, Any] = field(default_factory=dict, metadata=BACKBONE)
    filters: Literal["random", "mel"] = "random"
    model: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    iterations: tuple[IterationSpec, ...] = field(
        default=(IterationSpec("mfcc"), IterationSpec()), metadata={"non_empty": True}
    )
    sample_frames: int = field(default=500_000, metadata={"at_least": 1})
    teacher_states: str | None = None
    seed: int = field(default=0, metadata={"at_least": 0})
    precision: Literal["float32", "float16"] = "float16"

    def __post_init__(self) -> None:
        super().__post_init__()
        known: list[IterationSpec] = []
        for number, spec in enumerate(self.iterations):
            if known and spec.features == "teacher" and spec.teacher is None:
                spec = replace(spec, teacher=known[-1].teacher)
            _refuse_half_a_teacher(spec, f"iterations.{number}")
            _refuse_without_effect(spec, f"iterations.{number}")
            known.append(spec)
        object.__setattr__(self, "iterations", tuple(known))
        for number, (one, after) in enumerate(zip(self.iterations, self.iterations[1:], strict=False), start=1):
            if one.student_layers is not None and after.features != "teacher":
                raise RequestError(
                    f"`iterations.{number}.features` is {after.features}, behind an iteration with student_layers",
                    "features: teacher, which puts the other layers on top",
                    _TEACHER_EXAMPLE,
                )
        if (layers := self.iterations[-1].student_layers) is not None:
            raise RequestError(
                f"`iterations.{len(self.iterations) - 1}.student_layers` is {layers} in the last iteration",
                "a last iteration with all layers, which is what is kept",
                "leave it out there",
            )
        first = self.iterations[0]
        if isinstance(self.backbone, str):
            if self.filters != "random":
                raise RequestError(
                    f"`filters` is {self.filters}, and the backbone {self.backbone} has filters of its own",
                    "HubertConfig fields as `backbone`",
                    "leave `filters` out",
                )
            return
        if first.features == "hidden-states":
            raise RequestError(
                "`iterations.0.features` is hidden-states, of a backbone that has learned nothing yet",
                "mfcc or teacher in the first iteration, or a checkpoint as `backbone`",
                "iterations: [{features: mfcc}, …]",
            )
        if first.start == "previous":
            raise RequestError("`iterations.0.start` is previous", "scratch: there is none before it", "start: scratch")


def check_pretraining_names(recipe: PretrainRecipe) -> None:
    """Refuse unknown names, and plainly wrong kinds, where a pre-training passes names on to transformers.

    Raises:
        RequestError: With the nearest right name, or what to write instead of a field that the pre-training sets.
    """
    by_itself = "leave it out: the pre-training sets it"
    known_backbone, known_model, known_arguments = (
        known._replace(owned=dict.fromkeys(known.owned, by_itself) | {"seed": "use `seed` at the top of the recipe"})
        for known in known_fields()
    )
    known_arguments = known_arguments._replace(owned={**known_arguments.owned, "load_best_model_at_end": by_itself})
    if isinstance(recipe.backbone, Mapping):
        check_names(recipe.backbone, "`backbone`", known_backbone)
    check_names(recipe.model, "`model`", known_model)
    check_names(recipe.arguments, "`arguments`", known_arguments._replace(own_keys=()))
    for number, spec in enumerate(recipe.iterations):
        keys = tuple(item.name for item in fields(spec) if not item.metadata.get("rest"))
        check_names(spec.arguments, f"`iterations.{number}`", known_arguments._replace(own_keys=keys))


def _refuse_half_a_teacher(spec: IterationSpec, where: str) -> None:
    """Refuse an iteration whose teacher is missing or not used."""
    if spec.features == "teacher":
        if spec.student_layers is not None and (spec.objective != "regression" or spec.start == "teacher"):
            raise RequestError(
                f"`{where}.student_layers` is {spec.student_layers}, with objective {spec.objective} and start "
                f"{spec.start}",
                "objective regression, and start scratch or previous",
                "iterations: [{…, objective: regression, layers: [0], student_layers: 0}, {…, start: teacher}]",
            )
        if spec.teacher is None:
            raise RequestError(
                f"`{where}.features` is teacher, and there is none", "`teacher`: a Hub id or folder", _TEACHER_EXAMPLE
            )
        return
    asked = (
        ("teacher", spec.teacher),
        ("start", spec.start),
        ("objective", spec.objective),
        ("student_layers", spec.student_layers),
    )
    for name, value in asked:
        if (name in ("teacher", "student_layers") and value is not None) or value in ("teacher", "regression"):
            raise RequestError(
                f"`{where}.{name}` is {value}, but its features are {spec.features}",
                "features: teacher",
                _TEACHER_EXAMPLE,
            )


def _refuse_without_effect(spec: IterationSpec, where: str) -> None:
    """Refuse settings that the iteration does not look at; a recipe that is written out has all with their defaults."""
    usual = IterationSpec()
    if spec.features == "mfcc" and spec.layers != usual.layers:
        raise RequestError(
            f"`{where}.layers` is {list(spec.layers)}, but its features are mfcc, which have no layers",
            "layers with features hidden-states or teacher",
            "leave `layers` out, or change `features`",
        )
    if spec.start != "teacher" and spec.copied_rate != usual.copied_rate:
        raise RequestError(
            f"`{where}.copied_rate` is {spec.copied_rate}, but its start is {spec.start}, which copies nothing",
            "copied_rate with start: teacher",
            "leave `copied_rate` out, or set start: teacher",
        )
