"""One verdict on two variants from several corpora: the mean over corpora of the mean over speakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .comparison import COMPARISON_REMARK, add_holm, compare_results, paired_over_speakers
from .genders import genders_of_speakers
from .power import ALPHA, FEW, POWER
from .results import FoldResult
from .statistics import DRAWS, MIN_SPEAKERS
from .summary import INTERVAL

VERDICT_REMARK = (
    f"{COMPARISON_REMARK} Test and interval speak of further speakers of these corpora, not of further corpora."
)


@dataclass(frozen=True)
class CorpusResults:
    """What two variants predicted on one corpus: the same test utterances, seeds averaged.

    Args:
        labels: Names of the emotions, in any order; those of another corpus may be others.
        first: Test predictions of the first variant.
        other: Test predictions of the other variant.
        independent: Whether no test speaker was trained on.
    """

    labels: list[str]
    first: Sequence[FoldResult]
    other: Sequence[FoldResult]
    independent: bool = True


def verdict_over_corpora(corpora: Mapping[str, CorpusResults]) -> dict[str, Any]:
    """Compare two variants over several corpora, each of which counts the same.

    Returns:
        `verdict`, what `paired_over_speakers` gives with one group per corpus; `corpora`, for each what
        `compare_results` gives, with `labels`, `seeds`, `utterances` and the mean UAR over speakers of each side;
        `per_gender`, the verdict of female and of male speakers alone, with the `corpora` that have them and the
        `mean_difference` in each; `unknown_gender`, the number of speakers in neither; `how`, in words; `remark`. The
        verdict is one test; the corpora, where there are several, and the genders have `p_holm` beside `p`.

    Raises:
        ValueError: If there is no corpus, or one has different speakers on its sides.
    """
    found = {name: _corpus(one) for name, one in corpora.items()}
    independent = all(one.independent for one in corpora.values())
    genders = {name: _genders(one.first) for name, one in corpora.items()}
    everybody = _verdict({name: list(one["per_speaker"]) for name, one in found.items()}, found, independent)
    per_gender = {}
    for gender in ("female", "male"):
        own = {
            name: [speaker for speaker in one["per_speaker"] if genders[name][speaker] == gender]
            for name, one in found.items()
        }
        own = {name: speakers for name, speakers in own.items() if speakers}
        if own:
            per_gender[gender] = _verdict(own, found, independent)
    add_holm([*(found.values() if len(found) > 1 else ()), *per_gender.values()])
    return {
        "metric": "uar",
        "verdict": everybody,
        "corpora": found,
        "per_gender": per_gender,
        "unknown_gender": everybody["n"] - sum(one["n"] for one in per_gender.values()),
        "how": _how(everybody),
        "remark": VERDICT_REMARK,
    }


def _corpus(results: CorpusResults) -> dict[str, Any]:
    comparison = compare_results(results.first, results.other, results.labels, results.independent)
    people = comparison["per_speaker"].values()
    sides = {"first": results.first, "other": results.other}
    return {
        "labels": results.labels,
        "seeds": {side: sorted({one.seed for one in own}) for side, own in sides.items()},
        "utterances": len({row["id"] for one in results.first for row in one.predictions}),
        **{side: float(np.mean([person[side] for person in people])) for side in sides},
        **comparison,
    }


def _genders(results: Sequence[FoldResult]) -> dict[str, str | None]:
    return genders_of_speakers((row["speaker"], row.get("gender")) for one in results for row in one.predictions)


def _verdict(
    speakers: Mapping[str, Sequence[str]], found: Mapping[str, Mapping[str, Any]], independent: bool
) -> dict[str, Any]:
    """Give the verdict of some speakers of each corpus."""
    groups = {
        name: np.array([found[name]["per_speaker"][speaker]["difference"] for speaker in own], np.float64)
        for name, own in speakers.items()
    }
    tested = paired_over_speakers(list(groups.values()), independent)
    return {
        **tested,
        "draws": None if tested["exact"] else DRAWS,
        "corpora": {
            name: {"mean_difference": float(group.mean()), "n": int(group.size)} for name, group in groups.items()
        },
    }


def _how(verdict: Mapping[str, Any]) -> dict[str, str]:
    """Say in words how the numbers of a verdict were made."""
    patterns = "all patterns of signs" if verdict["exact"] else f"{DRAWS:,} patterns of signs drawn with seed 0"
    plus_one = "" if verdict["exact"] else ", p = (count + 1) / (draws + 1)"
    return {
        "difference": "mean over corpora of the mean over speakers of the difference in UAR, seeds averaged first",
        "p": f"two-sided, signs flipped speaker by speaker within each corpus, {patterns}{plus_one}",
        "ci95": (
            f"{INTERVAL} of the speakers of each corpus apart; none with fewer than {MIN_SPEAKERS} speakers of a "
            "corpus, or where test speakers were trained on"
        ),
        "smallest_visible_difference": (
            f"the true difference that would have p below {ALPHA} with a chance of {100 * POWER:.0f} %: (t(1 − α/2) + "
            "t(power)) times the standard error of the difference, degrees of freedom by Satterthwaite, and with "
            f"{FEW} speakers or fewer by simulating the test; none where no pattern of signs has such a p"
        ),
    }
