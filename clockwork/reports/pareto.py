"""Quality against cost: one plotter of rows for interactive figures (plotly) and for image files (matplotlib)."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from clockwork.metrics.registry import metric_info
from clockwork.reports.curves import Curve, front, front_of
from clockwork.reports.plots import BASELINE, COLOURS, save_figure, styled
from clockwork.reports.spreads import with_spreads
from clockwork.reports.tables import Row, flops_unit, label, metric_names, present

COSTS = ("tflops_full", "latency_ms")


def curve_names(rows: Sequence[Row]) -> list[str]:
    """Names the curve of each row, so that rows of one name differ only in their number of steps.

    Args:
        rows: Rows of one plot.

    Returns:
        Per row, its adaptor and schedule, followed by the columns in which the rows differ.
    """
    columns = ("teacher", "cut", "solver", "guidance", "resolution", "precision", "device")
    differing = [name for name in columns if len({row.get(name) for row in rows}) > 1]
    return [", ".join([label(row), *(f"{name} {row.get(name)}" for name in differing)]) for row in rows]


def curves(rows: Sequence[Row], cost: str) -> list[Curve]:
    """Groups rows into curves, those of the teacher without an adaptor first.

    Args:
        rows: The rows; those of several seeds and fits are one point, the mean.
        cost: Column of the horizontal axis, one of `COSTS`. Rows without a value are left out.

    Returns:
        The curves, of which one may be empty so that all costs have the same ones.
    """
    scale = flops_unit(rows)[1] if cost == "tflops_full" else 1.0
    rows = with_spreads(rows)
    named = sorted(zip(curve_names(rows), rows, strict=True), key=lambda n: (n[1]["adaptor"] != "none", n[0]))
    grouped = []
    for name, members in groupby(named, key=lambda n: n[0]):
        same = [row for _, row in members]
        points = [(scale * row[cost], row) for row in same if row.get(cost) is not None]
        points.sort(key=lambda point: point[0])
        grouped.append(Curve(name, points, same[0]["adaptor"] == "none"))
    return grouped


def plotted(rows: Sequence[Row]) -> list[str]:
    """Lists the metrics that figures show.

    Args:
        rows: The rows.

    Returns:
        Names of measured metrics.
    """
    return [name for name in metric_names(rows) if metric_info(name).plotted]


def pareto_figure(rows: Sequence[Row], metric: str, cost: str) -> Any:
    """Plots a metric against a cost, one curve per adaptor and schedule and one point per number of steps.

    Args:
        rows: The rows. Those of the teacher with fewer steps are the baseline, drawn dashed.
        metric: Name of the metric.
        cost: Column of the cost, one of `COSTS`.

    Returns:
        A plotly figure.
    """
    from plotly.graph_objects import Figure

    figure, all_curves = Figure(), curves(rows, cost)
    with_adaptor = [curve.name for curve in all_curves if not curve.is_baseline]
    colours = dict(zip(with_adaptor, COLOURS * len(rows), strict=False))  # the same in every plot of these rows
    if len(best := front_of(all_curves, metric)) > 1:
        line = {"color": BASELINE, "width": 7}
        x, y = zip(*best, strict=True)
        figure.add_scatter(x=x, y=y, name="front", mode="lines", opacity=0.25, line=line, hoverinfo="skip")
    for curve in all_curves:
        if points := curve.measured(metric):
            figure.add_scatter(
                x=[x for x, _, _ in points],
                y=[value for _, value, _ in points],
                text=[str(row["steps"]) for _, _, row in points],
                name=f"{curve.name}, fewer steps" if curve.is_baseline else curve.name,
                mode="lines+markers+text",
                textposition="top right",
                line={"color": BASELINE, "dash": "dash"} if curve.is_baseline else {"color": colours[curve.name]},
                error_y={"array": [spread(row, metric) for _, _, row in points], "thickness": 1},
                cliponaxis=False,
                hovertemplate="%{text} steps<br>%{x:.4g}, %{y:.4g}",
            )
    return styled(figure, _cost_axis(rows, cost), metric_info(metric).axis)


def pareto_figures(rows: Sequence[Row]) -> Mapping[str, Any]:
    """Plots each measured metric against each measured cost.

    Args:
        rows: The rows.

    Returns:
        Plotly figures, by names such as `fid-tflops_full`.
    """
    costs = present(rows, COSTS)
    return {f"{metric}-{cost}": pareto_figure(rows, metric, cost) for metric in plotted(rows) for cost in costs}


def save_pareto(rows: Sequence[Row], file: Path) -> bool:
    """Plots each metric against the FLOPs per image (convention `full`), as an image file, with the front marked.

    Args:
        rows: The rows. Those of the teacher with fewer steps are the baseline.
        file: The image file to write.

    Returns:
        False if no row has a metric to plot, so that nothing was written.
    """
    all_curves, axis = curves(rows, "tflops_full"), _cost_axis(rows, "tflops_full")
    return save_curves(all_curves, plotted(rows), axis, [file], mark_front=True)


def save_curves(
    all_curves: Sequence[Curve],
    metrics: Sequence[str],
    x_label: str,
    files: Sequence[Path],
    colour_of: Callable[[str], str] = lambda name: name,
    mark_front: bool = False,
) -> bool:
    """Plots curves with one panel per metric, as image files.

    Args:
        all_curves: The curves.
        metrics: Names of the metrics; those that were measured have a panel each.
        x_label: Title of the horizontal axes.
        files: The image files to write; their suffixes give the formats.
        colour_of: Maps a curve's name to what its colour stands for. A curve that shares the colour of an earlier one
            is dashed.
        mark_front: Whether to mark the front over all curves.

    Returns:
        False if no metric was measured, so that nothing was written.
    """
    shown = [name for name in metrics if any(curve.measured(name) for curve in all_curves)]
    if not shown:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(shown), figsize=(4.6 * len(shown), 4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], shown, strict=True):
        _draw_panel(axis, all_curves, name, colour_of)
        if mark_front and len(best := front_of(all_curves, name)) > 1:
            axis.plot(*zip(*best, strict=True), color=BASELINE, lw=7, alpha=0.3, zorder=0, label="front")
        axis.set(xlabel=x_label, ylabel=metric_info(name).axis)
        axis.grid(alpha=0.3)
        _scale_axis(axis, all_curves, name)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside upper center", ncols=min(3 if len(names) < 10 else 5, len(names)), fontsize=8
    )
    for file in files:
        save_figure(figure, file)
    return True


def spread(row: Row, metric: str) -> float:
    """Returns the standard deviation of a metric over the rows of a point; 0 for a single row.

    Args:
        row: The row, or one of `spreads.with_spreads`.
        metric: Name of the metric.
    """
    return float(row.get("spreads", {}).get(metric, 0.0))


def _draw_panel(axis: Any, all_curves: Sequence[Curve], metric: str, colour_of: Callable[[str], str]) -> None:
    """Draws the curves of one metric: each point with its spread, and with its number of steps if the line joins it."""
    colours = list(dict.fromkeys(colour_of(curve.name) for curve in all_curves))
    for curve in all_curves:
        points = curve.measured(metric)
        if not points:
            continue
        number, shares_colour = colours.index(colour_of(curve.name)), colour_of(curve.name) != curve.name
        colour = f"C{number}"  # there are ten; curves after those have another marker
        xs, values = [x for x, _, _ in points], [value for _, value, _ in points]
        marker, dash = ("s", "--") if shares_colour else ("o^v"[number // 10 % 3], "-")
        joined = list(zip(xs, values, strict=True))
        if curve.is_front:
            axis.plot(xs, values, marker, color=colour, alpha=0.3, markersize=4, label=f"_{curve.name}, all")
            joined = front(joined, metric_info(metric).direction or "higher")
        axis.plot(*zip(*joined, strict=True), marker, ls=dash, color=colour, label=curve.name)
        if any(spread(row, metric) for _, _, row in points):
            axis.errorbar(xs, values, [spread(row, metric) for _, _, row in points], fmt="none", ecolor=colour)
        for x, value, row in (point for point in points if point[:2] in joined):
            axis.annotate(str(row["steps"]), (x, value), xytext=(4, 4), textcoords="offset points", fontsize=7)


def _scale_axis(axis: Any, all_curves: Sequence[Curve], metric: str) -> None:
    """Makes the axis of a distance logarithmic where it spans more than a factor of ten."""
    values = [value for curve in all_curves for _, value, _ in curve.measured(metric)]
    if metric_info(metric).direction == "lower" and 0 < 10 * min(values) < max(values):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")


def _cost_axis(rows: Sequence[Row], cost: str) -> str:
    """Returns the title of an axis of costs."""
    return f"{flops_unit(rows)[0]} per image, including attention" if cost == "tflops_full" else metric_info(cost).label
