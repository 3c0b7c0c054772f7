"""Figures 4 and 7 in the paper's layout, from rows, as PNG and PDF."""

from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path

from clockwork.reports.curves import Curve
from clockwork.reports.paper.scale import Scale
from clockwork.reports.pareto import save_curves
from clockwork.reports.tables import Row

METRICS = ("fid", "clip_score")
CLOCKWORK = " + Clockwork"  # ending of a curve's name; the curve has the colour of the model alone


def quality_against_flops(rows: Mapping[str, Row], scale: Scale, stem: Path) -> bool:
    """Plots Figure 4: FID and CLIP score against the FLOPs per image, for each model with and without Clockwork.

    Args:
        rows: Rows by names such as `SD UNet + Clockwork, 8 steps`.
        scale: The scale at which the rows were measured.
        stem: Path of the image files without the suffixes `.png` and `.pdf`.

    Returns:
        False if no row has a metric to plot, so that nothing was written.
    """
    curves = _curves(rows, lambda row: scale.flops_factor * row["tflops_paper"])
    return _save(curves, scale.flops_unit, scale, stem)


def quality_against_steps(rows: Mapping[str, Row], scale: Scale, stem: Path) -> bool:
    """Plots Figure 7: FID and CLIP score against the number of steps, for each way of training.

    Args:
        rows: Rows by names such as `Regular distillation, 16 steps`.
        scale: The scale at which the rows were measured.
        stem: Path of the image files without the suffixes `.png` and `.pdf`.

    Returns:
        False if no row has a metric to plot, so that nothing was written.
    """
    return _save(_curves(rows, lambda row: float(row["steps"])), "steps", scale, stem)


def _curves(rows: Mapping[str, Row], x: Callable[[Row], float]) -> list[Curve]:
    """Groups rows into curves by the part of their name before the last comma; `x` gives a row's position."""

    def curve(item: tuple[str, Row]) -> str:
        return item[0].rpartition(", ")[0]

    return [
        Curve(name, sorted(((x(row), row) for _, row in points), key=lambda point: point[0]))
        for name, points in groupby(sorted(rows.items(), key=curve), curve)
    ]


def _save(curves: list[Curve], x_label: str, scale: Scale, stem: Path) -> bool:
    """Writes a figure with one panel per metric; returns False if no metric was measured."""
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "pdf")]
    metrics = [scale.metric(name) for name in METRICS]
    return save_curves(curves, metrics, x_label, files, lambda name: name.removesuffix(CLOCKWORK))
