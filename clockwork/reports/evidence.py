"""Evidence: rows of several noise seeds and fits as means with spreads, against the teacher at fewer steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from clockwork.io.atomic import atomic_write
from clockwork.metrics.registry import metric_info
from clockwork.reports.formats import Sheet
from clockwork.reports.plots import BASELINE, COLOURS
from clockwork.reports.tables import Row, flops_unit, metric_names

POINT = ("teacher", "adaptor", "cut", "schedule", "solver", "guidance", "steps")
CURVE = ("teacher", "solver", "guidance")  # of the teacher at several numbers of steps


@dataclass(frozen=True)
class Summary:
    """All rows of one operating point.

    Attributes:
        row: The first of them, with the means of the metrics in place of its own.
        count: Number of rows.
        spreads: Standard deviation of each metric over the rows; 0 for a single one.
    """

    row: dict[str, Any]
    count: int
    spreads: dict[str, float]

    def value(self, metric: str) -> float | None:
        """Returns the mean of a metric; None if it was not measured."""
        value: float | None = self.row["metrics"].get(metric)
        return value


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Groups rows by operating point.

    Args:
        rows: The rows, of any number of seeds and fits.

    Returns:
        One summary per operating point; the teacher's first, then by adaptor, cut, schedule and steps.
    """

    def key(row: Row) -> tuple[Any, ...]:
        return (row["adaptor"] != "none", *(row[name] for name in POINT))

    summaries = []
    for _, members in groupby(sorted(rows, key=key), key=key):
        same = list(members)
        metrics = {
            name: [row["metrics"][name] for row in same if name in row["metrics"]] for name in metric_names(same)
        }
        means = {name: mean(values) for name, values in metrics.items()}
        spreads = {name: stdev(values) if len(values) > 1 else 0.0 for name, values in metrics.items()}
        summaries.append(Summary({**same[0], "metrics": means}, len(same), spreads))
    return summaries


def at_flops(teacher: Sequence[Summary], metric: str, tflops: float) -> float | None:
    """Interpolates a metric of the teacher between its numbers of steps.

    Args:
        teacher: Summaries of the teacher without an adaptor.
        metric: Name of the metric.
        tflops: FLOPs per image, in TFLOPs.

    Returns:
        The metric at these FLOPs; None outside those that were measured.
    """
    measured = [(s.row["tflops_full"], s.value(metric)) for s in teacher]
    points = sorted((x, y) for x, y in measured if y is not None)
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= tflops <= x1:
            return float(y0 + (y1 - y0) * (tflops - x0) / (x1 - x0))
    return None


def gain(summary: Summary, summaries: Sequence[Summary], metric: str) -> float | None:
    """Returns how much better an operating point is than fewer steps of the teacher at equal FLOPs.

    Args:
        summary: The operating point.
        summaries: All operating points.
        metric: Name of the metric.

    Returns:
        The gain in the metric, positive if better; None if it is not known.
    """
    teacher = [s for s in summaries if s.row["adaptor"] == "none" and _curve(s) == _curve(summary)]
    value, at_equal = summary.value(metric), at_flops(teacher, metric, summary.row["tflops_full"])
    direction = metric_info(metric).direction
    if summary.row["adaptor"] == "none" or value is None or at_equal is None or direction is None:
        return None
    return value - at_equal if direction == "higher" else at_equal - value


def _curve(summary: Summary) -> tuple[Any, ...]:
    return tuple(summary.row[name] for name in CURVE)


def evidence_sheet(rows: Sequence[Row]) -> Sheet:
    """Tables the operating points: FLOPs, means and spreads, and the gain over fewer steps at equal FLOPs.

    Args:
        rows: The rows.
    """
    summaries, (unit, factor) = summarise(rows), flops_unit(rows)
    metrics = [name for name in metric_names(rows) if metric_info(name).plotted]
    compared = [name for name in metrics if any(gain(s, summaries, name) is not None for s in summaries)]
    several = len({s.row["teacher"] for s in summaries}) > 1
    names = (*(("teacher",) if several else ()), "adaptor", "cut", "schedule", "solver", "steps")
    columns = [*names, unit, "rows", *(metric_info(m).label for m in metrics)]
    columns += [f"gain in {metric_info(m).label}" for m in compared]
    cells = [
        [
            *(str(s.row[name]) for name in names),
            f"{factor * s.row['tflops_full']:.4g}",
            str(s.count),
            *(_mean(s, m) for m in metrics),
            *(_signed(gain(s, summaries, m), m) for m in compared),
        ]
        for s in summaries
    ]
    seeds = len({row["seed"] for row in rows})
    note = (
        f"Means ± standard deviations over noise seeds ({seeds}) and fits, {rows[0]['images']} prompts each. Gain: how "
        "much better than the teacher at fewer steps, interpolated to equal FLOPs; positive is better."
    )
    return Sheet("Evidence", columns, cells, [note])


def _mean(summary: Summary, metric: str) -> str:
    """Formats a mean and its spread."""
    value, form = summary.value(metric), metric_info(metric).number_format
    if value is None:
        return "–"
    return f"{form.format(value)} ± {form.format(summary.spreads[metric])}" if summary.count > 1 else form.format(value)


def _signed(value: float | None, metric: str) -> str:
    """Formats a difference with its sign."""
    return "–" if value is None else metric_info(metric).number_format.replace(":", ":+").format(value)


def front(points: Sequence[tuple[float, float]], direction: str) -> list[tuple[float, float]]:
    """Returns the points that no other is better than at the same cost or less, by cost.

    Args:
        points: Cost and value of each point.
        direction: Whether `lower` or `higher` values are better.
    """
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], point[1] if direction == "lower" else -point[1])):
        if not best or (value < best[-1][1] if direction == "lower" else value > best[-1][1]):
            best.append((cost, value))
    return best


def save_fronts(summaries: Sequence[Summary], file: Path) -> None:
    """Plots the mean of each metric against FLOPs, with its spread: a colour and a front per adaptor.

    Args:
        summaries: Operating points of one teacher and solver.
        file: The image file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [s.row for s in summaries]
    metrics = [name for name in metric_names(rows) if metric_info(name).plotted]
    unit, factor = flops_unit(rows)
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.6 * len(metrics), 4), squeeze=False, layout="constrained")
    colours = dict(zip(dict.fromkeys(row["adaptor"] for row in rows), (BASELINE, *COLOURS * len(rows)), strict=False))
    for axis, metric in zip(axes[0], metrics, strict=True):
        for adaptor, colour in colours.items():
            of = [s for s in summaries if s.row["adaptor"] == adaptor and s.value(metric) is not None]
            points = [(factor * s.row["tflops_full"], s.row["metrics"][metric]) for s in of]
            if points:
                spreads, name = [s.spreads[metric] for s in of], "fewer steps" if adaptor == "none" else adaptor
                axis.errorbar(*zip(*points, strict=True), spreads, fmt="o", ms=4, color=colour, label=name)
                axis.plot(*zip(*front(points, metric_info(metric).direction or "higher"), strict=True), color=colour)
        axis.set(xlabel=f"{unit} per image, including attention", ylabel=metric_info(metric).label)
        if metric_info(metric).direction == "lower":
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(colours))
    with atomic_write(file) as partial:
        figure.savefig(partial, dpi=130, format=file.suffix[1:])
    plt.close(figure)


def write_evidence(rows: Sequence[Row], folder: Path) -> Path:
    """Writes the table (Markdown, CSV, LaTeX), and a plot of each metric's mean against FLOPs.

    Args:
        rows: The rows.
        folder: The folder.

    Returns:
        The Markdown file.
    """
    evidence_sheet(rows).write(folder / "evidence")
    for solver in {row["solver"] for row in rows}:
        of_solver = [s for s in summarise(rows) if s.row["solver"] == solver]
        save_fronts(of_solver, folder / f"evidence-{solver.replace('+', 'p')}.png")
    return folder / "evidence.md"
