"""The squared maximum mean discrepancy of two sets of features, without bias (Gretton et al. 2012, equation 3)."""

from abc import abstractmethod
from collections.abc import Callable
from functools import lru_cache

from torch import Tensor

from clockwork.metrics.reference import Reference, SetMetric

Kernel = Callable[[Tensor, Tensor], Tensor]
ROWS = 1000  # of a kernel's matrix that are in memory at once


class MMD(SetMetric):
    """Maximum mean discrepancy to a reference set, over all pairs of images.

    Arguments as in `SetMetric`.
    """

    min_images = 2
    scale = 1.0  # of the figure

    @staticmethod
    @abstractmethod
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        """Computes the kernel of all pairs.

        Args:
            a: Features in float64, `n × width`.
            b: As `a`, `m × width`.

        Returns:
            `n × m`.
        """

    def figure(self, features: Tensor) -> float:
        others = self.reference.features
        within = mean_within(features, self.kernel) + _mean_within_reference(self.reference, self.kernel)
        return self.scale * (within - 2 * _sum(features, others, self.kernel) / (len(features) * len(others)))


def unbiased_mmd(a: Tensor, b: Tensor, kernel: Kernel) -> float:
    """Estimates the squared maximum mean discrepancy of two sets.

    Args:
        a: Features `n × width`, n ≥ 2.
        b: Features `m × width`, m ≥ 2.
        kernel: Computes a matrix `rows × columns` of values of the kernel.

    Returns:
        The estimate, which may be negative.
    """
    return mean_within(a, kernel) + mean_within(b, kernel) - 2 * _sum(a, b, kernel) / (len(a) * len(b))


def mean_within(features: Tensor, kernel: Kernel) -> float:
    """Computes the mean of a kernel over the pairs of different elements of a set.

    Args:
        features: `count × width`.
        kernel: The kernel.
    """
    return _sum(features, features, kernel, without_diagonal=True) / (len(features) * (len(features) - 1))


@lru_cache(maxsize=4)
def _mean_within_reference(reference: Reference, kernel: Kernel) -> float:
    """As `mean_within`, computed once per reference: a sweep has many rows."""
    return mean_within(reference.features, kernel)


def _sum(a: Tensor, b: Tensor, kernel: Kernel, without_diagonal: bool = False) -> float:
    """Sum of a kernel over all pairs, in float64."""
    total, columns = 0.0, b.double()
    for start in range(0, len(a), ROWS):
        values = kernel(a[start : start + ROWS].double(), columns)
        total += float(values.sum() - (values.diagonal(start).sum() if without_diagonal else 0))
    return total
