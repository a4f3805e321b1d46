"""What a run is to do: checked and planned before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..batching.feature_store import refuse_no_folder
from ..checkpoints import describe_backbone, maybe_seen_stamp, speakers_seen_by
from ..data.fingerprints import Recordings, combine
from ..data.table import Corpus, read_corpora
from ..errors import RequestError, counted
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..protocols.fold import Fold, rows_of_parts
from ..protocols.leakage import HeldOut, maybe_seen
from ..protocols.protocol import Protocol
from ..protocols.speakers import is_unknown
from ..pseudo_labels.normalization import groups_of
from ..recipe.method import Method
from ..recipe.recipe import Recipe
from ..run_folder.layout import RunFolder
from ..training.checks import refuse_long_clips
from .fold_plan import PlannedFold, Planner, known_genders
from .processes import join_processes
from .recipe_changes import RecipeChanges
from .replay import describe_replay, hears_plain_speech, read_replays, replay_notes
from .same_recordings import refuse_encoder
from .search import refuse_nobody_to_choose
from .stages import backbone_fields, check_stage_settings

SHUFFLED_STAMP = (
    "Labels of training and development recordings were shuffled within each speaker: this shows chance, "
    "not the method."
)

Backbones = Mapping[str, Mapping[str, Any]]
"""Variant → what its backbone is, from `describe_backbone`."""


@dataclass(frozen=True)
class RunPlan:
    """All that one call of `run_recipe` is to do.

    Args:
        recipe: The recipe.
        folder: Folder of the run.
        command: The command behind the numbers.
        processes: The processes of this launch.
        variants: Each variant's method.
        corpus: The table and what was left out of it.
        protocol: What makes folds of it.
        folds: All of its folds.
        asked: Numbers of those to run.
        stamps: What must stand beside every number.
        notes: What this corpus cannot have.
        recordings: The recordings as they were when the plan was made.
        planner: Plans further folds, such as that of the final model.
        planned: Every variant, seed and fold, asked for or not, since all that is finished is reported.
    """

    recipe: Recipe
    folder: RunFolder
    command: str
    processes: PartialState
    variants: Mapping[str, Method]
    corpus: Corpus
    protocol: Protocol
    folds: Sequence[Fold]
    asked: frozenset[int]
    stamps: Sequence[str]
    notes: Sequence[str]
    recordings: Recordings
    planner: Planner
    planned: Sequence[PlannedFold]

    def __reduce__(self) -> tuple[Callable[..., RunPlan], tuple[dict[str, Any]]]:
        """For another process all but the steps, whose functions stay here: they are planned anew from the rest."""
        facts = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _NOT_SENT}
        return _receive, (facts,)

    @property
    def labels(self) -> list[str]:
        """Emotions in index order."""
        return list(self.corpus.table.features["emotion"].names)

    def of(self, variant: str, seed: int) -> list[PlannedFold]:
        """The folds of one variant and seed."""
        return [each for each in self.planned if each.variant == variant and each.seed == seed]

    @contextmanager
    def unchanged(self, folder: Path | None = None) -> Iterator[None]:
        """Refuse what was made in a block during which a recording changed, of the corpus or of plain speech."""
        speech = dict.fromkeys(replay.recordings for replay in self.planner.replays.values())
        with ExitStack() as stack:
            for recordings in (self.recordings, *speech):
                stack.enter_context(recordings.unchanged(folder))
            yield

    def test_key(self, planned: PlannedFold) -> str:
        """What a fold's predictions depend on: the model and the rows tested."""
        return f"{planned.finetune.key}-{combine(self.recordings.fingerprints, planned.test['id'])}"


_NOT_SENT = ("processes", "planned")


def _receive(facts: dict[str, Any]) -> RunPlan:
    """The plan of another process, in this one."""
    planned = _plan_folds(facts["planner"], facts["variants"], facts["recipe"].seeds, facts["folds"])
    return RunPlan(**facts, processes=join_processes(), planned=planned)


def _plan_folds(
    planner: Planner, variants: Mapping[str, Method], seeds: Sequence[int], folds: Sequence[Fold]
) -> list[PlannedFold]:
    return [
        planner.plan(name, method, seed, fold) for seed in seeds for fold in folds for name, method in variants.items()
    ]


def plan_run(
    recipe: Recipe, output_dir: Path, folds: Sequence[int] | None = None, command: str = "run_recipe"
) -> RunPlan:
    """Check and plan a run of some folds, numbered from 1, or of all.

    Raises:
        RequestError: The request is wrong, or something finished in the folder contradicts it.
    """
    folder, processes = RunFolder(output_dir), join_processes()
    variants = _variants(recipe)
    described = {str(each.backbone): describe_backbone(each.backbone) for each in variants.values()}
    backbones = {name: described[str(each.backbone)] for name, each in variants.items()}
    _check_stages(variants, backbones, None)
    corpus = _read_corpus(recipe, folder, processes, hears_plain_speech(variants))
    replays = read_replays(recipe, variants, corpus)
    for name, backbone in backbones.items():
        # Of all clips, tested ones too: a training would meet those of a later fold, or a test its own, after hours.
        for table in (corpus.table, *([replays[name].table] if name in replays else [])):
            refuse_long_clips(table, GMPATLConfig(**backbone_fields(backbone)))
    protocol = Protocol(**vars(recipe.protocol))
    every_fold = protocol.folds(corpus.table)
    asked = _asked(folds, every_fold, protocol)
    tests = [fold for fold in every_fold if fold.number in asked and fold.speaker_independent]
    tested = frozenset(speaker for fold in tests for speaker in fold.test)
    stamps = _stamps(variants, backbones, tested)
    for name in dict.fromkeys(each.backbone for each in variants.values() if isinstance(each.backbone, str)):
        refuse_encoder("backbone", name, corpus, tested)
    notes = [*_notes(variants, corpus, every_fold), *replay_notes(variants, replays.values())]
    _check_stages(variants, backbones, corpus.table.features["emotion"].names)
    refuse_nobody_to_choose(recipe.search, [f.number for f in every_fold if f.number in asked and not f.dev])
    recordings = Recordings(corpus.table, corpus.digests)
    planner = Planner(
        folder,
        corpus.table,
        recordings.fingerprints,
        backbones,
        recipe.backbone,
        processes.num_processes,
        replays=replays,
        digests=dict(corpus.digests),
    )
    planned = _plan_folds(planner, variants, recipe.seeds, every_fold)
    changes = RecipeChanges.since(output_dir, recipe)
    for step in (step for each in planned for step in each.steps):
        step.folder.refuse_contradiction(changes.behind)
    for name, replay in replays.items():
        if heard := [each.replay for each in planned if each.variant == name and each.replay is not None]:
            notes.append(describe_replay(name, replay, heard))
    return RunPlan(
        recipe=recipe,
        folder=folder,
        command=command,
        processes=processes,
        variants=variants,
        corpus=corpus,
        protocol=protocol,
        folds=every_fold,
        asked=asked,
        stamps=stamps,
        notes=notes,
        recordings=recordings,
        planner=planner,
        planned=planned,
    )


def _variants(recipe: Recipe) -> dict[str, Method]:
    """Each variant's method, refused if it could not be run or tested."""
    recipe.check_field_names()
    variants = {name: recipe.method(name) for name in recipe.variant_names}
    for name, each in variants.items():
        if isinstance(each.data.front_end_cache, str):
            fix = "front_end_cache: true keeps it in the run's folder; false does without"
            refuse_no_folder(Path(each.data.front_end_cache), "data.front_end_cache", fix)
        if each.stages.finetune.skip:
            raise RequestError(
                f"variant {name} skips the fine-tuning", "a stage that can be tested on emotions", "skip other stages"
            )
    return variants


def _check_stages(variants: Mapping[str, Method], backbones: Backbones, labels: list[str] | None) -> None:
    for name, each in variants.items():
        for candidate in each.candidates():
            check_stage_settings(candidate, backbones[name], labels)


def _read_corpus(recipe: Recipe, folder: RunFolder, processes: PartialState, digest_dropped: bool) -> Corpus:
    entries = []
    for spec in recipe.corpus:
        root = spec.root
        if root is None and spec.name == "demo":
            root = str(folder.corpus)
        options = {"short_clips": recipe.data.short_clips, **spec.options}
        entries.append({"name": spec.name, "root": root, **options})
    # The demo corpus is made on first use; one process makes it, the others then find it.
    with processes.main_process_first():
        return read_corpora(entries, labels=recipe.labels, index=folder.path, digest_dropped=digest_dropped)


def _asked(numbers: Sequence[int] | None, folds: Sequence[Fold], protocol: Protocol) -> frozenset[int]:
    there = frozenset(fold.number for fold in folds)
    several = numbers is None or (isinstance(numbers, Collection) and not isinstance(numbers, str) and len(numbers) > 0)
    if not several:
        raise RequestError(f"folds is {numbers!r}", "a list of the folds' numbers, or None for all", "folds=[1]")
    for number in () if numbers is None else numbers:
        if isinstance(number, bool) or not isinstance(number, Integral) or number not in there:
            raise RequestError(
                f"there is no fold {number!r}", f"folds 1 to {len(folds)} of {protocol.kind}", "--folds 1, or folds=[1]"
            )
    return there if numbers is None else frozenset(numbers)


def _stamps(variants: Mapping[str, Method], backbones: Backbones, tested: frozenset[str]) -> list[str]:
    """Refuse backbones that have seen a test speaker; what must stand beside every number."""
    stamps = [SHUFFLED_STAMP] if any(each.data.shuffle_labels for each in variants.values()) else []
    for name, each in variants.items():
        seen = speakers_seen_by(backbones[name])
        HeldOut(tested).refuse_speakers(seen, f"the backbone {each.backbone} of {name} has seen")
        if maybe_seen(seen, tested):
            stamps.append(maybe_seen_stamp(str(each.backbone)))
    return list(dict.fromkeys(stamps))


def _notes(variants: Mapping[str, Method], corpus: Corpus, folds: Sequence[Fold]) -> list[str]:
    """What this corpus cannot have, said once and not in every fold."""
    notes = [f"{name}: {each.control}." for name, each in variants.items() if each.control]
    genders = known_genders(corpus.table)
    if genders < 2 and any(not each.stages.multitask.skip for each in variants.values()):
        which = "one gender only" if genders else "no genders"
        notes.append(f"The corpus has {which}, so the gender part of the multi-task training is off.")
    labelled = [each.pseudo_labels for each in variants.values() if each.needs_frame_labels]
    for by in sorted({spec.normalize for spec in labelled if spec.control != "oracle"} - {"none"}):
        if nameless := groups_of(corpus.table, by).count(None):
            notes.append(
                f"{_share(nameless, corpus)} no known {by}: their frames are normalised by the "
                "statistics of all training frames."
            )
    per_gender = any(spec.per == "gender" and spec.control != "oracle" for spec in labelled)
    if per_gender and (nameless := groups_of(corpus.table, "gender").count(None)):
        notes.append(
            f"{_share(nameless, corpus)} no known gender: per gender, their frames are not "
            "clustered, and are labelled by the nearest of all centres."
        )
    if nameless := _trained_on_unknown(corpus, folds):
        notes.append(
            f"{counted(nameless, 'recording')} of unknown speakers {'is' if nameless == 1 else 'are'} trained on, and "
            "no epoch or temperature is chosen by them."
        )
    if not any(fold.dev for fold in folds):
        notes.append("No development speakers: the number of epochs is fixed, and scores are not calibrated.")
    return notes


def _trained_on_unknown(corpus: Corpus, folds: Sequence[Fold]) -> int:
    """How many recordings of unknown speakers are trained on; 0 where a prescribed development part has some too."""
    if any(map(is_unknown, {speaker for fold in folds for speaker in fold.dev})):
        return 0
    speakers = list(corpus.table["speaker"])
    # Only protocols of one fold take unknown speakers.
    those = (fold for fold in folds if any(map(is_unknown, fold.train)))
    rows = (row for fold in those for row in rows_of_parts(corpus.table, fold)["train"])
    return sum(is_unknown(speakers[row]) for row in rows)


def _share(count: int, corpus: Corpus) -> str:
    return f"{count} of {counted(len(corpus.table), 'recording')} {'has' if count == 1 else 'have'}"
