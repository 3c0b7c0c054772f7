"""Calibration's error on each adaptor step, beside that of the identity adaptor: a table and a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clockwork.reports.formats import markdown
from clockwork.reports.plots import save_figure

COLUMNS = ("step", "error", "identity's error", "ridge", "note")


def step_table(steps: Sequence[Mapping[str, Any]]) -> str:
    """Formats the fits of the adaptor steps as a Markdown table.

    Args:
        steps: The fits, with the fields of `clockwork.calibration.least_squares.StepFit`.

    Returns:
        The table. A note marks the steps on which only the ridge made the solution unique.
    """
    cells = [
        [
            str(fit["step"]),
            f"{fit['error']:.3f}",
            f"{fit['identity_error']:.3f}",
            f"{fit['ridge']:g}",
            "singular: the ridge decides" if fit["singular"] else "",
        ]
        for fit in steps
    ]
    columns = COLUMNS if any(fit["singular"] for fit in steps) else COLUMNS[:-1]
    return markdown(columns, [line[: len(columns)] for line in cells])


def save_step_errors(steps: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Plots the error of each adaptor step.

    Args:
        steps: The fits, as for `step_table`.
        file: The image file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.2, 4), layout="constrained")
    positions = [fit["step"] for fit in steps]
    axis.plot(positions, [fit["identity_error"] for fit in steps], "s--", color="C7", markersize=4, label="identity")
    axis.plot(positions, [fit["error"] for fit in steps], "o-", markersize=4, label="linear")
    axis.set(xlabel="adaptor step", ylabel="relative L2 error of r_out after guidance", ylim=(0, None))
    if len(positions) <= 12:
        axis.set_xticks(positions)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save_figure(figure, file)
