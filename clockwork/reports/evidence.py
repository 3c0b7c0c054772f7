"""Evidence: rows of several noise seeds and fits as means with spreads, and what they bear out against the teacher."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from clockwork.errors import MissingFileError
from clockwork.metrics.registry import metric_info
from clockwork.reports.compare import (
    NO_DIFFERENCE,
    Samples,
    full_teacher_of,
    interval_text,
    per_prompt,
    samples,
    teachers_of,
)
from clockwork.reports.curves import Curve
from clockwork.reports.formats import Sheet
from clockwork.reports.intervals import Interval
from clockwork.reports.pareto import plotted, save_curves
from clockwork.reports.spreads import with_spreads
from clockwork.reports.tables import Row, cell, flops_unit


class Evidence:
    """The operating points of some rows, and their gains over the teacher.

    Args:
        rows: The rows, of any number of seeds and fits.
        folder: Folder of `rows.jsonl`, with the figures of each image.

    Attributes:
        points: The rows of `spreads.with_spreads`; the teacher's first.
        problem: Why some intervals are not by resampling prompts; None if all are that can be.
    """

    def __init__(self, rows: Sequence[Row], folder: Path) -> None:
        def order(row: Row) -> tuple[bool, str, str, str, str, int]:
            return (row["adaptor"] != "none", row["teacher"], row["solver"], row["adaptor"], row["cut"], -row["steps"])

        self.points = sorted(with_spreads(rows), key=order)
        self.problem: str | None = None
        self._prompts: dict[int, dict[str, np.ndarray]] = {}
        for point in self.points:
            try:
                self._prompts[id(point)] = per_prompt(point, folder)
            except MissingFileError as error:
                self._prompts[id(point)], self.problem = {}, str(error)

    def _samples(self, point: Row, metric: str) -> Samples:
        return samples(point, metric, self._prompts[id(point)])

    def gain(self, point: Row, other: Samples, metric: str) -> Interval:
        """Returns how much better an operating point is than another in a metric; positive is better."""
        difference = self._samples(point, metric).minus(other)
        return difference.negated() if metric_info(metric).direction == "lower" else difference

    def gain_over_teacher(self, point: Row, metric: str) -> Interval | None:
        """Returns how much better an operating point is than the full teacher at the same steps.

        Args:
            point: One of `points`.
            metric: Name of the metric.

        Returns:
            The gain; None if one of the two was not measured.
        """
        teacher = full_teacher_of(point, self.points)
        if teacher is None or not all(metric in row["metrics"] for row in (point, teacher)):
            return None
        return self.gain(point, self._samples(teacher, metric), metric)

    def gain_over_fewer_steps(self, point: Row, metric: str) -> Interval | None:
        """Returns how much better an operating point is than the full teacher with fewer steps at equal FLOPs.

        Args:
            point: One of `points`.
            metric: Name of the metric.

        Returns:
            The gain; None outside the FLOPs at which the teacher was measured.
        """
        other = self._at_flops(teachers_of(point, self.points), metric, point["tflops_full"])
        if point["adaptor"] == "none" or metric not in point["metrics"] or other is None:
            return None
        return self.gain(point, other, metric)

    def _at_flops(self, teachers: Sequence[Row], metric: str, tflops: float) -> Samples | None:
        """Interpolates a metric of the teacher between its numbers of steps; None outside them."""
        measured = [teacher for teacher in teachers if metric in teacher["metrics"]]
        for lower, upper in pairwise(sorted(measured, key=lambda row: float(row["tflops_full"]))):
            if lower["tflops_full"] <= tflops <= upper["tflops_full"]:
                share = (tflops - lower["tflops_full"]) / (upper["tflops_full"] - lower["tflops_full"])
                return self._samples(lower, metric).towards(self._samples(upper, metric), share)
        return None


def evidence_sheet(rows: Sequence[Row], folder: Path, with_gains: bool = True) -> Sheet:
    """Tables the operating points: FLOPs, means and spreads, and the gains with their intervals.

    Args:
        rows: The rows.
        folder: Folder of `rows.jsonl`.
        with_gains: Whether to compute the gains.
    """
    evidence, (unit, factor) = Evidence(rows, folder), flops_unit(rows)
    metrics = [name for name in plotted(rows) if metric_info(name).direction is not None]
    compared = [name for name in metrics if with_gains and "teacher_images" not in metric_info(name).inputs]
    several = len({row["teacher"] for row in rows}) > 1
    names = (*(("teacher",) if several else ()), "adaptor", "cut", "schedule", "solver", "steps")
    columns = [*names, unit, "rows", *(metric_info(metric).label for metric in metrics)]
    columns += [f"gain in {metric_info(m).label} over {what}" for m in compared for what in ("teacher", "fewer steps")]
    cells = []
    for point in evidence.points:
        gains = [
            _gain(interval, metric)
            for metric in compared
            for interval in (evidence.gain_over_teacher(point, metric), evidence.gain_over_fewer_steps(point, metric))
        ]
        described = [*(str(point[name]) for name in names), f"{factor * point['tflops_full']:.4g}"]
        cells.append([*described, str(point["rows"] or 1), *(cell(point, metric) for metric in metrics), *gains])
    notes = _notes(rows, evidence.problem) if with_gains else []
    return Sheet("Evidence" if with_gains else "Evidence without gains", columns, cells, notes)


def _gain(interval: Interval | None, metric: str) -> str:
    """Formats a gain and what its interval bears out."""
    if interval is None:
        return "–"
    within = interval.is_known and not interval.excludes_zero
    return f"{NO_DIFFERENCE}: {interval_text(interval, metric)}" if within else interval_text(interval, metric)


def _notes(rows: Sequence[Row], problem: str | None) -> list[str]:
    """Explains the table."""
    seeds = len({row["seed"] for row in rows})
    note = (
        f"Means ± standard deviations over noise seeds ({seeds}) and fits, {rows[0]['images']} prompts each. Gains: "
        "how much better than the full teacher at the same steps, and than the full teacher at fewer steps, "
        "interpolated to equal FLOPs; positive is better. 95% intervals in brackets: of means over images by "
        "resampling the prompts, on which both have the same noise; of FID over the rows (Welch)."
    )
    return (
        [note] if problem is None else [note, f"Some intervals are over the rows in place of the prompts: {problem}."]
    )


def save_fronts(rows: Sequence[Row], file: Path) -> bool:
    """Plots the mean of each metric against FLOPs, with its spread: a colour and a front per adaptor.

    Args:
        rows: Rows of one teacher and solver.
        file: The image file to write.

    Returns:
        False if no row has a metric to plot, so that nothing was written.
    """
    unit, factor = flops_unit(rows)
    points = sorted(with_spreads(rows), key=lambda row: (row["adaptor"] != "none", float(row["tflops_full"])))
    curves = []
    for adaptor in dict.fromkeys(row["adaptor"] for row in points):
        of_adaptor = [(factor * row["tflops_full"], row) for row in points if row["adaptor"] == adaptor]
        name = "fewer steps" if adaptor == "none" else adaptor
        curves.append(Curve(name, of_adaptor, adaptor == "none", is_front=True))
    return save_curves(curves, plotted(rows), f"{unit} per image, including attention", [file])


def write_evidence(rows: Sequence[Row], folder: Path, rows_folder: Path) -> Path:
    """Writes the table with and without gains, and for each teacher and solver a plot of metrics against FLOPs.

    Args:
        rows: The rows.
        folder: The folder to write to.
        rows_folder: Folder of `rows.jsonl`.

    Returns:
        The Markdown file.
    """
    evidence_sheet(rows, rows_folder).write(folder / "evidence")
    evidence_sheet(rows, rows_folder, with_gains=False).write(folder / "evidence-short")
    for teacher, solver in dict.fromkeys((row["teacher"], row["solver"]) for row in rows):
        of_both = [row for row in rows if (row["teacher"], row["solver"]) == (teacher, solver)]
        save_fronts(of_both, folder / plot_name(teacher, solver))
    return folder / "evidence.md"


def plot_name(teacher: str, solver: str) -> str:
    """Returns the name of the plot of a teacher and a solver.

    Args:
        teacher: The teacher's name.
        solver: The solver's.
    """
    return f"evidence-{teacher}-{solver.replace('+', 'p')}.png"
