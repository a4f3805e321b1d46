"""One verdict over several corpora: its statistics, by hand and against scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from gmp_atl_hf.evaluation.comparison import compare_results, paired_over_speakers
from gmp_atl_hf.evaluation.power import smallest_visible_difference
from gmp_atl_hf.evaluation.results import FoldResult
from gmp_atl_hf.evaluation.statistics import DRAWS, mean_bootstrap, sign_flip_test
from gmp_atl_hf.evaluation.verdict import CorpusResults, verdict_over_corpora

LABELS = ["anger", "joy"]


def results(corpus: str, hits: dict[str, int], genders: str = "fm", seed: int = 0) -> list[FoldResult]:
    """One fold; of the ten utterances of a speaker, all of them angry, the first so many are recognised."""
    rows = [
        {
            "id": f"{corpus}/{speaker}-{number}",
            "speaker": f"{corpus}/{speaker}",
            "gender": {"f": "female", "m": "male", "?": None}[genders[place % len(genders)]],
            "emotion": "anger",
            "predicted": "anger" if number < right else "joy",
        }
        for place, (speaker, right) in enumerate(hits.items())
        for number in range(10)
    ]
    return [FoldResult(seed, 1, rows)]


def corpus_of(corpus: str, first: list[int], other: list[int], genders: str = "fm") -> CorpusResults:
    names = [f"s{number}" for number in range(len(first))]
    sides = [results(corpus, dict(zip(names, hits, strict=True)), genders) for hits in (first, other)]
    return CorpusResults(LABELS, *sides)


def enumerated_p(groups: list[np.ndarray]) -> float:
    """Flip every speaker of every corpus in every way, and compute the mean over corpora of the mean over speakers."""
    observed = abs(np.mean([group.mean() for group in groups]))
    sizes = [group.size for group in groups]
    found = []
    for signs in itertools.product([1, -1], repeat=sum(sizes)):
        flipped = np.split(np.array(signs) * np.concatenate(groups), np.cumsum(sizes)[:-1])
        found.append(abs(np.mean([group.mean() for group in flipped])) >= observed - 1e-12)
    return float(np.mean(found))


# ---- mean over corpora -----------------------------------------------------------------------------------------------


def test_a_corpus_counts_the_same_whatever_its_number_of_speakers() -> None:
    tested = paired_over_speakers([np.array([0.4, 0.2]), np.array([0.0, 0.0, 0.0, 0.1])])
    assert tested["mean_difference"] == pytest.approx((0.3 + 0.025) / 2)
    assert (tested["n"], tested["ties"], tested["exact"]) == (6, 3, True)


def test_three_speakers_of_two_corpora_by_hand() -> None:
    # Shares of the mean are 0.75, 0.25 and 1: up to a common sign the patterns give 2, 1.5, 0.5 and 0.
    tested = paired_over_speakers([np.array([3.0, 1.0]), np.array([2.0])])
    assert tested["mean_difference"] == 2.0
    assert tested["p"] == tested["smallest_attainable_p"] == 0.25
    # Shares of 0.75, −0.25 and 0.5 give 1; the patterns 1.5, 1, 0.5 and 0.
    assert paired_over_speakers([np.array([3.0, -1.0]), np.array([1.0])])["p"] == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_the_exact_p_over_corpora_equals_enumeration(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # A coarse grid makes ties between patterns, which a strict comparison would miscount.
    groups = [generator.integers(-4, 8, size=size) / 10 + 0.05 for size in (2, 3, 5)]
    assert paired_over_speakers(groups)["p"] == pytest.approx(enumerated_p(groups))


def test_more_speakers_than_can_be_enumerated_are_drawn_and_the_drawn_p_is_that_of_scipy() -> None:
    generator = np.random.default_rng(3)
    groups = [generator.normal(0.2, 1, size=10), generator.normal(0.2, 1, size=24)]
    tested = paired_over_speakers(groups)
    assert not tested["exact"] and tested["smallest_attainable_p"] == 1 / (DRAWS + 1)
    assert tested == paired_over_speakers(groups)
    theirs = scipy.stats.permutation_test(
        (np.concatenate([group / group.size for group in groups]),), np.sum, permutation_type="samples",
        n_resamples=20_000, rng=1,
    )  # fmt: skip
    assert tested["p"] == pytest.approx(theirs.pvalue, abs=0.015)
    assert tested["p"] * (DRAWS + 1) == pytest.approx(round(tested["p"] * (DRAWS + 1)))


def test_one_corpus_is_the_comparison_that_a_report_makes() -> None:
    one = corpus_of("a", [9, 8, 7, 9, 6, 5, 9], [5, 6, 7, 4, 3, 6, 8])
    found = verdict_over_corpora({"a": one})
    reported = compare_results(one.first, one.other, LABELS)
    for key in ("mean_difference", "ci95", "p", "smallest_attainable_p", "n", "ties", "smallest_visible_difference"):
        assert found["verdict"][key] == reported[key] == found["corpora"]["a"][key], key
    assert reported["p"] == sign_flip_test([0.4, 0.2, 0.0, 0.5, 0.3, -0.1, 0.1]).p


def test_the_interval_resamples_the_speakers_of_each_corpus_apart() -> None:
    generator = np.random.default_rng(4)
    groups = [generator.normal(0.1, 0.2, size=9), generator.normal(0.3, 0.1, size=20)]
    theirs = scipy.stats.bootstrap(
        tuple(groups), lambda a, b, axis: (a.mean(axis=axis) + b.mean(axis=axis)) / 2,
        method="percentile", n_resamples=20_000, rng=1, vectorized=True,
    ).confidence_interval  # fmt: skip
    variances = [group.var(ddof=1) / group.size for group in groups]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 8 + variances[1] ** 2 / 19)
    drawn = variances[0] * 8 / 9 + variances[1] * 19 / 20
    stretch = scipy.stats.t.ppf(0.975, freedom) / 1.96 * np.sqrt(sum(variances) / drawn)
    figure = np.mean([group.mean() for group in groups])
    expected = [figure + stretch * (bound - figure) for bound in theirs]
    assert mean_bootstrap(groups, samples=20_000) == pytest.approx(expected, abs=0.006)
    assert mean_bootstrap([groups[0], groups[1][:4]]) is None
    # Speakers who are alike within each corpus leave nothing to resample, however much corpora differ.
    assert mean_bootstrap([np.full(5, 0.1), np.full(9, 0.3)]) == pytest.approx((0.2, 0.2))


# ---- the smallest visible difference ---------------------------------------------------------------------------------


def test_the_smallest_visible_difference_by_hand() -> None:
    # Sixteen speakers with a variance of 0.16: the standard error is 0.1; t(0.975, 15) = 2.131 and t(0.8, 15) = 0.866.
    values = np.array([-0.4, 0.4] * 8) * np.sqrt(15 / 16)
    assert values.var(ddof=1) == pytest.approx(0.16)
    assert smallest_visible_difference([values]) == pytest.approx(0.2997, abs=2e-4)
    # Twice the same corpus: the error of the mean is smaller by √2, with 30 degrees of freedom (2.042 and 0.854).
    assert smallest_visible_difference([values, values]) == pytest.approx(0.2896 / np.sqrt(2), abs=2e-4)


def test_of_six_speakers_all_must_be_alike_to_be_seen() -> None:
    # All six are above zero with a chance of 0.8 where each is with one of 0.8 ** (1 / 6).
    values = scipy.stats.norm.ppf((np.arange(6) + 0.5) / 6)
    visible = smallest_visible_difference([values / values.std(ddof=1)])
    assert visible == pytest.approx(scipy.stats.norm.ppf(0.8 ** (1 / 6)), abs=0.02)


def test_the_smallest_visible_difference_does_not_depend_on_the_difference_that_was_found() -> None:
    groups = [np.random.default_rng(place).normal(0, 0.1, size=size) for place, size in enumerate((7, 12))]
    once = smallest_visible_difference(groups)
    assert once == pytest.approx(smallest_visible_difference([group + 0.4 for group in groups]))
    assert 3 * once == pytest.approx(smallest_visible_difference([3 * group for group in groups]))


@pytest.mark.parametrize("size", [14, 20])
def test_the_smallest_visible_difference_is_found_by_the_t_test_with_about_the_power_that_it_names(size: int) -> None:
    values = scipy.stats.norm.ppf((np.arange(size) + 0.5) / size)
    visible = smallest_visible_difference([values / values.std(ddof=1)])
    assert visible is not None
    bound, shift = scipy.stats.t.ppf(0.975, size - 1), visible * np.sqrt(size)
    assert scipy.stats.nct.sf(bound, size - 1, shift) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("sizes", [(6,), (8,), (10,), (12,), (3, 5)])
def test_the_sign_flip_test_finds_the_smallest_visible_difference_in_four_of_five_samples(
    sizes: tuple[int, ...],
) -> None:
    generator = np.random.default_rng(6)
    deviations = [1.0, 0.5][: len(sizes)]
    quantiles = [scipy.stats.norm.ppf((np.arange(size) + 0.5) / size) for size in sizes]
    groups = [scale * own / own.std(ddof=1) for own, scale in zip(quantiles, deviations, strict=True)]
    visible = smallest_visible_difference(groups)
    found = []
    for _ in range(4000):
        drawn = [generator.normal(visible, scale, size) / size for size, scale in zip(sizes, deviations, strict=True)]
        found.append(sign_flip_test(np.concatenate(drawn)).p < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.02)  # three times what chance makes of 4,000


@pytest.mark.parametrize(
    "groups",
    [
        [np.array([0.1, 0.2, 0.4, 0.1, 0.3])],  # no pattern of five signs has a p below 0.0625
        [np.array([0.1, 0.2, 0.4, 0.1, 0.3, 0.2]), np.array([0.1])],  # nobody knows how speakers of the second differ
        [np.full(8, 0.1)],
    ],
)
def test_where_nothing_can_be_said_there_is_no_smallest_visible_difference(groups: list[np.ndarray]) -> None:
    assert smallest_visible_difference(groups) is None


@pytest.mark.parametrize("groups", [[], [np.array([0.1, 0.2]), np.array([])]])
def test_no_speaker_is_refused(groups: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least one speaker"):
        paired_over_speakers(groups)


# ---- by gender -------------------------------------------------------------------------------------------------------


def test_genders_are_tested_apart_and_a_corpus_without_one_is_left_out_of_it() -> None:
    found = verdict_over_corpora(
        {
            "a": corpus_of("a", [9, 8, 7, 5], [5, 7, 4, 3], "fm"),
            "b": corpus_of("b", [5, 6], [6, 6], "f"),
            "c": corpus_of("c", [9], [2], "?"),
        }
    )
    assert found["verdict"]["mean_difference"] == pytest.approx((0.25 - 0.05 + 0.7) / 3)
    female, male = found["per_gender"]["female"], found["per_gender"]["male"]
    assert {name: one["n"] for name, one in female["corpora"].items()} == {"a": 2, "b": 2}
    assert female["mean_difference"] == pytest.approx((0.35 - 0.05) / 2)
    assert (male["mean_difference"], list(male["corpora"]), male["n"]) == (pytest.approx(0.15), ["a"], 2)
    assert found["unknown_gender"] == 1


def test_seeds_are_averaged_first() -> None:
    names = ["s0", "s1"]
    first = [*results("a", {"s0": 8, "s1": 6}), *results("a", {"s0": 4, "s1": 6}, seed=1)]
    found = verdict_over_corpora({"a": CorpusResults(LABELS, first, results("a", dict.fromkeys(names, 5)))})
    assert [one["difference"] for one in found["corpora"]["a"]["per_speaker"].values()] == pytest.approx([0.1, 0.1])
    assert found["corpora"]["a"]["seeds"] == {"first": [0, 1], "other": [0]}
    assert (found["corpora"]["a"]["first"], found["corpora"]["a"]["utterances"]) == (pytest.approx(0.6), 20)


def test_one_corpus_with_shared_speakers_leaves_no_interval_of_the_verdict() -> None:
    good = corpus_of("a", [9, 8, 7, 5, 6, 7], [5, 7, 4, 3, 2, 1])
    shared = CorpusResults(good.labels, *(results("b", dict.fromkeys("uvwxy", hits)) for hits in (9, 5)), False)
    found = verdict_over_corpora({"a": good, "b": shared})
    assert found["corpora"]["a"]["ci95"] is not None
    assert found["verdict"]["ci95"] is None and found["corpora"]["b"]["ci95"] is None
