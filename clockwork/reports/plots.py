"""Rows and training logs as interactive plots: for the HTML report and for wandb."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from clockwork.reports.tables import Row, flops_unit, label

# Readable on white and on black, and told apart by colour-blind eyes (Okabe and Ito).
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
    """Adaptor and clock, and whatever else tells the rows apart: rows of one name differ in their steps alone."""
    fields = ("teacher", "cut", "solver", "guidance", "resolution", "precision", "device")
    told = [name for name in fields if len({row.get(name) for row in rows}) > 1]
    return [", ".join([label(row), *(f"{name} {row.get(name)}" for name in told)]) for row in rows]


def present(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(row.get(name) is not None for row in rows)]


def pareto(rows: Sequence[Row], quality: str, cost: str) -> Any:
    """A plotly figure: a curve an adaptor and clock, a point a number of steps; the teacher at fewer steps, dashed, is
    the baseline to beat."""
    from plotly.graph_objects import Figure

    unit, per = flops_unit(rows)
    scale = per if cost == "tflops_full" else 1.0
    named = sorted(zip(curve_names(rows), rows, strict=True), key=lambda n: (n[1]["adaptor"] != "none", n[0]))
    learned = dict.fromkeys(name for name, row in named if row["adaptor"] != "none")
    colours = dict(zip(learned, COLOURS * len(rows), strict=False))  # the same in every plot of these rows
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
    x = f"{unit} an image, attention counted" if cost == "tflops_full" else AXES[cost]
    return styled(figure, x, AXES[quality])


def training(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
    """A plotly figure of losses by epoch: adaptor → {"loss": …, "identity": …}, the latter dotted."""
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
    """Transparent, so that the page's colours show; the legend below, so that it fits a narrow screen."""
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
