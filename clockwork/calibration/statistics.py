"""Sums from which a step's maps are solved. Features are added up and never stored.

Each position of each caption is one observation: the inputs `x` of every half of guidance, among them a constant 1, and
the target `y = r_out − r_out_prev` of every half. All that least squares need of the observations is the matrix of
second moments of `(x₋, x₊, y₋, y₊)`. It does not depend on the guidance scale, nor on the order or the batches in which
observations were added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clockwork.io.distributed import sum_over_processes


@dataclass(frozen=True)
class Moments:
    """Sums of products over the observations of one step, in float64.

    Attributes:
        num_halves: Halves of guidance, 1 or 2.
        num_inputs: Number of inputs of one half, the constant included.
        products: Sums of the products of `(x₋, x₊, y₋, y₊)`, `width × width`; those with `y` last.
        r_out: Sums of the products of `r_out` of the halves, over its channels, `num_halves × num_halves`.
        count: Number of observations.
    """

    num_halves: int
    num_inputs: int
    products: Tensor
    r_out: Tensor
    count: int = 0

    @classmethod
    def zeros(cls, num_halves: int, num_inputs: int, num_outputs: int, device: torch.device | str = "cpu") -> "Moments":
        """Returns the sums of no observations.

        Args:
            num_halves: Halves of guidance, 1 or 2.
            num_inputs: Number of inputs of one half, the constant included.
            num_outputs: Number of channels of the target.
            device: Where the sums are kept.
        """
        width = num_halves * (num_inputs + num_outputs)
        products = torch.zeros(width, width, dtype=torch.float64, device=device)
        r_out = torch.zeros(num_halves, num_halves, dtype=torch.float64, device=device)
        return cls(num_halves, num_inputs, products, r_out)

    def add(self, x: Sequence[Tensor], y: Sequence[Tensor], r_out: Sequence[Tensor]) -> "Moments":
        """Adds observations.

        Args:
            x: Inputs of each half without the constant, `observations × inputs`, in any precision.
            y: Targets of each half, `observations × outputs`.
            r_out: `r_out` of each half, of the shape of `y`.

        Returns:
            The new sums.
        """
        x, y, r_out = ([part.to(self.products.device).double() for part in parts] for parts in (x, y, r_out))
        one = torch.ones(len(x[0]), 1, dtype=torch.float64, device=self.products.device)
        columns = torch.cat([*(torch.cat([part, one], 1) for part in x), *y], 1)
        flat = torch.stack([part.flatten() for part in r_out])
        return self._replaced(self.products + columns.T @ columns, self.r_out + flat @ flat.T, len(columns))

    def _replaced(self, products: Tensor, r_out: Tensor, more: int) -> "Moments":
        """Returns new sums, of `more` further observations."""
        return Moments(self.num_halves, self.num_inputs, products, r_out, self.count + more)

    def __add__(self, other: "Moments") -> "Moments":
        return self._replaced(self.products + other.products, self.r_out + other.r_out, other.count)

    def over_processes(self) -> "Moments":
        """Returns the sums over all processes, the same on each. Every process has to call it."""
        device, own_count = self.products.device, torch.tensor([self.count])
        products, r_out = (sum_over_processes(part).to(device) for part in (self.products, self.r_out))
        return self._replaced(products, r_out, int(sum_over_processes(own_count)) - self.count)

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the sums by half.

        Returns:
            `x xᵀ`, `num_halves × num_halves × inputs × inputs`; `x yᵀ`, `… × inputs × outputs`; and `y yᵀ` summed over
            channels, `num_halves × num_halves`.
        """
        num, n = self.num_halves, self.num_inputs
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
        sizes = torch.tensor([self.num_halves, self.num_inputs, self.count])
        return {f"{prefix}.products": self.products, f"{prefix}.r_out": self.r_out, f"{prefix}.sizes": sizes}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> "Moments":
        """Reads what `to_tensors` returned.

        Args:
            tensors: Named tensors.
            prefix: Start of the names.
        """
        num_halves, inputs, count = (int(size) for size in tensors[f"{prefix}.sizes"])
        return cls(num_halves, inputs, tensors[f"{prefix}.products"], tensors[f"{prefix}.r_out"], count)
