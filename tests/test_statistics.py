"""Intervals by resampling speakers and the sign-flip test."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from gmp_atl_hf.evaluation.metrics import confusion_matrix
from gmp_atl_hf.evaluation.statistics import (
    DRAWS,
    STUDENT,
    difference_bootstrap,
    gender_gap,
    holm,
    mean_bootstrap,
    resample_weights,
    sign_flip_test,
    speaker_bootstrap,
    speaker_confusions,
    utterance_bootstrap,
)


def population(num_speakers: int, seed: int = 0, num_labels: int = 4, seeds: int = 2):
    """Speakers of different skill and size, some without some labels."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(3, 12, size=num_speakers)
    speakers = np.repeat([f"c/{s:02d}" for s in range(num_speakers)], sizes)
    references = generator.integers(num_labels, size=speakers.size)
    right = generator.random((seeds, speakers.size)) < np.repeat(generator.random(num_speakers), sizes)
    predictions = np.where(right, references, generator.integers(num_labels, size=right.shape))
    order = generator.permutation(speakers.size)
    return references[order], predictions[:, order], speakers[order].tolist()


def widened(bounds, figure: float, speakers: int) -> tuple[float, ...]:
    """Percentiles moved away from the figure as Student's distribution asks for so few speakers."""
    stretch = scipy.stats.t.ppf(0.975, speakers - 1) / 1.96 * np.sqrt(speakers / (speakers - 1))
    return tuple(figure + stretch * (bound - figure) for bound in bounds)


def slow_bootstrap(references, predictions, speakers, samples: int, seed: int) -> list[float]:
    """Gather the utterances of each drawn speaker and score them with scikit-learn."""
    rows_of = [np.flatnonzero(np.array(speakers) == name) for name in sorted(set(speakers))]
    drawn = np.random.default_rng(seed).integers(len(rows_of), size=(samples, len(rows_of)))

    def score(rows) -> float:
        options = {"labels": np.unique(references[rows]), "average": "macro", "zero_division": 0}
        return np.mean([sklearn.metrics.recall_score(references[rows], p[rows], **options) for p in predictions])

    scores = [score(np.concatenate([rows_of[speaker] for speaker in draw])) for draw in drawn]
    everybody = score(np.arange(len(references)))
    return np.clip(widened(np.percentile(scores, [2.5, 97.5]), everybody, len(rows_of)), 0, 1).tolist()


@pytest.mark.parametrize("seed", [0, 7])
def test_the_interval_equals_a_plain_resampling_of_whole_speakers(seed: int) -> None:
    references, predictions, speakers = population(6, seed)
    fast = speaker_bootstrap(references, predictions, speakers, 4, samples=150, seed=seed)
    assert fast == pytest.approx(slow_bootstrap(references, predictions, speakers, 150, seed), abs=2e-4)


def test_the_interval_agrees_with_scipy_where_each_speaker_has_one_utterance_of_one_label() -> None:
    # Then pooled UAR is the mean of the speakers' hits, which scipy can resample too.
    hits = np.array([1] * 22 + [0] * 8)
    speakers = [f"c/{i}" for i in range(30)]
    ours = speaker_bootstrap(np.zeros(30, int), (1 - hits)[None], speakers, 2, samples=20_000)
    theirs = scipy.stats.bootstrap((hits,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert ours == pytest.approx(widened((theirs.low, theirs.high), hits.mean(), 30), abs=0.038)


def test_the_interval_is_wider_when_errors_come_by_speaker() -> None:
    references = np.zeros(200, int)
    speakers = [f"c/{i // 20}" for i in range(200)]
    by_speaker = np.array([i // 100 for i in range(200)])
    scattered = np.array([i % 2 for i in range(200)])
    clustered_low, clustered_high = speaker_bootstrap(references, by_speaker[None], speakers, 2)
    scattered_low, scattered_high = speaker_bootstrap(references, scattered[None], speakers, 2)
    assert scattered_low == scattered_high == 0.5
    assert clustered_high - clustered_low > 0.4


def test_four_speakers_give_no_interval_and_five_do() -> None:
    assert speaker_bootstrap(*population(4), 4) is None
    low, high = speaker_bootstrap(*population(5), 4)
    assert 0 <= low <= high <= 1


def test_the_interval_depends_on_neither_row_order_nor_run_but_on_its_seed() -> None:
    references, predictions, speakers = population(8)
    once = speaker_bootstrap(references, predictions, speakers, 4)
    assert once == speaker_bootstrap(references[::-1], predictions[:, ::-1], speakers[::-1], 4)
    assert once != speaker_bootstrap(references, predictions, speakers, 4, seed=1)


def test_speaker_confusions_are_the_confusion_matrices_of_each_speaker_in_sorted_order() -> None:
    references, predictions, speakers = population(5)
    counted = speaker_confusions(references, predictions, speakers, 4)
    assert counted.shape == (2, 5, 4, 4)
    for seed, (index, name) in itertools.product(range(2), enumerate(sorted(set(speakers)))):
        rows = np.array(speakers) == name
        expected = confusion_matrix(references[rows], predictions[seed][rows], 4)
        np.testing.assert_array_equal(counted[seed, index], expected)


def test_each_resample_draws_as_many_speakers_as_there_are() -> None:
    weights = resample_weights(7, 500, seed=3)
    assert weights.shape == (500, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.2)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        speaker_bootstrap([0, 1], [[0, 1]], ["a"], 2)
    with pytest.raises(ValueError, match="do not fit"):
        speaker_bootstrap([0, 1], [[0]], ["a", "b"], 2)
    with pytest.raises(ValueError, match="empty"):
        speaker_bootstrap([], [[]], [], 2)


# ---- gaps and differences ------------------------------------------------------------------------------------------


def test_the_gap_between_genders_is_the_difference_of_recalls_over_the_labels_that_both_have() -> None:
    # Women: label 0 half right, label 1 right, label 2 wrong. Men have no label 2: it does not count.
    references = [0, 0, 1, 2, 0, 1, 1]
    predictions = [[0, 1, 1, 0, 0, 1, 0]]
    genders = ["female"] * 4 + ["male"] * 3
    gap = gender_gap(references, predictions, ["a"] * 4 + ["b"] * 3, genders, 4)
    assert gap is not None
    assert gap.difference == pytest.approx((0.5 + 1) / 2 - (1 + 0.5) / 2)
    assert (gap.labels, gap.speakers, gap.interval) == ([0, 1], (1, 1), None)


def test_there_is_no_gap_without_both_genders_or_a_label_that_both_have() -> None:
    assert gender_gap([0, 1], [[0, 1]], ["a", "b"], ["female", "unknown"], 2) is None
    assert gender_gap([0, 1], [[0, 1]], ["a", "b"], ["female", "male"], 2) is None


def two_sided(women: int, men: int, seed: int = 0):
    references, predictions, speakers = population(women + men, seed)
    female = {f"c/{s:02d}" for s in range(women)}
    return references, predictions, speakers, ["female" if name in female else "male" for name in speakers]


@pytest.mark.parametrize(("women", "men", "known"), [(2, 8, False), (8, 2, False), (3, 3, True)])
def test_fewer_than_three_speakers_on_a_side_give_no_interval_of_the_gap(women: int, men: int, known: bool) -> None:
    gap = gender_gap(*two_sided(women, men), 4)
    assert gap is not None
    assert gap.speakers == (women, men)
    assert (gap.interval is not None) is known
    if gap.interval is not None:
        assert gap.interval[0] <= gap.interval[1]


def test_the_interval_of_the_gap_agrees_with_scipy_where_each_speaker_has_one_utterance_of_one_label() -> None:
    women, men = np.array([1] * 18 + [0] * 7), np.array([1] * 12 + [0] * 13)
    hits = np.concatenate([women, men])
    speakers = [f"c/{number}" for number in range(50)]
    gap = gender_gap(np.zeros(50, int), (1 - hits)[None], speakers, ["female"] * 25 + ["male"] * 25, 2, samples=20_000)
    theirs = scipy.stats.bootstrap(
        (women, men), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        method="percentile", n_resamples=20_000, rng=1, vectorized=True,
    ).confidence_interval  # fmt: skip
    assert gap is not None and gap.interval is not None
    assert gap.difference == pytest.approx(women.mean() - men.mean())
    stretch = scipy.stats.t.ppf(0.975, 48) / 1.96 * np.sqrt(25 / 24)  # as many on both sides, about as different
    expected = [gap.difference + stretch * (bound - gap.difference) for bound in theirs]
    assert gap.interval == pytest.approx(expected, abs=0.045)


def test_the_gap_depends_on_neither_row_order_nor_run() -> None:
    references, predictions, speakers, genders = two_sided(5, 4)
    once = gender_gap(references, predictions, speakers, genders, 4)
    assert once == gender_gap(references[::-1], predictions[:, ::-1], speakers[::-1], genders[::-1], 4)


def test_the_interval_of_a_difference_is_zero_wide_for_the_same_predictions_and_mirrors_for_swapped_sides() -> None:
    references, predictions, speakers = population(8, 1)
    first, other = (speaker_confusions(references, predictions[[seed]], speakers, 4) for seed in (0, 1))
    assert difference_bootstrap(first, first) == (0.0, 0.0)
    low, high = difference_bootstrap(first, other)
    assert (-high, -low) == pytest.approx(difference_bootstrap(other, first))
    assert difference_bootstrap(first[:, :4], other[:, :4]) is None
    with pytest.raises(ValueError, match="not of the same speakers"):
        difference_bootstrap(first, other[:, 1:])


def test_the_interval_of_a_difference_agrees_with_scipys_paired_bootstrap() -> None:
    generator = np.random.default_rng(2)
    sides = generator.random((2, 40)) < np.array([[0.8], [0.55]])
    speakers = [f"c/{number:02d}" for number in range(40)]
    confusions = [speaker_confusions(np.zeros(40, int), (1 - side)[None].astype(int), speakers, 2) for side in sides]
    ours = difference_bootstrap(*confusions, samples=20_000)
    theirs = scipy.stats.bootstrap(
        tuple(side.astype(float) for side in sides), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        method="percentile", n_resamples=20_000, rng=1, vectorized=True, paired=True,
    ).confidence_interval  # fmt: skip
    figure = np.subtract(*sides.mean(axis=1))
    assert ours == pytest.approx(widened((theirs.low, theirs.high), figure, 40), abs=0.028)


def test_the_interval_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(4).normal(0.1, 0.2, size=12)
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    ours = mean_bootstrap([values], samples=20_000)
    assert ours == pytest.approx(widened(theirs.confidence_interval, values.mean(), 12), abs=0.01)
    students = scipy.stats.t.interval(0.95, 11, values.mean(), values.std(ddof=1) / np.sqrt(12))
    assert ours == pytest.approx(students, abs=0.02)
    assert mean_bootstrap([values[:4]]) is None


@pytest.mark.parametrize("sizes", [(5,), (8,), (24,), (5, 5), (6, 10)])
def test_in_nineteen_cases_of_twenty_the_interval_of_a_mean_holds_the_truth(sizes: tuple[int, ...]) -> None:
    generator = np.random.default_rng(7)
    held = []
    for seed in range(1000):
        groups = [generator.normal(0.1, scale, size) for scale, size in zip((0.05, 0.1), sizes, strict=False)]
        low, high = mean_bootstrap(groups, samples=400, seed=seed)
        held.append(low <= 0.1 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize("num_speakers", [5, 10])
def test_in_nineteen_cases_of_twenty_the_interval_of_uar_holds_the_truth(num_speakers: int) -> None:
    generator = np.random.default_rng(8)
    references = np.tile(np.repeat([0, 1], 10), num_speakers)
    speakers = np.repeat([f"c/{number}" for number in range(num_speakers)], 20).tolist()
    held = []
    for seed in range(400):
        skills = generator.uniform(0.4, 0.8, num_speakers)
        right = generator.random(references.size) < np.repeat(skills, 20)
        low, high = speaker_bootstrap(
            references, np.where(right, references, 1 - references)[None], speakers, 2, 400, seed
        )
        held.append(low <= 0.6 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("sides", [(3, 3), (5, 5), (12, 12)])
def test_in_nineteen_cases_of_twenty_the_interval_of_the_gap_holds_the_truth(sides: tuple[int, int]) -> None:
    generator = np.random.default_rng(9)
    speakers = np.repeat([f"c/{number:02d}" for number in range(sum(sides))], 20)
    genders = np.repeat(["female", "male"], [20 * side for side in sides])
    references = np.tile(np.repeat([0, 1], 10), sum(sides))
    held = []
    for seed in range(400):
        right = generator.random(references.size) < np.repeat(generator.uniform(0.4, 0.8, sum(sides)), 20)
        predictions = np.where(right, references, 1 - references)[None]
        gap = gender_gap(references, predictions, speakers.tolist(), genders.tolist(), 2, samples=400, seed=seed)
        held.append(gap.interval[0] <= 0 <= gap.interval[1])
    assert np.mean(held) == pytest.approx(0.95, abs=0.035)


def test_an_interval_ends_where_its_figure_does() -> None:
    references = np.tile([0, 1], 50)
    speakers = [f"c/{row // 20}" for row in range(100)]
    one_wrong = np.where(np.arange(100) < 6, 1 - references, references)[None]
    low, high = speaker_bootstrap(references, one_wrong, speakers, 2)
    assert 0 < low < 0.94 < high == 1
    low, high = speaker_bootstrap(references, 1 - one_wrong, speakers, 2)
    assert 0 == low < 0.06 < high < 1


def test_the_polynomial_for_students_quantile_is_right_to_one_part_in_two_thousand() -> None:
    freedom = np.array([4, 5.5, 7, 9, 23, 100, 5000])
    exact = scipy.stats.t.ppf(0.975, freedom)
    assert np.polyval(STUDENT, 1 / freedom) == pytest.approx(exact, rel=5e-4)
    assert np.polyval(STUDENT, 1 / 2) == pytest.approx(scipy.stats.t.ppf(0.975, 2), rel=0.01)


def test_a_speakers_own_interval_resamples_utterances_within_each_label() -> None:
    references = np.array([0] * 20 + [1] * 5)
    right = np.array([1] * 12 + [0] * 8 + [1] * 5)
    low, high = utterance_bootstrap(references, np.where(right, references, 1 - references)[None], 2, samples=20_000)
    # Label 1 is always right, so all there is comes from the binomial of label 0.
    expected = scipy.stats.binom.ppf([0.025, 0.975], 20, 0.6) / 20
    assert (low, high) == pytest.approx(tuple((expected + 1) / 2), abs=0.026)
    assert utterance_bootstrap(references[:9], 1 - references[None, :9], 2) is None
    assert utterance_bootstrap(references, references[None], 2) is None


def enumerated_p(differences: np.ndarray) -> float:
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product([1, -1], repeat=len(differences))]
    return float(np.mean(np.array(sums) >= abs(differences.sum()) - 1e-9))


@pytest.mark.parametrize("seed", range(8))
def test_the_exact_p_equals_enumeration_and_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # A coarse grid makes ties between patterns, which a strict comparison would miscount.
    differences = generator.integers(-5, 9, size=int(generator.integers(2, 11))) / 10 + 0.05
    result = sign_flip_test(differences)
    assert result.exact
    assert result.p == pytest.approx(enumerated_p(differences))
    theirs = scipy.stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert result.p == pytest.approx(theirs.pvalue)


def test_the_smallest_attainable_p_is_reached_when_all_signs_agree() -> None:
    result = sign_flip_test([0.1, 0.2, 0.3, 0.05, 0.4])
    assert result == (2 / 2**5, 2 / 2**5, True, 5)
    assert sign_flip_test([0.3]) == (1.0, 1.0, True, 1)


def test_zeros_never_change_p_and_do_not_count_towards_exactness() -> None:
    differences = [0.1, -0.05, 0.3, 0.2]
    plain, padded = sign_flip_test(differences), sign_flip_test([*differences, *[0.0] * 30])
    assert padded == (plain.p, 2 / 2**4, True, 34)
    assert sign_flip_test([0.0, 0.0]) == (1.0, 1.0, True, 2)


def test_twenty_differences_are_enumerated_and_twenty_one_are_drawn() -> None:
    generator = np.random.default_rng(0)
    differences = generator.normal(0.4, 1, size=21)
    exact, drawn = sign_flip_test(differences[:20]), sign_flip_test(differences)
    assert exact.exact and exact.smallest_attainable_p == 2 / 2**20
    assert not drawn.exact and drawn.smallest_attainable_p == 1 / (DRAWS + 1)
    assert drawn == sign_flip_test(differences)
    assert drawn.p != sign_flip_test(differences, seed=1).p
    normal = 2 * scipy.stats.norm.sf(abs(differences.sum()) / np.sqrt((differences**2).sum()))
    assert drawn.p == pytest.approx(normal, abs=0.02)


def test_a_drawn_p_is_never_zero() -> None:
    assert sign_flip_test(np.ones(60)).p == 1 / (DRAWS + 1)


def test_ten_speakers_without_a_difference_are_called_different_in_five_percent() -> None:
    generator = np.random.default_rng(5)
    p = np.array([sign_flip_test(generator.normal(size=10)).p for _ in range(2000)])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 · 0.01; 2 · 0.03; 1 · 0.04 is below the one before it
        ([0.5, 0.02, 0.4, 0.9], [1.0, 0.08, 1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_p_values_corrected_by_holm_by_hand(p_values: list[float], expected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(expected)


def test_no_difference_or_an_unknown_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one speaker"):
        sign_flip_test([])
    with pytest.raises(ValueError, match="finite"):
        sign_flip_test([0.1, float("nan")])
