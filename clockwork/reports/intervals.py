"""Intervals of differences: by resampling prompts where figures are of single images, else over rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clockwork.errors import import_extra

CONFIDENCE = 0.95
RESAMPLES = 5000


@dataclass(frozen=True)
class Interval:
    """An estimated difference with its 95% confidence interval.

    Attributes:
        difference: The estimate.
        low: Lower end; minus infinity if the spread is not known.
        high: Upper end; infinity if the spread is not known.
    """

    difference: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the difference is beyond its spread."""
        return self.low > 0 or self.high < 0

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low)

    def negated(self) -> "Interval":
        """Returns the interval of the difference in the other direction."""
        return Interval(-self.difference, -self.high, -self.low)


def paired_bootstrap(differences: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Computes the interval of a mean difference by resampling (Efron 1987, BCa).

    Args:
        differences: Difference of each prompt, `prompts`.
        resamples: Number of resamples.
        seed: Of the resampling.

    Returns:
        The mean and its interval, which has no width if all differences are equal, and is not known of one prompt.
    """
    difference = float(differences.mean())
    if len(differences) < 2:
        return Interval(difference, -math.inf, math.inf)
    if np.ptp(differences) == 0:
        return Interval(difference, difference, difference)
    stats = import_extra("scipy.stats", "report")
    result = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // len(differences)),  # numbers in memory
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(seed),
    )
    return Interval(difference, *map(float, result.confidence_interval))


def welch(values: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray) -> Interval:
    """Computes the interval of the difference of two means with unequal variances (Welch 1947).

    Args:
        values: A figure in each row of an operating point.
        others: As `values`, of another operating point.

    Returns:
        The difference of the means and its interval, which is not known if an operating point has a single row.
    """
    difference = float(np.mean(values) - np.mean(others))
    if min(len(values), len(others)) < 2:
        return Interval(difference, -math.inf, math.inf)
    if np.ptp(values) == 0 and np.ptp(others) == 0:
        return Interval(difference, difference, difference)
    result = import_extra("scipy.stats", "report").ttest_ind(values, others, equal_var=False)
    return Interval(difference, *map(float, result.confidence_interval(CONFIDENCE)))
