"""Image files of an evaluation: quality against cost, and a grid of generated images."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

from clockwork.data.image_io import read_images, write_grid
from clockwork.evaluation.rows import image_folder
from clockwork.io.atomic import atomic_write
from clockwork.reports.plots import QUALITY, present
from clockwork.reports.tables import Row, flops_unit, label


class _Prompt(Protocol):
    """The attribute of `data.prompts.Prompt` that is read here."""

    @property
    def id(self) -> int: ...


def pareto(rows: Sequence[Row], file: Path, quality: Sequence[str] = QUALITY) -> None:
    """Plots each metric against the FLOPs per image (convention `full`), one curve per teacher or adaptor and schedule.

    Writes nothing if no row has any of the metrics.

    Args:
        rows: The rows. Those of the teacher with fewer steps are the baseline.
        file: The image file to write.
        quality: Columns of the metrics; those that were measured have a panel each.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = present(rows, quality)
    if not shown:
        return
    figure, axes = plt.subplots(1, len(shown), figsize=(4.6 * len(shown), 4), squeeze=False, layout="constrained")
    colour = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(map(label, rows)))}  # the same in every panel
    unit, scale = flops_unit(rows)
    ordered = sorted(rows, key=lambda row: (row["adaptor"], row["schedule"], row["tflops_full"]))
    for axis, name in zip(axes[0], shown, strict=True):
        for curve, points in groupby(ordered, key=label):
            measured = [row for row in points if row.get(name) is not None]
            positions = [(scale * row["tflops_full"], row[name]) for row in measured]
            if measured:
                axis.plot(*zip(*positions, strict=True), "o-", c=colour[curve], label=curve)
            for row, position in zip(measured, positions, strict=True):
                axis.annotate(str(row["steps"]), position, xytext=(4, 4), textcoords="offset points", fontsize=7)
        axis.set(xlabel=f"{unit} per image, including attention", ylabel=name.replace("_", " "))
        axis.grid(alpha=0.3)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8)
    with atomic_write(file) as partial:
        figure.savefig(partial, dpi=130, format=file.suffix[1:])
    plt.close(figure)


def pictures_side_by_side(rows: Sequence[Row], prompts: Sequence[_Prompt], folder: Path, count: int = 10) -> None:
    """Writes `grid.png`: one line per operating point, with the same prompts and seeds.

    Args:
        rows: The rows.
        prompts: The prompts of the evaluation.
        folder: The output folder of the rows, with the generated images in `pictures`.
        count: Number of prompts, from the first.
    """
    lines = {}
    for row in rows:
        files = [image_folder(folder, row) / f"{p.id}.png" for p in prompts[:count]]
        lines[f"{label(row)}, {row['steps']} steps"] = read_images(files)
    write_grid(folder / "grid.png", lines, side=64)
