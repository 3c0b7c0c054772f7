"""Means of per-example figures over an epoch, summed on the device so that no training step waits for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Figure:
    """A number per example of a batch, such as its loss.

    Attributes:
        values: The numbers, `batch`.
        counted: Which examples belong to the mean, `batch`, boolean; all of them by default.
    """

    values: Tensor
    counted: Tensor | None = None


@dataclass
class EpochMeans:
    """Means of figures since the start of an epoch.

    The sums stay on the device, in one tensor per set of figures that are added together.
    """

    _sums: dict[tuple[str, ...], Tensor] = field(default_factory=dict)  # by names: 2 × figures, of values and counts

    def add(self, figures: Mapping[str, Figure]) -> None:
        """Adds the figures of a batch, without waiting for the device.

        Args:
            figures: Figures by name, all of the same number of examples.
        """
        values = torch.stack([figure.values.detach().float() for figure in figures.values()])
        counted = torch.stack([_counted(figure) for figure in figures.values()])
        sums = torch.stack([torch.where(counted, values, 0).sum(1), counted.sum(1).float()])
        names = tuple(figures)
        self._sums[names] = sums if names not in self._sums else self._sums[names] + sums

    def read(self) -> dict[str, tuple[float, int]]:
        """Computes the means. Waits for the device, so it should not be called at every step.

        Returns:
            Mean and number of examples by figure; figures without counted examples are left out.
        """
        totals: dict[str, tuple[float, float]] = {}
        for names, sums in self._sums.items():
            for name, value, count in zip(names, *sums.tolist(), strict=True):
                total, total_count = totals.get(name, (0.0, 0.0))
                totals[name] = total + value, total_count + count
        return {name: (value / count, int(count)) for name, (value, count) in totals.items() if count}


def _counted(figure: Figure) -> Tensor:
    """Returns which examples of a figure belong to the mean, `batch`."""
    return torch.ones_like(figure.values, dtype=torch.bool) if figure.counted is None else figure.counted
