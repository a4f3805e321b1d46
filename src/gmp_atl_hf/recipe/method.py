"""One variant of the method: what variants of a recipe may change, and how it is changed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

from ..errors import errors_of
from ..ranges import refuse_absurd_numbers
from .checks import check_coherence, check_field_names, check_replay
from .convert import convert, to_plain
from .overrides import apply_override
from .sections import BACKBONE, DataSpec, PseudoLabelSpec, ReplaySpec, StagesSpec

CONTROLS: Mapping[str, str] = {
    "none": "",
    "shuffled": "a control, not the method: the frame labels were permuted over all frames, so retraining could learn "
    "nothing from them but how often each occurs",
    "oracle": "a control, not the method: the label of each frame was the emotion of its clip, which no cluster knows",
}
"""What must be said of a variant whose frame labels are not those of the method."""


@dataclass(frozen=True)
class Method:
    """The part of a recipe that its variants may change.

    Args:
        data: How recordings are given to the training.
        backbone: Hub id or local folder of a HuBERT or another encoder, or `HubertConfig` fields to start from scratch.
        model: `GMPATLConfig` fields.
        pseudo_labels: Frame labels for the retraining.
        stages: The three trainings.
        search: What is left to search: dotted path under `stages.finetune` to the values to try. All variants share it.
        replay: Plain speech that the retraining hears as well.
    """

    data: DataSpec
    backbone: str | Mapping[str, Any] = field(metadata=BACKBONE)
    model: Mapping[str, Any]
    pseudo_labels: PseudoLabelSpec
    stages: StagesSpec
    search: Mapping[str, tuple[Any, ...]]
    replay: ReplaySpec | None = None

    def changed(self, overrides: Mapping[str, Any]) -> Method:
        """Set values by their dotted paths, each of which begins with the name of a field.

        Raises:
            RequestError: The result is no valid method.
        """
        hints = get_type_hints(Method)
        plain = {name: to_plain(getattr(self, name)) for name in {dotted.partition(".")[0] for dotted in overrides}}
        for dotted, value in overrides.items():
            apply_override(plain, dotted, to_plain(value))
        changes = {
            item.name: convert(hints[item.name], plain[item.name], item.name, item.metadata)
            for item in fields(self)
            if item.name in plain
        }
        made = replace(self, **changes)
        for where, model in (("`model`", made.model), ("`stages.finetune.model`", made.stages.finetune.model)):
            # Whether frame labels are needed, of which the next check speaks, depends on it.
            refuse_absurd_numbers({name: value for name, value in model.items() if name == "frame_weight"}, where)
        check_coherence(made.stages, made.pseudo_labels, made.backbone, made.needs_frame_labels)
        if made.replay is not None:
            check_replay(made.stages, made.pseudo_labels, asked="replay" in plain)
        return made

    @property
    def joint(self) -> bool:
        """Whether the fine-tuning has frame labels as a second loss."""
        fields = {**self.model, **self.stages.finetune.model}
        return not self.stages.finetune.skip and fields.get("frame_weight", 0) != 0

    @property
    def needs_frame_labels(self) -> bool:
        """Whether any training has frame labels to learn, if only with one of the values to search."""
        return not self.stages.retrain.skip or any(each.joint for each in self.candidates())

    @property
    def control(self) -> str:
        """What must stand beside the numbers of a control; empty for the method and its ablations."""
        return CONTROLS[self.pseudo_labels.control] if self.needs_frame_labels else ""

    @property
    def grid(self) -> tuple[dict[str, Any], ...]:
        """Every combination of the values to search, as dotted path to value."""
        return tuple(dict(zip(self.search, values, strict=True)) for values in itertools.product(*self.search.values()))

    def candidates(self) -> tuple[Method, ...]:
        """The method once for each combination in `grid`, in that order; itself alone if it searches nothing."""
        return tuple(self.candidate(overrides) for overrides in self.grid) if self.search else (self,)

    def candidate(self, overrides: Mapping[str, Any]) -> Method:
        """The method with one combination of `grid`, and nothing left to search.

        Raises:
            RequestError: The combination makes no valid method.
        """
        with errors_of(f"search {overrides}"):
            return replace(self, search={}).changed(overrides)

    def check_field_names(self) -> None:
        """Refuse unknown names among what is passed on to transformers; imports it."""
        check_field_names(self.backbone, self.model, self.stages)
