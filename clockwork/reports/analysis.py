"""Figures of the analyses: what disturbing a layer does, and how features drift. From rows alone."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from clockwork.io.atomic import atomic_write


def write_csv(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """One line a row, whole or not at all."""
    with atomic_write(file) as partial, partial.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def summary(
    rows: Sequence[Mapping[str, Any]], curve: str, x: str, value: str
) -> dict[str, dict[int, tuple[float, float, float]]]:
    """Mean, least and most of `value` over the prompts, by curve and x."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault(row[curve], {}).setdefault(row[x], []).append(row[value])
    return {name: {k: (fmean(v), min(v), max(v)) for k, v in points.items()} for name, points in found.items()}


def curves(
    rows: Sequence[Mapping[str, Any]], curve: str, x: str, values: Mapping[str, str], file: Path, x_label: str
) -> None:
    """A panel a value (column → axis label), a line a curve: the mean over prompts, in a band from least to most."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(values), figsize=(5.2 * len(values), 4), squeeze=False, layout="constrained")
    for axis, (value, label) in zip(axes[0], values.items(), strict=True):
        for name, points in summary(rows, curve, x, value).items():
            at, (mean, least, most) = list(points), zip(*points.values(), strict=True)
            (line,) = axis.plot(at, mean, "o-", markersize=4, label=name)
            axis.fill_between(at, least, most, color=line.get_color(), alpha=0.12)
        axis.set(xlabel=x_label, ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    with atomic_write(file) as partial:
        figure.savefig(partial, dpi=130, format=file.suffix[1:])
    plt.close(figure)
