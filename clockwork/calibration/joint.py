"""Ridge regression of maps that read all branches of guidance.

The targets `yᵢ` are regressed on the same inputs, those of all branches, `z = (x₋, x₊)` for two. With `A = Σ z zᵀ` and
`Bᵢ = Σ z yᵢᵀ`, the minimum of `Σᵢⱼ Kᵢⱼ eᵢ · eⱼ` then solves `A Wᵢ = Bᵢ` for every `K` (regressions on equal regressors,
Zellner 1962). So the maps depend neither on the guidance scale nor on the weight of the guided error. `K` still decides
on the ridge, and on what a rank leaves out.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from clockwork.calibration.least_squares import NormalEquations
from clockwork.calibration.statistics import Moments


@dataclass(frozen=True)
class JointEquations(NormalEquations):
    """The equations of maps `W` from all branches' inputs to all branches' outputs, side by side.

    The inputs are those of one branch after another, and one constant.

    Attributes:
        a: `inputs × inputs`.
        b: `inputs × num_branches outputs`, before the error is weighted.
    """

    @classmethod
    def of(cls, moments: Moments, weights: Tensor) -> Self:
        """Returns the equations of some observations; arguments are those of `NormalEquations.of`."""
        xx, xy, yy = moments.blocks()
        a, b = xx.transpose(1, 2).flatten(2).flatten(0, 1), xy.transpose(1, 2).flatten(2).flatten(0, 1)
        # Each branch has a constant of its own, and one is enough: the last.
        constants = range(moments.num_inputs - 1, len(a) - 1, moments.num_inputs)
        inputs = torch.tensor([i for i in range(len(a)) if i not in constants], device=a.device)
        k = weights.to(a)
        return cls(a[inputs][:, inputs], b[inputs], (k * yy).sum(), k)

    def error(self, maps: Tensor) -> float:
        """Returns the weighted squared error of maps, `inputs × num_branches outputs`, over all observations."""
        return float(((self.a @ maps - 2 * self.b) * self._weighted(maps)).sum() + self.constant)

    def of_branches(self, maps: Tensor) -> Tensor:
        """Returns maps from `solve` by branch, `num_branches × inputs × outputs`; all read the same inputs."""
        return maps.unflatten(1, (self.num_branches, -1)).transpose(0, 1)

    def targets(self) -> Tensor:
        """Returns `Σⱼ Kᵢⱼ Bⱼ` by branch, `num_branches × inputs × outputs`."""
        return self.of_branches(self._weighted(self.b))

    def _weighted(self, maps: Tensor) -> Tensor:
        """Multiplies the branches' columns, `… × num_branches outputs`, by `K`."""
        return torch.einsum("nik,ij->njk", maps.unflatten(1, (self.num_branches, -1)), self.weights).flatten(1)
