"""Figures 4 and 7 in the paper's layout, from measured rows: PNG and PDF."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from clockwork.io.atomic import atomic_write

Row = Mapping[str, Any]
Curve = tuple[str, list[tuple[float, Row]]]  # its name, and of each point x and row


def quality_against_flops(rows: Mapping[str, Row], miniature: bool, stem: Path) -> bool:
    """Figure 4: FID and CLIP score against the FLOPs of an image, a curve a model, with and without Clockwork.

    TFLOPs in the paper's convention, which its axis is in; in miniature GFLOPs. False if there is nothing to draw.
    """
    unit, scale = ("GFLOPs of the miniature", 1e3) if miniature else ("TFLOPs", 1.0)
    return _draw(_curves(rows, lambda row: scale * row["tflops_paper"]), unit, miniature, stem)


def quality_against_steps(rows: Mapping[str, Row], miniature: bool, stem: Path) -> bool:
    """Figure 7: FID and CLIP score against the number of steps, a curve a way of training."""
    return _draw(_curves(rows, lambda row: float(row["steps"])), "steps", miniature, stem)


def _curves(rows: Mapping[str, Row], x: Any) -> list[Curve]:
    """Rows are named "SD UNet + Clockwork, 8 steps": a curve is what stands before the last comma."""

    def curve(item: tuple[str, Row]) -> str:
        return item[0].rpartition(", ")[0]

    ordered = sorted(rows.items(), key=curve)
    return [
        (name, sorted(((x(row), row) for _, row in of), key=lambda p: p[0])) for name, of in groupby(ordered, curve)
    ]


def _draw(curves: Sequence[Curve], unit: str, miniature: bool, stem: Path) -> bool:
    names = [f"{name}_miniature" if miniature else name for name in ("fid", "clip_score")]
    shown = [name for name in names if any(row.get(name) is not None for _, points in curves for _, row in points)]
    if not shown:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(shown), figsize=(4.6 * len(shown), 3.8), squeeze=False, layout="constrained")
    models = list(dict.fromkeys(name.removesuffix(" + Clockwork") for name, _ in curves))
    for axis, quality in zip(axes[0], shown, strict=True):
        for name, points in curves:
            measured = [(x, row) for x, row in points if row.get(quality) is not None]
            colour = f"C{models.index(name.removesuffix(' + Clockwork'))}"
            style = "s--" if name.endswith(" + Clockwork") else "o-"
            axis.plot([x for x, _ in measured], [row[quality] for _, row in measured], style, c=colour, label=name)
            for x, row in measured:
                axis.annotate(
                    str(row["steps"]), (x, row[quality]), xytext=(4, 4), textcoords="offset points", fontsize=7
                )
        axis.set(xlabel=unit, ylabel=quality.replace("_", " "))
        axis.grid(alpha=0.3)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(curves)), fontsize=8)
    for kind in ("png", "pdf"):
        with atomic_write(stem.with_name(f"{stem.name}.{kind}")) as partial:
            figure.savefig(partial, dpi=150, format=kind)
    plt.close(figure)
    return True
