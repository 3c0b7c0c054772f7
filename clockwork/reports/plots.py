"""Interactive plots of training losses, the layout of all interactive plots, and how other plots are written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clockwork.io.outputs import write_output

# Readable on light and dark backgrounds and with colour blindness (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#A6761D")
BASELINE = "#888888"


def save_figure(figure: Any, file: Path) -> None:
    """Writes a figure of matplotlib and closes it. A png file names this package, so that it may be replaced.

    Args:
        figure: The figure.
        file: The file to write; its suffix gives the format.

    Raises:
        UserError: A file of something else is there.
    """
    import matplotlib.pyplot as plt

    metadata = {"Software": "Clockwork"} if file.suffix == ".png" else None
    with write_output(file) as partial:
        figure.savefig(partial, dpi=130, format=file.suffix[1:], metadata=metadata)
    plt.close(figure)


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
