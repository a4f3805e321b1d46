"""Learning from a teacher in one iteration of a pre-training: its states, their clusters, and the student's start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from ..checkpoints import load_feature_extractor, load_model, quiet_transformers, seen_speakers
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel, HubertForGMPATLFrameClassification
from ..training.trainer import GMPATLTrainer
from .copying import copied_layers, refuse_unlike_layers
from .positions import position_means
from .recipe import IterationSpec
from .student import HubertForTeacherRegression, StudentTrainer
from .teacher_states import TeacherStates, state_column
from .teachers import Teacher, TeacherFacts, teacher_facts

START_FOLDER = "start"
"""What the student begins with, inside the step that computes the teacher's states."""


@dataclass(frozen=True)
class Distillation:
    """What an iteration learns from its teacher.

    Args:
        spec: The iteration.
        student: The student's configuration.
        facts: The teacher.
        layers: Its layers, from 1, 0 for what enters the first.
        bf16: Whether it computes in bfloat16.
    """

    spec: IterationSpec
    student: GMPATLConfig
    facts: TeacherFacts
    layers: tuple[int, ...]
    bf16: bool

    @classmethod
    def of(cls, spec: IterationSpec, student: GMPATLConfig, bf16: bool) -> Distillation:
        """Look at the teacher and refuse, by a `RequestError`, one that cannot teach this student."""
        facts = teacher_facts(str(spec.teacher))
        facts.refuse_other_frames(student)
        layers = tuple(sorted({facts.resolve_layer(layer) for layer in spec.layers}))
        if spec.start == "teacher":
            refuse_unlike_layers(facts, student)
        return cls(spec, student, facts, layers, bf16)

    @property
    def regression(self) -> bool:
        """Whether the states themselves are learned, and not their clusters."""
        return self.spec.objective == "regression"

    @property
    def model_class(self) -> type[GMPATLPreTrainedModel]:
        """Class of the student."""
        return HubertForTeacherRegression if self.regression else HubertForGMPATLFrameClassification

    @property
    def widths(self) -> dict[str, int]:
        """Column of each layer → its width."""
        return {state_column(layer): self.facts.width for layer in self.layers}

    @property
    def inputs(self) -> dict[str, Any]:
        """All that the result depends on besides the speech; JSON types."""
        return {
            "teacher": self.facts.identity,
            "layers": list(self.layers),
            "bf16": self.bf16,
            "objective": self.spec.objective,
            "start": self.spec.start,
            **({"positions": "removed"} if self.facts.knows_places else {}),
        }

    @property
    def copied(self) -> int:
        """Number of the teacher's layers that the student begins with."""
        return min(max(self.layers), self.student.num_hidden_layers) if self.spec.start == "teacher" else 0

    @property
    def trainer(self) -> Any:
        """Class of the trainer, or what makes one."""
        if not self.copied:
            return GMPATLTrainer
        layers = tuple(f"hubert.encoder.layers.{index}." for index in range(self.copied))
        return partial(StudentTrainer, copied=layers, copied_rate=self.spec.copied_rate)

    def compute_states(self, folder: Path, tables: Mapping[str, datasets.Dataset]) -> TeacherStates:
        """Compute the teacher's states of tables (text of the progress bar → rows), or find them in a folder."""
        teacher = Teacher(self.facts, self.layers, PartialState().device, self.bf16)
        if self.facts.knows_places:
            teacher.take_away(*position_means(folder, teacher, datasets.concatenate_datasets([*tables.values()])))
        states = TeacherStates(folder, teacher)
        for description, table in tables.items():
            states.fill(table, description)
        return states

    def make_start(
        self, folder: Path, states: TeacherStates, train: datasets.Dataset, begin: str | Path,
        config_from: str | Path, fields: Mapping[str, Any], seed: int,
    ) -> None:  # fmt: skip
        """Write what the student begins with: an encoder, layers of the teacher, and how its states are standardised.

        Args:
            folder: The step's folder.
            states: The teacher's states.
            train: Training rows; the statistics see nothing else.
            begin: Where the encoder comes from.
            config_from: The backbone, whose configuration is the base.
            fields: `GMPATLConfig` fields on top of it.
            seed: Of new heads, and of the sample.
        """
        if not PartialState().is_main_process:
            return
        model = load_model(self.model_class, config_from, seed, fields)
        if begin != config_from:
            # It may have fewer layers.
            learned = load_model(HubertForTeacherRegression, begin, seed).hubert.state_dict()
            assert not model.hubert.load_state_dict(learned, strict=False).unexpected_keys
        if self.copied:
            layers = copied_layers(self.facts, states.teacher.encoder, self.copied)
            unknown = model.hubert.load_state_dict(layers, strict=False).unexpected_keys
            assert not unknown, unknown
        if isinstance(model, HubertForTeacherRegression):
            for layer, (mean, deviation) in states.statistics(train, seed).items():
                head: Any = model.state_heads[state_column(layer)]
                head.standardise(mean, deviation)
        model.config.seen_speakers = sorted({*seen_speakers(begin), *self.facts.seen_speakers})
        with quiet_transformers():
            model.save_pretrained(folder / START_FOLDER)
        load_feature_extractor(config_from).save_pretrained(folder / START_FOLDER)
