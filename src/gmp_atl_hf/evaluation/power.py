"""The smallest difference that a paired comparison over speakers could have seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t

from .metrics import FloatArray

ALPHA = 0.05
"""Two-sided level of the test."""

POWER = 0.8
"""Chance with which the smallest visible difference gives a p value below the level."""


def smallest_visible_difference(
    groups: Sequence[FloatArray], alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """Return the true difference that a test like this one would find with the given power.

    With `d_c` the differences of the `n_c` speakers of corpus `c`, `v_c = variance(d_c) / n_c` (variance with
    `n_c - 1`) and `C` corpora, the standard error of the mean over corpora of the mean over speakers is
    `SE = sqrt(sum(v_c)) / C`, with `df = sum(v_c)² / sum(v_c² / (n_c - 1))` degrees of freedom (Satterthwaite). The
    result is `(t(1 - alpha / 2, df) + t(power, df)) · SE`, `t` the quantile of Student's distribution. It depends on
    how much speakers differ from each other, not on the difference that was found.

    Args:
        groups: Differences of the speakers of each corpus, one float64 array (speakers,) each.
        alpha: Two-sided level of the test.
        power: Chance to be found.

    Returns:
        The difference in the unit of `groups`; None where nothing can be said: a corpus with one speaker, speakers
        who do not differ, or so few that no pattern of signs has a p value as low as the level.

    Raises:
        ValueError: If there is no group, or one is empty.
    """
    if not groups or any(group.size == 0 for group in groups):
        raise ValueError("no differences: each group needs at least one speaker")
    sizes = np.array([group.size for group in groups])
    if sizes.min() < 2 or 2.0 ** (1 - int(sizes.sum())) > alpha:
        return None
    variances = np.array([group.var(ddof=1) for group in groups]) / sizes
    error = float(np.sqrt(variances.sum())) / len(groups)
    if error < 1e-12:  # equal differences, computed in two orders of additions
        return None
    freedom = variances.sum() ** 2 / (variances**2 / (sizes - 1)).sum()
    return float(student_t.ppf(1 - alpha / 2, freedom) + student_t.ppf(power, freedom)) * error
