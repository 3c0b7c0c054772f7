"""Figures 4 and 7 in the paper's layout, from rows, as PNG and PDF."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from clockwork.io.atomic import atomic_write
from clockwork.reports.tables import Row

Curve = tuple[str, list[tuple[float, Row]]]  # the curve's name, and the horizontal position and row of each point


def quality_against_flops(rows: Mapping[str, Row], miniature: bool, stem: Path) -> bool:
    """Plots Figure 4: FID and CLIP score against the FLOPs per image, for each model with and without Clockwork.

    Args:
        rows: Rows by names such as `SD UNet + Clockwork, 8 steps`.
        miniature: Whether the rows are of the miniature, so that the axis is in GFLOPs and the metrics are the
            miniature's.
        stem: Path of the image files without the suffixes `.png` and `.pdf`.

    Returns:
        False if no row has a metric to plot, so that nothing was written.
    """
    unit, scale = ("GFLOPs of the miniature", 1e3) if miniature else ("TFLOPs", 1.0)
    return _draw(_curves(rows, lambda row: scale * row["tflops_paper"]), unit, miniature, stem)


def quality_against_steps(rows: Mapping[str, Row], miniature: bool, stem: Path) -> bool:
    """Plots Figure 7: FID and CLIP score against the number of steps, for each way of training.

    Args:
        rows: Rows by names such as `Regular distillation, 16 steps`.
        miniature: Whether the rows are of the miniature, so that the metrics are the miniature's.
        stem: Path of the image files without the suffixes `.png` and `.pdf`.

    Returns:
        False if no row has a metric to plot, so that nothing was written.
    """
    return _draw(_curves(rows, lambda row: float(row["steps"])), "steps", miniature, stem)


def _curves(rows: Mapping[str, Row], x: Any) -> list[Curve]:
    """Groups rows into curves by the part of their name before the last comma; `x` gives a row's position."""

    def curve(item: tuple[str, Row]) -> str:
        return item[0].rpartition(", ")[0]

    ordered = sorted(rows.items(), key=curve)
    return [
        (name, sorted(((x(row), row) for _, row in points), key=lambda p: p[0]))
        for name, points in groupby(ordered, curve)
    ]


def _draw(curves: Sequence[Curve], x_label: str, miniature: bool, stem: Path) -> bool:
    """Writes a figure with one panel per metric; returns False if no metric was measured."""
    names = [f"{name}_miniature" if miniature else name for name in ("fid", "clip_score")]
    shown = [name for name in names if any(row.get(name) is not None for _, points in curves for _, row in points)]
    if not shown:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(shown), figsize=(4.6 * len(shown), 3.8), squeeze=False, layout="constrained")
    for axis, quality in zip(axes[0], shown, strict=True):
        _draw_panel(axis, curves, quality)
        axis.set(xlabel=x_label, ylabel=quality.replace("_", " "))
        axis.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(curves)), fontsize=8)
    for kind in ("png", "pdf"):
        with atomic_write(stem.with_name(f"{stem.name}.{kind}")) as partial:
            figure.savefig(partial, dpi=150, format=kind)
    plt.close(figure)
    return True


def _draw_panel(axis: Any, curves: Sequence[Curve], quality: str) -> None:
    """Draws the curves of one metric; a model has one colour, and its curve with Clockwork is dashed."""
    models = list(dict.fromkeys(name.removesuffix(" + Clockwork") for name, _ in curves))
    for name, points in curves:
        measured = [(x, row) for x, row in points if row.get(quality) is not None]
        colour = f"C{models.index(name.removesuffix(' + Clockwork'))}"
        style = "s--" if name.endswith(" + Clockwork") else "o-"
        axis.plot([x for x, _ in measured], [row[quality] for _, row in measured], style, c=colour, label=name)
        for x, row in measured:
            axis.annotate(str(row["steps"]), (x, row[quality]), xytext=(4, 4), textcoords="offset points", fontsize=7)
