"""Train and test speakers of every fold, one function per kind of protocol; development speakers come later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data.columns import split_word
from ..data.table_values import refuse_empty_text, refuse_missing_columns
from ..errors import RequestError, counted
from .fold import refuse_shared_speakers
from .settings import ProtocolSettings
from .speakers import Speakers, is_unknown, natural_order

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TrainTestSplit:
    """Training and test speakers of a fold, before development speakers are taken from the former.

    Args:
        train: Training speakers.
        test: Test speakers.
        dev: Development speakers where the corpus prescribes them; not in `train`.
        dev_groups: Groups of training speakers that would make good development parts as a whole, the best first.
        part_of: Recording id → part, where speakers are on both sides and that is allowed.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    dev: tuple[str, ...] = ()
    dev_groups: tuple[tuple[str, ...], ...] = ()
    part_of: Mapping[str, str] | None = None


def leave_one_speaker_out(settings: ProtocolSettings, table: Dataset, speakers: Speakers) -> list[TrainTestSplit]:
    """Test every speaker once."""
    _refuse_few(len(speakers.names), 2, "speaker", settings.kind)
    return [TrainTestSplit(tuple(s for s in speakers.names if s != test), (test,)) for test in speakers.names]


def leave_one_session_out(settings: ProtocolSettings, table: Dataset, speakers: Speakers) -> list[TrainTestSplit]:
    """Test every session once, with all its speakers."""
    sessions = speakers.by_session(table)
    _refuse_few(len(sessions), 2, "session", settings.kind)
    names = natural_order(sessions)
    splits = []
    for number, test in enumerate(names):
        # From the next session on round the circle, so that each is the development session of one fold.
        others = [sessions[name] for name in names[number + 1 :] + names[:number]]
        train = tuple(speaker for other in others for speaker in other)
        splits.append(TrainTestSplit(train, sessions[test], dev_groups=tuple(others) if len(others) > 1 else ()))
    return splits


def group_k_fold(settings: ProtocolSettings, table: Dataset, speakers: Speakers) -> list[TrainTestSplit]:
    """Deal the speakers into groups, and test every group once."""
    count = settings.num_folds or 5
    _refuse_few(len(speakers.names), count, "speaker", f"{settings.kind} with {count} folds")
    groups = speakers.stratified_groups(count, settings.seed)
    return [TrainTestSplit(tuple(s for s in speakers.names if s not in group), tuple(group)) for group in groups]


def given(settings: ProtocolSettings, table: Dataset, speakers: Speakers) -> list[TrainTestSplit]:
    """Follow the column `split`."""
    parts = speakers.by_split(table)
    shared = _shared_or_unknown(parts)
    if shared and not settings.allow_shared_speakers:
        refuse_shared_speakers(parts, "the given split")
        _refuse_unknown(shared[0], table)
    for part in ("train", "test"):
        if not parts[part]:
            raise RequestError(
                f"the given split has no {part} recordings", "train and test", "correct the column split"
            )
    if parts["dev"] and settings.dev_speakers is not None:
        raise RequestError(
            f"dev_speakers is {settings.dev_speakers}, but the given split has development speakers of its own",
            "one of the two",
            "take out dev_speakers",
        )
    part_of = None
    if shared:
        _refuse_shared_ids(table)
        part_of = {i: str(split_word(value)) for i, value in zip(table["id"], table["split"], strict=True)}
    return [TrainTestSplit(parts["train"], parts["test"], parts["dev"], part_of=part_of)]


def cross_corpus(settings: ProtocolSettings, table: Dataset, speakers: Speakers) -> list[TrainTestSplit]:
    """Train on some corpora, test on others."""
    refuse_missing_columns(table, {"corpus": "the corpus of each recording, as text"})
    refuse_empty_text(table, "corpus", "the corpus of each recording", "give each row its corpus, or leave it out")
    corpora = natural_order(set(table["corpus"]))
    test_corpora = settings.test_corpora
    if not test_corpora:
        raise RequestError(
            "cross-corpus without a corpus to test on", f"one or more of {', '.join(corpora)}", f"test: [{corpora[-1]}]"
        )
    train_corpora = settings.train_corpora or tuple(name for name in corpora if name not in test_corpora)
    for name in (*train_corpora, *test_corpora):
        if name not in corpora:
            raise RequestError(
                f"cross-corpus names {name!r}, which is no corpus of the table",
                f"one of {', '.join(corpora)}",
                "a corpus is called by its name, or by corpus_name where it has one",
            )
    problems = [f"{name} is on both sides" for name in train_corpora if name in test_corpora]
    problems += [f"{name} is on neither side" for name in corpora if name not in (*train_corpora, *test_corpora)]
    problems += [] if train_corpora else ["every corpus is to be tested on, none is left to train on"]
    if problems:
        raise RequestError(
            f"cross-corpus: {problems[0]}",
            "every corpus of the recipe on one side",
            "correct protocol.train and protocol.test, or take the corpus out of the recipe",
        )
    # A person may be in several corpora: the actors of RAVDESS speak in one and sing in another.
    pairs = set(zip(table["speaker"], table["corpus"], strict=True))
    train, test = (
        tuple(s for s in speakers.names if any((s, corpus) in pairs for corpus in side))
        for side in (train_corpora, test_corpora)
    )
    shared = [name for name in train if name in test]
    if shared:
        raise RequestError(
            f"cross-corpus: the speaker {shared[0]} is on both sides ({len(shared)} are)",
            "corpora of different people, so that nobody tested is seen before",
            "other corpora, or kind: leave-one-speaker-out or group-k-fold on both together; a reader of your own "
            "whose people are others in each folder says so: CorpusInfo(…, own_speakers=False)",
        )
    return [TrainTestSplit(train, test)]


SPLITTERS: Mapping[str, Callable[[ProtocolSettings, Dataset, Speakers], list[TrainTestSplit]]] = {
    "leave-one-speaker-out": leave_one_speaker_out,
    "leave-one-session-out": leave_one_session_out,
    "group-k-fold": group_k_fold,
    "given": given,
    "cross-corpus": cross_corpus,
}
"""Kind of protocol to the function that cuts a table."""


def refuse_unknown_speakers(kind: str, table: Dataset, speakers: Speakers) -> None:
    """Refuse a protocol that makes folds of speakers when nobody knows who some of them are.

    Raises:
        RequestError: Names the unknown speaker and the number of recordings.
    """
    unknown = [speaker for speaker in speakers.names if is_unknown(speaker)]
    # `given` looks for itself, and people of two corpora are taken to be different people.
    if unknown and kind not in ("given", "cross-corpus"):
        _refuse_unknown(unknown[0], table)


def _shared_or_unknown(parts: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Speakers in two parts, then unknown ones, who may be anybody on the other side."""
    counts = Counter(name for own in parts.values() for name in own)
    shared = [name for name in natural_order(counts) if counts[name] > 1]
    return shared + [name for name in natural_order(counts) if is_unknown(name) and name not in shared]


def _refuse_shared_ids(table: Dataset) -> None:
    """Refuse a table whose ids do not tell its recordings apart, where they say what part each is in."""
    refuse_missing_columns(table, {"id": "a name of its own for each recording, as text"})
    refuse_empty_text(table, "id", "a name for each recording", "give each row an id of its own")
    name, count = Counter(table["id"]).most_common(1)[0]
    if count > 1:
        raise RequestError(
            f"{counted(count, 'row has', 'rows have')} the id {name}",
            "a name of its own for each recording, which says what part it is in where speakers are in two",
            "give each row an id of its own",
        )


def _refuse_unknown(speaker: str, table: Dataset) -> None:
    count = sum(name == speaker for name in table["speaker"])
    raise RequestError(
        f"nobody knows who speaks {counted(count, 'recording: its', 'recordings: their')} speaker is {speaker}",
        "known speakers, so that nobody is both trained and tested on",
        "leave these recordings out; or follow the corpus' own split with protocol.kind: given and "
        "protocol.allow_shared_speakers: true, which stamps every number",
    )


def _refuse_few(there: int, wanted: int, what: str, why: str) -> None:
    if there >= wanted:
        return
    if why.endswith("folds") and there > 1:
        fix = f"ask for {there} folds or fewer"
    elif what == "session":
        fix = "add recordings of other sessions, or use kind: leave-one-speaker-out"
    else:
        fix = (
            "add recordings of other speakers; or give each recording a split and use kind: given, with "
            "allow_shared_speakers: true where one person is in train and in test"
        )
    raise RequestError(
        f"the table has {counted(there, what)}, but {why} needs at least {wanted}", f"{wanted} {what}s or more", fix
    )
