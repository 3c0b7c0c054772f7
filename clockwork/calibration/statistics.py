"""Sums from which a step's maps are solved. Features are added up and never stored.

Each position of each caption is one observation: the inputs `x` of every branch of guidance, with a constant 1 among
them, and the target `y = r_out − r_out_prev` of every branch. All that least squares need of the observations is the
matrix of second moments of all `x` and `y`, which are `(x₋, x₊, y₋, y₊)` for two branches. It does not depend on the
guidance scale, nor on the order or the batches in which observations were added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clockwork.io.distributed import sum_over_processes, world_size

BLOCK = 2048  # observations per product: their copy in float64 is small beside the sums


@dataclass(frozen=True)
class Moments:
    """Sums of products over the observations of one step, in float64.

    Attributes:
        num_branches: Number of branches of guidance, 1 without guidance.
        num_inputs: Number of inputs of one branch, the constant included.
        products: Sums of the products of all `x` and `y`, `width × width`; those with `y` last.
        r_out: Sums of the products of `r_out` of the branches, over its channels, `num_branches × num_branches`.
        count: Number of observations.
    """

    num_branches: int
    num_inputs: int
    products: Tensor
    r_out: Tensor
    count: int = 0

    @classmethod
    def zeros(
        cls, num_branches: int, num_inputs: int, num_outputs: int, device: torch.device | str = "cpu"
    ) -> "Moments":
        """Returns the sums of no observations.

        Args:
            num_branches: Number of branches of guidance, 1 without guidance.
            num_inputs: Number of inputs of one branch, the constant included.
            num_outputs: Number of channels of the target.
            device: Where the sums are kept.
        """
        width = num_branches * (num_inputs + num_outputs)
        products = torch.zeros(width, width, dtype=torch.float64, device=device)
        r_out = torch.zeros(num_branches, num_branches, dtype=torch.float64, device=device)
        return cls(num_branches, num_inputs, products, r_out)

    def add(self, x: Sequence[Tensor], y: Sequence[Tensor], r_out: Sequence[Tensor]) -> "Moments":
        """Adds observations.

        Args:
            x: Inputs of each branch without the constant, `observations × inputs`, in any precision.
            y: Targets of each branch, `observations × outputs`.
            r_out: `r_out` of each branch, of the shape of `y`.

        Returns:
            The new sums.
        """
        count = len(x[0])
        if count == 0:
            return self
        products, sums_of_r_out = self.products.clone(), self.r_out.clone()
        ones = x[0].new_ones(count, 1)
        parts = [*(part for inputs in x for part in (inputs, ones)), *y]
        for start in range(0, count, BLOCK):
            rows = slice(start, start + BLOCK)
            columns = torch.cat([part[rows].to(products.device, torch.float64) for part in parts], 1)
            products.addmm_(columns.T, columns)
            flat = torch.stack([part[rows].to(products.device, torch.float64).flatten() for part in r_out])
            sums_of_r_out.addmm_(flat, flat.T)
        return self._replaced(products, sums_of_r_out, count)

    def to(self, device: torch.device | str) -> "Moments":
        """Moves the sums.

        Args:
            device: The device, which has to know float64.
        """
        return self._replaced(self.products.to(device), self.r_out.to(device), 0)

    def is_finite(self) -> bool:
        """Whether no observation held NaN or infinity."""
        return bool(self.products.isfinite().all()) and bool(self.r_out.isfinite().all())

    def _replaced(self, products: Tensor, r_out: Tensor, more: int) -> "Moments":
        """Returns new sums, of `more` further observations."""
        return Moments(self.num_branches, self.num_inputs, products, r_out, self.count + more)

    def __add__(self, other: "Moments") -> "Moments":
        return self._replaced(self.products + other.products, self.r_out + other.r_out, other.count)

    def over_processes(self) -> "Moments":
        """Returns the sums over all processes, the same on each. Every process has to call it."""
        if world_size() == 1:
            return self
        device, count = self.products.device, torch.tensor([self.count])
        products, r_out = (sum_over_processes(part).to(device) for part in (self.products, self.r_out))
        return self._replaced(products, r_out, int(sum_over_processes(count)) - self.count)

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the sums by branch.

        Returns:
            `x xᵀ`, `num_branches × num_branches × inputs × inputs`; `x yᵀ`, `… × inputs × outputs`; and `y yᵀ` summed
            over channels, `num_branches × num_branches`.
        """
        num, n = self.num_branches, self.num_inputs
        split = num * n
        xx = self.products[:split, :split].reshape(num, n, num, n).transpose(1, 2)
        xy = self.products[:split, split:].reshape(num, n, num, -1).transpose(1, 2)
        yy = self.products[split:, split:].reshape(num, xy.shape[-1], num, -1).transpose(1, 2)
        return xx, xy, yy.diagonal(dim1=-2, dim2=-1).sum(-1)

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """Returns the sums as named tensors, for a file.

        Args:
            prefix: Start of the names.
        """
        sizes = torch.tensor([self.num_branches, self.num_inputs, self.count])
        return {f"{prefix}.products": self.products, f"{prefix}.r_out": self.r_out, f"{prefix}.sizes": sizes}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> "Moments":
        """Reads what `to_tensors` returned.

        Args:
            tensors: Named tensors.
            prefix: Start of the names.
        """
        num_branches, inputs, count = (int(size) for size in tensors[f"{prefix}.sizes"])
        return cls(num_branches, inputs, tensors[f"{prefix}.products"], tensors[f"{prefix}.r_out"], count)
