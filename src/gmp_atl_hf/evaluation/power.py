"""The smallest difference that a paired comparison over speakers could have seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.stats import t as student_t

from .metrics import FloatArray

ALPHA = 0.05
"""Two-sided level of the test."""

POWER = 0.8
"""Chance with which the smallest visible difference gives a p value below the level."""

FEW = 12
"""Up to this many speakers the sign-flip test itself is simulated; with more, Student's formula is as good."""


def smallest_visible_difference(
    groups: Sequence[FloatArray], alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """Return the true difference that a test like this one would find with the given power.

    With `d_c` the differences of the `n_c` speakers of corpus `c`, `v_c = variance(d_c) / n_c` (variance with
    `n_c - 1`) and `C` corpora, the standard error of the mean over corpora of the mean over speakers is
    `SE = sqrt(sum(v_c)) / C`, with `df = sum(v_c)² / sum(v_c² / (n_c - 1))` degrees of freedom (Satterthwaite). The
    result is `(t(1 - alpha / 2, df) + t(power, df)) · SE`, `t` the quantile of Student's distribution. With twelve
    speakers or fewer the sign-flip test finds less than that, since its p values are few: there it is simulated on
    normal differences with the same variances. The result depends on how much speakers differ from each other, not on
    the difference that was found.

    Args:
        groups: Differences of the speakers of each corpus, one float64 array (speakers,) each.
        alpha: Two-sided level of the test.
        power: Chance to be found.

    Returns:
        The difference in the unit of `groups`; None where nothing can be said: a corpus with one speaker, speakers
        who do not differ, or so few that no pattern of signs has a p value below the level.

    Raises:
        ValueError: If there is no group, or one is empty.
    """
    if not groups or any(group.size == 0 for group in groups):
        raise ValueError("no differences: each group needs at least one speaker")
    sizes = np.array([group.size for group in groups])
    if sizes.min() < 2 or 2.0 ** (1 - int(sizes.sum())) >= alpha:
        return None
    deviations = np.array([group.std(ddof=1) for group in groups])
    variances = deviations**2 / sizes
    error = float(np.sqrt(variances.sum())) / len(groups)
    if error < 1e-12:  # equal differences, computed in two orders of additions
        return None
    if sizes.sum() <= FEW:
        scale = float(deviations.max())
        return _by_simulation(tuple(sizes.tolist()), tuple((deviations / scale).tolist()), alpha, power) * scale
    freedom = variances.sum() ** 2 / (variances**2 / (sizes - 1)).sum()
    return float(student_t.ppf(1 - alpha / 2, freedom) + student_t.ppf(power, freedom)) * error


@lru_cache(maxsize=256)
def _by_simulation(sizes: tuple[int, ...], deviations: tuple[float, ...], alpha: float, power: float) -> float:
    """The same for speakers of normal differences with these deviations, by the exact sign-flip test.

    A sample is found once its true difference exceeds a bound: flipping the speakers of a set raises the mean no more
    once the difference exceeds minus the mean of that set. So p is below alpha once the difference exceeds all these
    values but the `rare - 1` largest, `rare` being the number of patterns, the observed one included, that a side of
    the test may have. The result is the bound that a share of `power` of the samples does not exceed.
    """
    speakers = sum(sizes)
    shares = np.repeat([1 / (size * len(sizes)) for size in sizes], sizes)
    rare = math.ceil(alpha * 2.0**speakers / 2) - 1
    sets = (np.arange(1, 2**speakers)[:, None] >> np.arange(speakers) & 1) * shares
    samples = min(20_000, 8_000_000 // len(sets))  # 64 MB at most
    noise = np.random.default_rng(0).standard_normal((samples, speakers)) * np.repeat(deviations, sizes)
    needed = noise @ -(sets / sets.sum(axis=1, keepdims=True)).T
    return float(np.quantile(np.partition(needed, -rare, axis=1)[:, -rare], power))
