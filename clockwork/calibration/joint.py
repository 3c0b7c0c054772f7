"""Ridge regression of maps that read both halves of guidance.

The targets `y₋` and `y₊` are regressed on the same inputs `z = (x₋, x₊)`. With `A = Σ z zᵀ` and `Bᵢ = Σ z yᵢᵀ`, the
minimum of `Σᵢⱼ Kᵢⱼ eᵢ · eⱼ` then solves `A Wᵢ = Bᵢ` for every `K` (regressions on equal regressors, Zellner 1962). So
the maps depend neither on the guidance scale nor on the weight of the guided error. `K` still decides on the ridge, and
on what a rank leaves out.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from clockwork.calibration.least_squares import NormalEquations
from clockwork.calibration.statistics import Moments


@dataclass(frozen=True)
class JointEquations(NormalEquations):
    """The equations of maps `W` from both halves' inputs to both halves' outputs, side by side.

    The inputs are those of the unconditional half, those of the conditional half, and one constant.

    Attributes:
        a: `inputs × inputs`.
        b: `inputs × num_halves outputs`, before the error is weighted.
    """

    @classmethod
    def of(cls, moments: Moments, weights: Tensor) -> Self:
        """Returns the equations of some observations; arguments are those of `NormalEquations.of`."""
        xx, xy, yy = moments.blocks()
        a, b = xx.transpose(1, 2).flatten(2).flatten(0, 1), xy.transpose(1, 2).flatten(2).flatten(0, 1)
        # Each half has a constant of its own, and one is enough.
        inputs = torch.tensor([i for i in range(len(a)) if i != moments.num_inputs - 1], device=a.device)
        k = weights.to(a)
        return cls(a[inputs][:, inputs], b[inputs], (k * yy).sum(), k)

    def error(self, maps: Tensor) -> float:
        """Returns the weighted squared error of maps, `inputs × num_halves outputs`, over all observations."""
        return float(((self.a @ maps - 2 * self.b) * self._weighted(maps)).sum() + self.constant)

    def of_halves(self, maps: Tensor) -> Tensor:
        """Returns maps from `solve` by half, `num_halves × inputs × outputs`; all read the same inputs."""
        return maps.unflatten(1, (self.num_halves, -1)).transpose(0, 1)

    def targets(self) -> Tensor:
        """Returns `Σⱼ Kᵢⱼ Bⱼ` by half, `num_halves × inputs × outputs`."""
        return self.of_halves(self._weighted(self.b))

    def _weighted(self, maps: Tensor) -> Tensor:
        """Multiplies the halves' columns, `… × num_halves outputs`, by `K`."""
        return torch.einsum("nik,ij->njk", maps.unflatten(1, (self.num_halves, -1)), self.weights).flatten(1)
