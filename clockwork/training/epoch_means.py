"""Means of an epoch's figures, summed on the device, so that no training step waits for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Figure:
    """A figure of a batch's examples.

    Args:
        values: One number per example, `batch`.
        counted: Which of them belong to the mean, `batch`; all of them by default.
    """

    values: Tensor
    counted: Tensor | None = None


@dataclass
class EpochMeans:
    """Weighted sums of figures since the epoch began, in one tensor per set of figures that come together."""

    _sums: dict[tuple[str, ...], Tensor] = field(default_factory=dict)  # by names: 2 × figures, of values and counts

    def add(self, figures: Mapping[str, Figure]) -> None:
        """Adds figures of as many examples each; reads nothing back from the device."""
        values = torch.stack([figure.values.detach().float() for figure in figures.values()])
        counted = torch.stack([_counted(figure) for figure in figures.values()])
        sums = torch.stack([torch.where(counted, values, 0).sum(1), counted.sum(1).float()])
        names = tuple(figures)
        self._sums[names] = sums if names not in self._sums else self._sums[names] + sums

    def read(self) -> dict[str, tuple[float, int]]:
        """Each figure's mean and how many examples it is of: waits for the device, so once per epoch."""
        totals: dict[str, tuple[float, float]] = {}
        for names, sums in self._sums.items():
            for name, value, count in zip(names, *sums.tolist(), strict=True):
                before = totals.get(name, (0.0, 0.0))
                totals[name] = before[0] + value, before[1] + count
        return {name: (value / count, int(count)) for name, (value, count) in totals.items() if count}


def _counted(figure: Figure) -> Tensor:
    return torch.ones_like(figure.values, dtype=torch.bool) if figure.counted is None else figure.counted
