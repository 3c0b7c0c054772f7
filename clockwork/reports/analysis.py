"""Figures of the analyses: the effect of perturbed layers, and the drift of features between steps."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from clockwork.io.outputs import write_output
from clockwork.reports.plots import save_figure


def write_csv(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Writes rows as a CSV file, atomically.

    Args:
        rows: At least one row; all have the keys of the first.
        file: The file to write.
    """
    with write_output(file) as partial, partial.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def summary(
    rows: Sequence[Mapping[str, Any]], curve: str, x: str, value: str
) -> dict[str, dict[int, tuple[float, float, float]]]:
    """Summarises a value over the prompts.

    Args:
        rows: Rows, one per prompt, curve and x.
        curve: Column that names the curve.
        x: Column of the horizontal axis.
        value: Column to summarise.

    Returns:
        Mean, minimum and maximum, by curve and x.
    """
    values: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        values.setdefault(row[curve], {}).setdefault(row[x], []).append(row[value])
    return {name: {k: (fmean(v), min(v), max(v)) for k, v in points.items()} for name, points in values.items()}


def curves(
    rows: Sequence[Mapping[str, Any]], curve: str, x: str, values: Mapping[str, str], file: Path, x_label: str
) -> None:
    """Plots means over the prompts, with a band from minimum to maximum.

    Args:
        rows: Rows, one per prompt, curve and x.
        curve: Column that names the curve.
        x: Column of the horizontal axis.
        values: Axis labels by column; each column has a panel of its own.
        file: The image file to write.
        x_label: Label of the horizontal axis.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(values), figsize=(5.2 * len(values), 4), squeeze=False, layout="constrained")
    for axis, (value, label) in zip(axes[0], values.items(), strict=True):
        for name, points in summary(rows, curve, x, value).items():
            positions, (mean, minimum, maximum) = list(points), zip(*points.values(), strict=True)
            (line,) = axis.plot(positions, mean, "o-", markersize=4, label=name)
            axis.fill_between(positions, minimum, maximum, color=line.get_color(), alpha=0.12)
        axis.set(xlabel=x_label, ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save_figure(figure, file)
