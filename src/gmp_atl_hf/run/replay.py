"""Plain speech that the retraining hears beside the training clips: what there is, and how much of it a fold hears."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from ..data.audio import SAMPLING_RATE
from ..data.columns import replace_column
from ..data.corpora import LeftOut
from ..data.fingerprints import Recordings, combine
from ..data.listing import refuse_duplicates
from ..data.spelling import first_few
from ..data.table import Corpus, draw_plain_speech, enough_rows
from ..errors import RequestError, counted
from ..pseudo_labels.label_file import quiet_datasets
from ..recipe.method import Method
from ..recipe.recipe import Recipe
from ..recipe.sections import REPLAY, ReplaySpec


@dataclass(frozen=True)
class Replay:
    """The plain speech of one `replay` section.

    Args:
        spec: The section.
        recordings: In the order in which they are drawn, as many as any fold can hear; as they were when the run began.
        found: How many recordings the folder has.
        left_out: Those that cannot be read or are too short, with the reason.
        problems: What is odd about them, one sentence each.
        digests: Hash of the samples of each recording, by id.
    """

    spec: ReplaySpec
    recordings: Recordings
    found: int
    left_out: tuple[LeftOut, ...] = ()
    problems: tuple[str, ...] = ()
    digests: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def table(self) -> datasets.Dataset:
        """All that can be heard, under one label that means nothing."""
        return self.recordings.table

    def beside(self, train: datasets.Dataset) -> datasets.Dataset:
        """What is heard beside some training rows: rows with the same columns and no emotion."""
        rows = self.table.select(range(enough_rows(self.table, self.spec.seconds or seconds_of(train))))
        with quiet_datasets():  # it calls what it does "Flattening the indices"
            return replace_column(rows, "emotion", [None] * len(rows), train.features["emotion"])

    def fingerprint(self, rows: datasets.Dataset) -> str:
        """Hash of some of its rows in their order."""
        return combine(self.recordings.fingerprints, rows["id"])


def seconds_of(table: datasets.Dataset) -> float:
    """How long the recordings of a table are together."""
    return float(sum(table["num_samples"]) / SAMPLING_RATE)


def amount_of(table: datasets.Dataset) -> dict[str, Any]:
    """How much speech a table is; JSON types."""
    return {"recordings": len(table), "hours": round(seconds_of(table) / 3600, 4)}


def read_replays(recipe: Recipe, variants: Mapping[str, Method], corpus: Corpus) -> dict[str, Replay]:
    """Read the plain speech of each variant, and make sure that no recording of the corpus is in it as it is.

    Args:
        recipe: The recipe.
        variants: Each variant's method.
        corpus: Its corpus, with digests of what the label map drops; its index is to keep what is measured.

    Returns:
        Variant → its plain speech, for those that have any.

    Raises:
        RequestError: A folder is missing or has too little speech, or a recording of the corpus is in it or may be.
    """
    specs = {name: each.replay for name, each in _retrained(variants).items() if each.replay is not None}
    if specs and any(one.options.get("check_audio") is False for one in recipe.corpus):
        raise RequestError(
            "`replay` is set, and the corpus has `check_audio: false`",
            "recordings that are decoded once: only then it is known that none of them is in the plain speech",
            "remove `check_audio` from the corpus",
        )
    read = {spec: _read(spec, corpus, recipe.data.short_clips) for spec in dict.fromkeys(specs.values())}
    replays = {
        spec: Replay(
            spec,
            Recordings(speech.table, speech.digests),
            found,
            tuple(speech.left_out),
            tuple(speech.problems),
            dict(speech.digests),
        )
        for spec, (speech, found) in read.items()
    }
    return {name: replays[spec] for name, spec in specs.items()}


def _retrained(variants: Mapping[str, Method]) -> dict[str, Method]:
    """Those variants that have a retraining, which alone hears plain speech, or are as long as if they had."""
    return {
        name: each
        for name, each in variants.items()
        if not each.stages.retrain.skip or each.stages.finetune.same_updates_as_all
    }


def hears_plain_speech(variants: Mapping[str, Method]) -> bool:
    """Whether any variant does."""
    return any(each.replay is not None for each in _retrained(variants).values())


def left_out_of(replays: Iterable[Replay]) -> list[LeftOut]:
    """What is below the folders of plain speech and cannot be heard, each once: nothing of it is the corpus'."""
    return list(dict.fromkeys(each for replay in replays for each in replay.left_out))


def replay_notes(variants: Mapping[str, Method], replays: Iterable[Replay]) -> list[str]:
    """What is odd about the plain speech, one sentence each."""
    replays = list(replays)
    if not _retrained(variants) and any(each.replay is not None for each in variants.values()):
        return ["`replay` is set, and no variant has a retraining to hear it: the plain speech is not read"]
    notes = list(dict.fromkeys(each for replay in replays for each in replay.problems))
    if left_out := left_out_of(replays):
        count = counted(len(left_out), "recording is", "recordings are")
        notes.append(f"Plain speech: {count} left out, see left_out.jsonl")
    return notes


def _read(spec: ReplaySpec, corpus: Corpus, short_clips: str) -> tuple[Corpus, int]:
    folder = Path(spec.root)
    if not folder.is_dir():
        raise RequestError(
            f"`replay.root` is {spec.root}, which is {'a file' if folder.exists() else 'not there'}",
            "a folder of recordings of plain speech, in any layout",
            "correct it; a relative path starts where the command is typed in",
        )
    # The final model is trained on everybody, so all of the corpus is the most that a training has.
    wanted = spec.seconds or seconds_of(corpus.table)
    speech, found = draw_plain_speech(REPLAY, folder, wanted, spec.seed, short_clips, corpus.index)
    if spec.seconds is not None and (there := seconds_of(speech.table)) < spec.seconds:
        raise RequestError(
            f"`replay.seconds` is {spec.seconds:g}, and {folder} has {there:.1f} seconds of speech",
            "no more than there is",
            "smaller replay.seconds, or without them as much as there are training clips",
        )
    refuse_duplicates([*corpus.table["id"], *speech.table["id"]])
    _refuse_corpus(speech, corpus)
    return speech, found


def _refuse_corpus(speech: Corpus, corpus: Corpus) -> None:
    """Refuse plain speech with the samples of a recording of the corpus, whose speaker may be one to test on."""
    theirs = {digest: name for name, digest in (*corpus.dropped.items(), *corpus.digests.items())}
    same = [f"{name} = {theirs[digest]}" for name, digest in speech.digests.items() if digest in theirs]
    if same:
        raise RequestError(
            f"`replay` has the same samples as the corpus in {counted(len(same), 'recording')}: "
            + first_few(same, separator="; "),
            "plain speech without any recording of the corpus, whose speakers may be tested on",
            "move them out of the folder, or give another one as replay.root",
        )


def describe_replay(variant: str, replay: Replay, heard: Sequence[datasets.Dataset]) -> str:
    """Say how much plain speech the retraining of a variant hears, one table for each fold, and whose nobody knows."""
    counts = _range(f"{len(each)}" for each in sorted(heard, key=len))
    hours = _range(f"{hours:.3g}" for hours in sorted(seconds_of(each) / 3600 for each in heard))
    return (
        f"{variant}: the retraining also heard plain speech without emotions, {counts} of "
        f"{counted(replay.found, 'recording')} ({hours} hours) in each fold. "
        "None of them has the same samples as a recording of the table, or as one that "
        "`labels` drops; a copy in a lossy format, or a longer recording that clips were cut from, would not be "
        "noticed. And nobody knows who speaks in them: the corpus' speakers, those tested included, may be among them."
    )


def _range(ascending: Iterable[str]) -> str:
    values = list(dict.fromkeys(ascending))
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
