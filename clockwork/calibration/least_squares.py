"""Weighted ridge regression of all branches of guidance at once.

With the branches' errors `eᵢ`, least squares minimise `Σᵢ |eᵢ|² + w |Σᵢ cᵢ eᵢ|²`: the last is the error that guidance
makes of all, where `cᵢ` are the weights of the branches in the guided prediction, `(1 − g, g)` for two halves and the
scale `g`. In matrix form it is `Σᵢⱼ Kᵢⱼ eᵢ · eⱼ` with `K = I + w c cᵀ`, so the normal equations of all maps together
are `A W = B` with blocks `Aᵢⱼ = Kᵢⱼ Σ xᵢ xⱼᵀ` and `Bᵢ = Σⱼ Kᵢⱼ Σ xᵢ yⱼᵀ`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from clockwork.calibration.statistics import Moments
from clockwork.errors import UserError

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
DEFAULT_RIDGE = 1e-3
SINGULAR = 1e-5  # an input that the others give up to this share of its size is not independent in float32


def error_weights(guidance: Sequence[float], guided_weight: float) -> Tensor:
    """Returns the matrix `K` of the error's quadratic form, `num_branches × num_branches`.

    Args:
        guidance: Weights `c` of the branches in the guided prediction; `(1,)` without guidance.
        guided_weight: Weight `w` of the guided error; without guidance there is none.
    """
    identity = torch.eye(len(guidance), dtype=torch.float64)
    return identity if len(guidance) == 1 else identity + guided_weight * _outer(guidance)


def _outer(guidance: Sequence[float]) -> Tensor:
    """Returns `c cᵀ`."""
    c = torch.tensor(guidance, dtype=torch.float64)
    return torch.outer(c, c)


@dataclass(frozen=True)
class NormalEquations:
    """The quadratic form of the weighted error in the maps `W`: `tr(Wᵀ A W) − 2 tr(Wᵀ B) + constant`.

    Attributes:
        a: `num_branches inputs × num_branches inputs`.
        b: `num_branches inputs × outputs`.
        constant: The error of maps that are zero, which is that of the identity adaptor; a scalar.
        weights: The matrix `K`, `num_branches × num_branches`.
    """

    a: Tensor
    b: Tensor
    constant: Tensor
    weights: Tensor

    @property
    def num_branches(self) -> int:
        """Number of branches of guidance, 1 without guidance."""
        return len(self.weights)

    @classmethod
    def of(cls, moments: Moments, weights: Tensor) -> Self:
        """Returns the equations of some observations.

        Args:
            moments: Sums over the observations.
            weights: The matrix `K`, `num_branches × num_branches`.
        """
        xx, xy, yy = moments.blocks()
        k = weights.to(xx)
        a = (k[:, :, None, None] * xx).transpose(1, 2).flatten(2).flatten(0, 1)
        b = (k[:, :, None, None] * xy).sum(1).flatten(0, 1)
        return cls(a, b, (k * yy).sum(), k)

    def error(self, maps: Tensor) -> float:
        """Returns the weighted squared error of maps, `num_branches inputs × outputs`, over all observations."""
        return float(((self.a @ maps - 2 * self.b) * maps).sum() + self.constant)

    def solve(self, ridge: float) -> Tensor:
        """Solves `(A + ridge diag A) W = B`.

        Args:
            ridge: Strength of the ridge, relative to each input's own scale.

        Returns:
            The maps, `num_branches inputs × outputs`.
        """
        scale = self._scale()
        scaled = self.a / scale[:, None] / scale
        scaled.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(scaled)
        solution: Tensor = torch.cholesky_solve(self.b / scale[:, None], factor) / scale[:, None]
        return solution

    def is_singular(self) -> bool:
        """Whether the inputs determine no single solution without a ridge, for example because two are equal.

        Inputs that are always zero do not count: their maps are zero.
        """
        scale = self._scale()
        never_zero = self.a.diagonal() > 0
        scaled = (self.a / scale[:, None] / scale)[never_zero][:, never_zero]
        factor, failed = torch.linalg.cholesky_ex(scaled)
        return bool(failed) or float(factor.diagonal().min()) < SINGULAR

    def reduce_rank(self, maps: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Returns the factors of the best maps of a rank: reduced-rank regression (Izenman 1975).

        With the ridge's matrix `M = A + ridge diag A`, which `M W = B` solves, maps `V` have the error
        `tr((V − W)ᵀ M (V − W))` above that of `W`. So the best of a rank project `W` onto the first eigenvectors of
        `Wᵀ M W = Wᵀ B`. The branches share the second factor.

        Args:
            maps: The maps of full rank by branch, from `of_branches`.
            rank: Rank of the product.

        Returns:
            `num_branches × inputs × rank` and `rank × outputs`.
        """
        gain = maps.flatten(0, 1).T @ self.targets().flatten(0, 1)
        directions = torch.linalg.eigh(gain)[1][:, -rank:]  # eigenvalues ascend
        return maps @ directions, directions.T

    def targets(self) -> Tensor:
        """Returns `B` by branch, `num_branches × inputs × outputs`."""
        return self.of_branches(self.b)

    def of_branches(self, maps: Tensor) -> Tensor:
        """Returns maps from `solve` by branch, `num_branches × inputs × outputs`.

        Args:
            maps: The maps.
        """
        return maps.unflatten(0, (-1, len(maps) // self.num_branches))

    def _scale(self) -> Tensor:
        """Returns the root of A's diagonal, with 1 in place of 0 for an input that is always zero."""
        diagonal = self.a.diagonal().clamp(min=0).sqrt()
        return torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal))


@dataclass(frozen=True)
class StepFit:
    """The fit of one adaptor step.

    Attributes:
        step: The step, from 1.
        ridge: Strength of the ridge that was chosen.
        singular: Whether only the ridge made the solution unique.
        error: Guided relative L2 error of the maps on captions that were held out, ‖e‖₂ / ‖r_out‖₂, where `e` and
            `r_out` are those after guidance; on all captions if none were held out.
        identity_error: That of the identity adaptor, on the same latents.
        observations: Number of positions over all captions.
    """

    step: int
    ridge: float
    singular: bool
    error: float
    identity_error: float
    observations: int


def fit_step(
    step: int,
    fitted: Moments,
    held_out: Moments,
    guidance: Sequence[float],
    guided_weight: float = 1.0,
    ridges: Sequence[float] = RIDGES,
    kind: type[NormalEquations] = NormalEquations,
) -> tuple[Tensor, NormalEquations, StepFit]:
    """Fits the maps of one step: the ridge by the error on held-out captions, then the maps on all captions.

    Args:
        step: The step, from 1.
        fitted: Sums over the captions that the ridges are tried on.
        held_out: Sums over those that choose between them; they may be of no observations.
        guidance: Weights of the branches in the guided prediction; `(1,)` without guidance.
        guided_weight: Weight of the guided error.
        ridges: Strengths to choose from. If no captions are held out, the only one, or else `DEFAULT_RIDGE`.
        kind: The equations to solve: `JointEquations` for maps that read all branches.

    Returns:
        The maps, `num_branches × inputs × outputs`, the equations that they solve, and the figures of the fit.
    """
    weights, guided_weights = error_weights(guidance, guided_weight), _outer(guidance)
    tried = kind.of(fitted, weights)
    judged = held_out if held_out.count else fitted
    guided = kind.of(judged, guided_weights)
    if not held_out.count and len(ridges) > 1:
        ridges = (DEFAULT_RIDGE,)
    solutions = {strength: tried.solve(strength) for strength in ridges}
    chooser = kind.of(judged, weights)
    ridge = min(solutions, key=lambda strength: chooser.error(solutions[strength]))
    size = max(float((guided_weights.to(judged.r_out) * judged.r_out).sum()), 1e-300)
    error, identity_error = (
        (max(e, 0.0) / size) ** 0.5 for e in (guided.error(solutions[ridge]), float(guided.constant))
    )
    equations = kind.of(fitted + held_out, weights) if held_out.count else tried
    maps = equations.solve(ridge) if held_out.count else solutions[ridge]
    singular = equations.is_singular()
    fit = StepFit(step, ridge, singular, error, identity_error, fitted.count + held_out.count)
    return equations.of_branches(maps), equations, fit


def require_enough_captions(captions: int, num_inputs: int, positions: int) -> None:
    """Checks that there are as many observations as each map has inputs.

    Args:
        captions: Number of captions, of all processes.
        num_inputs: Number of inputs of a map, the constant included.
        positions: Number of positions of `r_out`, each of which is an observation.

    Raises:
        UserError: If there are fewer.
    """
    needed = -(-num_inputs // positions)
    if captions < needed:
        raise UserError(
            f"{captions} captions are too few: the maps have {num_inputs} inputs and a caption has {positions} "
            f"positions, so calibrate with at least {needed}"
        )
