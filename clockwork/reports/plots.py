"""Interactive plots of rows and training losses, for the HTML report and for wandb."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from clockwork.reports.tables import Row, flops_unit, label

# Readable on light and dark backgrounds and with colour blindness (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#A6761D")
BASELINE = "#888888"
COSTS = ("tflops_full", "latency_ms")
QUALITY = ("fid", "clip_score", "fid_miniature", "clip_score_miniature", "psnr")
AXES = {
    "fid": "FID (lower is better)",
    "clip_score": "CLIP score (higher is better)",
    "fid_miniature": "FID, miniature (lower is better)",
    "clip_score_miniature": "CLIP score, miniature (higher is better)",
    "psnr": "PSNR to the teacher at the same steps, dB",
    "latency_ms": "latency of one image's latents, ms",
}


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


def present(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    """Selects the columns that have a value in at least one row.

    Args:
        rows: The rows.
        names: Names of the columns.

    Returns:
        Those names, in the same order.
    """
    return [name for name in names if any(row.get(name) is not None for row in rows)]


def pareto(rows: Sequence[Row], quality: str, cost: str) -> Any:
    """Plots a metric against a cost, one curve per adaptor and schedule and one point per number of steps.

    Args:
        rows: The rows. Those of the teacher with fewer steps are the baseline, drawn dashed.
        quality: Column of the metric.
        cost: Column of the cost, one of `COSTS`.

    Returns:
        A plotly figure.
    """
    from plotly.graph_objects import Figure

    unit, factor = flops_unit(rows)
    scale = factor if cost == "tflops_full" else 1.0
    named = sorted(zip(curve_names(rows), rows, strict=True), key=lambda n: (n[1]["adaptor"] != "none", n[0]))
    with_adaptor = dict.fromkeys(name for name, row in named if row["adaptor"] != "none")
    colours = dict(zip(with_adaptor, COLOURS * len(rows), strict=False))  # the same in every plot of these rows
    figure = Figure()
    for name, curve in groupby(named, key=lambda n: n[0]):
        points = [row for _, row in curve if row.get(quality) is not None and row.get(cost) is not None]
        points.sort(key=lambda row: row[cost])
        teacher = name not in colours
        if points:
            figure.add_scatter(
                x=[scale * row[cost] for row in points],
                y=[row[quality] for row in points],
                text=[str(row["steps"]) for row in points],
                name=f"{name}, fewer steps" if teacher else name,
                mode="lines+markers+text",
                textposition="top right",
                line={"color": BASELINE, "dash": "dash"} if teacher else {"color": colours[name]},
                cliponaxis=False,
                hovertemplate="%{text} steps<br>%{x:.4g}, %{y:.4g}",
            )
    x = f"{unit} per image, including attention" if cost == "tflops_full" else AXES[cost]
    return styled(figure, x, AXES[quality])


def training(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
    """Plots training losses by epoch.

    Args:
        curves: Per adaptor, the values of `loss` and of `identity`, the identity adaptor's loss (dotted), by epoch.

    Returns:
        A plotly figure.
    """
    from plotly.graph_objects import Figure

    figure = Figure()
    for (name, values), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
        for kind, dash in (("loss", "solid"), ("identity", "dot")):
            y = list(values.get(kind, []))
            title = name if kind == "loss" else f"{name}: the identity"
            line = {"color": colour, "dash": dash}
            figure.add_scatter(x=list(range(1, len(y) + 1)), y=y, name=title, mode="lines+markers", line=line)
    return styled(figure, "epoch", "distance to the teacher's features")


def styled(figure: Any, x: str, y: str) -> Any:
    """Sets the layout of a plot: a transparent background for light and dark pages, and the legend below.

    Args:
        figure: A plotly figure.
        x: Title of the horizontal axis.
        y: Title of the vertical axis.

    Returns:
        The figure.
    """
    return figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        modebar={"bgcolor": "rgba(0,0,0,0)"},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        xaxis={"title": {"text": x}, "automargin": True, "zeroline": False},
        yaxis={"title": {"text": y}, "automargin": True, "zeroline": False},
        showlegend=True,
        hovermode="closest",
    )
