"""Several finished runs, on one corpus or more, brought together for one verdict on two of their variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RequestError, counted
from ..evaluation.results import FoldResult, contents_of
from ..evaluation.verdict import CorpusResults, verdict_over_corpora
from ..run_folder.finished import TestedVariant, read_variant, variants_of
from .blocks import protocol_line
from .compare import note_on_seeds, note_on_unknown, refuse_nameless, refuse_unlike


@dataclass
class _Corpus:
    """What the runs have tested on one corpus; `first` and `other` are the results of all of them."""

    labels: list[str]
    runs: list[str] = field(default_factory=list)
    first: list[FoldResult] = field(default_factory=list)
    other: list[FoldResult] = field(default_factory=list)
    protocols: list[str] = field(default_factory=list)
    independent: bool = True


def compare_over_corpora(runs: Sequence[str], first: str, other: str) -> dict[str, Any]:
    """Give one verdict on two variants from several runs.

    A corpus is what the ids of its utterances begin with; a run that tests several counts for each of them. Runs on
    the same corpus with other seeds count as further seeds.

    Args:
        runs: Folders of finished runs that have both variants.
        first: Name of a variant.
        other: Name of the variant to subtract.

    Returns:
        What `verdict_over_corpora` gives, each corpus with its `runs` and `protocol`, and `first`, `other`, `stamps`
        and `notes`; JSON types.

    Raises:
        RequestError: A run or variant is not there, its variants were tested on different utterances, or two runs do
            not fit together: the same corpus with the same seeds, in other folds or with other labels, two corpora
            of one name, or a speaker in two corpora; or nobody knows who speaks in one.
    """
    _refuse_wrong_names(runs, first, other)
    corpora: dict[str, _Corpus] = {}
    stamps: list[str] = []
    notes: list[str] = []
    for run in runs:
        sides = read_variant(run, first), read_variant(run, other)
        refuse_unlike(*sides)
        stamps += [stamp for side in sides for stamp in side.stamps]
        notes += [f"{run}: {note}" for note in note_on_seeds(*sides)]
        _add(corpora, run, *sides)
    _refuse_shared_speakers(corpora)
    for name, one in corpora.items():
        refuse_nameless(name, [row["speaker"] for result in one.first for row in result.predictions])
    found = verdict_over_corpora(
        {name: CorpusResults(one.labels, one.first, one.other, one.independent) for name, one in corpora.items()}
    )
    for name, one in corpora.items():
        protocols = list(dict.fromkeys(one.protocols))
        found["corpora"][name] = {"runs": one.runs, "protocol": " / ".join(protocols), **found["corpora"][name]}
        notes += [f"{name}: {note}" for note in note_on_unknown(found["corpora"][name]["unknown_utterances"])]
        if len(one.runs) > 1:
            notes.append(
                f"{name}: {' and '.join(one.runs)} count as seeds of one run; that their settings are the same is for "
                "the reader to know."
            )
    if found["unknown_gender"]:
        notes.append(f"{counted(found['unknown_gender'], 'speaker')} of unknown gender: in the verdict, in no gender.")
    return {"first": first, "other": other, **found, "stamps": list(dict.fromkeys(stamps)), "notes": notes}


def common_variants(runs: Sequence[str]) -> list[str]:
    """Name the variants that every one of some runs has, in the order of the first.

    Raises:
        RequestError: A folder holds no run.
    """
    first, *others = (variants_of(run) for run in runs)
    return [name for name in first if all(name in own for own in others)]


def _refuse_wrong_names(runs: Sequence[str], first: str, other: str) -> None:
    """Refuse variants that are not two, or that a run does not have, before any prediction is read."""
    if first == other:
        names = [name for name in common_variants(runs) if name != first] or ["OTHER_VARIANT"]
        raise RequestError(f"{first} on both sides", "two variants", f"--variants {first} {names[0]}")
    for run in runs:
        folder, colon, variant = run.rpartition(":")
        if colon and not Path(run).is_dir():
            raise RequestError(
                f"{run} names the variant {variant}", "folders alone: --variants names those of all runs", folder
            )
    known = {run: variants_of(run) for run in runs}
    missing = [
        f"{run} has no variant {name}" for run, own in known.items() for name in (first, other) if name not in own
    ]
    if missing:
        common = common_variants(runs)
        raise RequestError(
            "; ".join(missing),
            f"two variants that every run has: {', '.join(common) or 'these have none in common'}",
            f"--variants {' '.join(common[:2])}" if len(common) > 1 else "gmp-atl run the recipes with both variants",
        )


def _add(corpora: dict[str, _Corpus], run: str, first: TestedVariant, other: TestedVariant) -> None:
    """Put the results of a run to the corpora that it has tested."""
    sides = _by_corpus(first.results), _by_corpus(other.results)
    for name in sides[0]:
        mine = sides[0][name], sides[1][name]
        corpus = corpora.setdefault(name, _Corpus(first.labels))
        if corpus.runs:
            _refuse_unfit(name, corpus, run, first.labels, *mine)
        corpus.runs.append(run)
        corpus.first += mine[0]
        corpus.other += mine[1]
        corpus.protocols.append(protocol_line({"protocol": first.protocol}))
        corpus.independent &= first.speaker_independent and other.speaker_independent


def _by_corpus(results: Sequence[FoldResult]) -> dict[str, list[FoldResult]]:
    """Take the results apart; the id of an utterance starts with that of the corpus."""
    found: dict[str, list[FoldResult]] = {}
    for one in results:
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in one.predictions:
            rows.setdefault(str(row["id"]).partition("/")[0], []).append(row)
        for name, own in rows.items():
            found.setdefault(name, []).append(FoldResult(one.seed, one.fold, own, one.temperature))
    return found


def _refuse_unfit(
    name: str, corpus: _Corpus, run: str, labels: list[str], first: list[FoldResult], other: list[FoldResult]
) -> None:
    """Refuse a further run on a corpus whose results are no further seeds of what is there."""
    before = " and ".join(corpus.runs)
    _refuse_other_utterances(name, corpus, run, first)
    for there, new in ((corpus.first, first), (corpus.other, other)):
        shared = sorted({one.seed for one in there} & {one.seed for one in new})
        if shared:
            raise RequestError(
                f"{run} and {before} both have the corpus {name} with the same seeds: {', '.join(map(str, shared))}",
                "each corpus once; with other seeds it counts as further seeds",
                f"leave {run} out",
            )
    if sorted(labels) != sorted(corpus.labels):
        raise RequestError(
            f"{run} tells {', '.join(labels)} on {name}; {before} tells {', '.join(corpus.labels)}",
            "the same labels wherever a corpus is the same",
            "compare runs with the same label map",
        )
    if _folds(first) != _folds(corpus.first):
        raise RequestError(
            f"{run} has tested {name} in other folds than {before}",
            "the same folds with the same utterances, for other seeds of one run",
            "finish the same folds of both, with the same protocol",
        )


def _refuse_other_utterances(name: str, corpus: _Corpus, run: str, results: list[FoldResult]) -> None:
    """Refuse a run that has no utterance in common with those before: two corpora that one reader has read, mostly."""
    there, new = _ids(corpus.first), _ids(results)
    if there & new:
        return
    raise RequestError(
        f"{run} and {' and '.join(corpus.runs)} both call their corpus {name}, and have none of "
        f"{counted(len(new), 'utterance')} and {len(there):,} in common",
        "a name for each corpus: ids of utterances and speakers begin with that of its reader, unless the recipe says "
        "corpus_name",
        f"give {run} one in its recipe, such as `corpus: {{name: …, root: …, corpus_name: another}}`, and run it "
        "again; or, if they are one corpus, finish the same folds of both, with the same protocol",
    )


def _ids(results: Sequence[FoldResult]) -> set[str]:
    return {str(row["id"]) for one in results for row in one.predictions}


def _folds(results: Sequence[FoldResult]) -> dict[int, dict[str, tuple[Any, ...]]]:
    return {one.fold: contents_of(one) for one in results}


def _refuse_shared_speakers(corpora: dict[str, _Corpus]) -> None:
    """A speaker in two corpora would be flipped twice, as if they were two people."""
    owner: dict[str, str] = {}
    for name, corpus in corpora.items():
        for speaker in sorted({row["speaker"] for one in corpus.first for row in one.predictions}):
            if owner.setdefault(speaker, name) != name:
                raise RequestError(
                    f"the speaker {speaker} is in {owner[speaker]} and in {name}",
                    "corpora without a speaker in common",
                    f"leave out the runs on one of them: {' '.join(corpus.runs)}",
                )
