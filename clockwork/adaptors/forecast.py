"""Forecasters: adaptors without weights that extrapolate `r_out` from the last full steps.

Both sum backward differences of `r_out` between full steps, which approximate its derivatives by the step, with
coefficients that depend on the distance to the latest full step. The features and the prompt of the current step are
not read.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import factorial
from typing import Any, TypeVar, final

from torch import Tensor

from clockwork.adaptors.base import ANY_DIMS, Adaptor, FeatureDims
from clockwork.adaptors.history import FullStep
from clockwork.errors import UserError

ORDERS = (1, 2)
Scalar = TypeVar("Scalar", float, Tensor)


@final
class Taylor(Adaptor, kind="taylor"):
    """A Taylor series of `r_out` at the latest full step: TaylorSeer (Liu et al. 2025, arXiv:2503.06923).

    With full steps s₀ > s₁ > s₂, the forecast for step s₀ + k is

        F(s₀) + Σᵢ Δⁱ(s₀) kⁱ / i!,  i = 1 … order,
        Δ⁰(sⱼ) = F(sⱼ),  Δⁱ(sⱼ) = (Δⁱ⁻¹(sⱼ) − Δⁱ⁻¹(sⱼ₊₁)) / (sⱼ − sⱼ₊₁).

    The paper has full steps at equal distances; its authors' code divides by the distance of each pair, as above.
    Features that are linear in the step are forecast exactly, at any distances. A quadratic is not, not even with
    order 2: F(s) = s² gives an error of −(s₀ − s₁) k at equal distances, because Δ¹ is the slope halfway between two
    full steps instead of the one at s₀.

    With fewer than `order` + 1 full steps the order is lower; with one, the result is that of the identity adaptor.

    Args:
        dims: Dimensions of the features, which are stored but not used.
        order: Order of the series, 1 or 2.

    Raises:
        UserError: If the order is another one.
    """

    has_weights = False

    def __init__(self, dims: FeatureDims = ANY_DIMS, order: int = 1) -> None:
        super().__init__(dims, ("full_steps", "step"))
        self.order, self.num_full_steps = _checked_order(order), order + 1

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain data."""
        return {**super().config(), "order": self.order}

    def forward(self, *_: Tensor | None, full_steps: tuple[FullStep, ...], step: int | Tensor) -> Tensor:
        """Estimates `r_out`; arguments and result as in `Adaptor.forward`."""
        return _extrapolate(full_steps, step, self.order, lambda i, k: k**i)


@final
class Hermite(Adaptor, kind="hermite"):
    """The series of `Taylor` with damped Hermite polynomials for powers: HiCache (Feng et al. 2025, arXiv:2508.16984).

    The forecast for step s₀ + k is F(s₀) + Σᵢ Δⁱ(s₀) H̃ᵢ(k) / i! with the differences of `Taylor` and

        H̃ᵢ(k) = σⁱ Hᵢ(σ k),  H₀(x) = 1,  H₁(x) = 2x,  Hᵢ₊₁(x) = 2x Hᵢ(x) − 2i Hᵢ₋₁(x),

    the physicists' Hermite polynomials. The contraction factor σ scales both the argument and the result: H̃₁(k) = 2σ² k
    is half of Taylor's slope at σ = 0.5, and Taylor's at σ = √½.

    Args:
        dims: Dimensions of the features, which are stored but not used.
        order: Order of the series, 1 or 2.
        sigma: The contraction factor σ, above 0 and below 1. The authors' code uses 0.5 with order 2.

    Raises:
        UserError: If the order or the contraction factor is another one.
    """

    has_weights = False

    def __init__(self, dims: FeatureDims = ANY_DIMS, order: int = 2, sigma: float = 0.5) -> None:
        super().__init__(dims, ("full_steps", "step"))
        if not 0 < sigma < 1:
            raise UserError(f"sigma={sigma} is not a contraction factor: use one above 0 and below 1")
        self.order, self.num_full_steps, self.sigma = _checked_order(order), order + 1, sigma

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain data."""
        return {**super().config(), "order": self.order, "sigma": self.sigma}

    def forward(self, *_: Tensor | None, full_steps: tuple[FullStep, ...], step: int | Tensor) -> Tensor:
        """Estimates `r_out`; arguments and result as in `Adaptor.forward`."""
        return _extrapolate(
            full_steps, step, self.order, lambda i, k: self.sigma**i * physicists_hermite(i, self.sigma * k)
        )


def physicists_hermite(n: int, x: Scalar) -> Scalar:
    """Evaluates a physicists' Hermite polynomial by its recurrence.

    Args:
        n: Degree of the polynomial, from 0.
        x: Where it is evaluated.
    """
    previous, current = 0 * x, 0 * x + 1
    for i in range(n):
        previous, current = current, 2 * x * current - 2 * i * previous
    return current


def backward_differences(full_steps: Sequence[FullStep], order: int) -> list[Tensor]:
    """Computes Δⁱ of `Taylor` at the latest full step.

    Args:
        full_steps: Full steps, the latest first, at least one.
        order: The highest order.

    Returns:
        Δ⁰, which is `r_out` itself, Δ¹, …, up to `order` or as far as there are full steps,
        `batch × channels × height × width` each.
    """
    distances = [later.step - earlier.step for later, earlier in pairwise(full_steps)]
    column = [full.r_out for full in full_steps[: order + 1]]
    differences = [column[0]]
    while len(column) > 1:
        column = [
            (later - earlier) / distance
            for (later, earlier), distance in zip(pairwise(column), distances, strict=False)
        ]
        differences.append(column[0])
    return differences


def _extrapolate(
    full_steps: Sequence[FullStep], step: int | Tensor, order: int, basis: Callable[[int, Any], Any]
) -> Tensor:
    """Sums Δⁱ basis(i, k) / i!, where k is the distance to the latest full step."""
    if not full_steps:
        raise UserError("this adaptor extrapolates from full steps, but none came before: start with a full step")
    r_out, *differences = backward_differences(full_steps, order)
    for i, difference in enumerate(differences, 1):
        r_out = r_out + difference * (basis(i, step - full_steps[0].step) / factorial(i))
    return r_out


def _checked_order(order: int) -> int:
    """Returns the order, or refuses it."""
    if type(order) is not int or order not in ORDERS:
        raise UserError(f"order={order} is not possible: a forecast has order 1 or 2")
    return order
