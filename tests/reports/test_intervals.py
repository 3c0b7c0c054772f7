"""Intervals hold what they promise: their coverage on known distributions, scipy's own figures, a known shift."""

import numpy as np
import pytest
from scipy import stats

from clockwork.reports.intervals import Interval, paired_bootstrap, welch


@pytest.mark.parametrize("noise", ["normal", "exponential"])
def test_intervals_cover_the_true_difference_at_their_rate(noise: str) -> None:
    """Of 400 data sets of 100 prompts, near 95% of the intervals hold the true mean (its own spread: 1.1%)."""
    rng = np.random.default_rng(0)
    true = 0.0 if noise == "normal" else 1.0
    samples = getattr(rng, f"standard_{noise}")((400, 100))
    intervals = [paired_bootstrap(sample, resamples=600) for sample in samples]
    assert 0.91 <= np.mean([interval.low <= true <= interval.high for interval in intervals]) <= 0.985


def test_a_planted_shift_is_resolved_and_none_is_not_invented() -> None:
    """Figures of prompts differ by far more than two operating points do, which is why differences are paired."""
    rng = np.random.default_rng(1)
    prompts, noise = rng.normal(0.3, 0.05, 500), rng.normal(0, 0.01, (2, 500))
    shifted = paired_bootstrap((prompts + 0.003 + noise[0]) - (prompts + noise[1]))
    assert shifted.low < 0.003 < shifted.high and shifted.excludes_zero
    unpaired = stats.ttest_ind(prompts + 0.003 + noise[0], prompts + noise[1]).confidence_interval()
    assert unpaired.low < 0 < unpaired.high, "without pairs the same shift is not resolved"
    same = paired_bootstrap(noise[0] - noise[1])
    assert same.low < 0 < same.high and not same.excludes_zero


def test_two_evaluations_of_one_point_overlap() -> None:
    """In nearly all of 100 resamples of the prompts, intervals of two seeds of one point overlap, and a shift of one of
    them by five standard errors separates them."""
    rng = np.random.default_rng(2)
    prompts = rng.normal(0.9, 0.05, 300)
    seeds = prompts + rng.normal(0, 0.02, (2, 300))
    overlaps, shift = [], 5 * seeds[0].std() / 300**0.5
    for chosen in rng.integers(0, 300, (100, 300)):
        first, second, shifted = (paired_bootstrap(x[chosen], 200) for x in (*seeds, seeds[1] + shift))
        overlaps.append((overlap(first, second), overlap(first, shifted)))
    assert np.sum(overlaps, axis=0)[0] >= 95 and np.sum(overlaps, axis=0)[1] <= 15


def overlap(a: Interval, b: Interval) -> bool:
    return a.low <= b.high and b.low <= a.high


def test_equal_images_differ_by_nothing() -> None:
    assert paired_bootstrap(np.zeros(5)) == Interval(0.0, 0.0, 0.0)
    assert not paired_bootstrap(np.array([0.5])).is_known, "one prompt has no spread"


def test_rows_are_compared_by_welchs_interval() -> None:
    """By the textbook: degrees of freedom of Welch and Satterthwaite; and a single row has no spread."""
    a, b = np.array([5.0, 5.2, 5.4]), np.array([6.0, 6.1, 6.5])
    errors = [x.var(ddof=1) / 3 for x in (a, b)]
    freedom = sum(errors) ** 2 / sum(error**2 / 2 for error in errors)
    half = stats.t.ppf(0.975, freedom) * sum(errors) ** 0.5
    interval = welch(a, b)
    assert (interval.low, interval.high) == pytest.approx((-1.0 - half, -1.0 + half))
    assert interval.excludes_zero and interval.negated().low == -interval.high
    assert not welch([5.0], b).is_known and not welch([5.0], b).excludes_zero
