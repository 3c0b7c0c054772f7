"""Reports of editing: the table, Figures 6 and 15, and grids of edited images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from clockwork.data.image_files import read_image
from clockwork.data.image_io import write_grid
from clockwork.evaluation.rows import image_folder
from clockwork.reports.pareto import save_pareto
from clockwork.reports.tables import Row, label, metric_names

# Columns of the table (see `reports.tables`).
COLUMNS = (
    *("benchmark", "teacher", "adaptor", "schedule", "inversion_steps", "generation_steps"),
    *("metrics", "tflops_paper", "tflops_full", "pairs"),
)


class _EditPair(Protocol):
    """The attributes of `editing.benchmark.EditPair` that are read here."""

    @property
    def id(self) -> str: ...
    @property
    def image(self) -> Callable[[], Any]: ...
    @property
    def ground_truth(self) -> Callable[[], Any] | None: ...


def readable(rows: Sequence[Row]) -> list[Row]:
    """Adds the columns `adaptor`, `schedule` and `steps`, which name the curves and points of figures.

    Args:
        rows: Rows of editing (`evaluation.rows.EditRow`).

    Returns:
        The rows. Where inversion and generation differ, `adaptor` has the form `inversion's | generation's`. `steps` is
        the number of inversion steps.
    """
    return [{**row, **_clock(row), "steps": row["inversion_steps"]} for row in rows]


def _clock(row: Row) -> dict[str, str]:
    """Returns one adaptor and one schedule for both phases."""
    inversion, generation = ((row[f"{p}_adaptor"], row[f"{p}_schedule"]) for p in ("inversion", "generation"))
    if inversion == generation:
        return dict(zip(("adaptor", "schedule"), generation, strict=True))
    return {"adaptor": f"{' '.join(inversion)} | {generation[0]}", "schedule": generation[1]}


def figures(rows: Sequence[Row], folder: Path) -> None:
    """Plots quality against FLOPs: `figure15-<benchmark>.png` per benchmark, and `figure6.png` for all of them.

    Args:
        rows: Rows of editing.
        folder: Folder of the figures.
    """
    rows = readable(rows)
    benchmarks = dict.fromkeys(row["benchmark"] for row in rows)
    for name in benchmarks:
        save_pareto([row for row in rows if row["benchmark"] == name], folder / f"figure15-{name}.png")
    if everywhere := _over_benchmarks(rows, len(benchmarks)):
        save_pareto(everywhere, folder / "figure6.png")


def _over_benchmarks(rows: Sequence[Row], num_benchmarks: int) -> list[Row]:
    """Averages over all benchmarks, for the operating points that were measured on each of them."""
    points: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        points.setdefault((label(row), row["inversion_steps"], row["generation_steps"]), []).append(row)
    return [_mean(same) for same in points.values() if len({row["benchmark"] for row in same}) == num_benchmarks]


def _mean(rows: Sequence[Row]) -> Row:
    """Averages rows of one operating point over their pairs; a metric that one of them lacks is left out."""
    pairs = sum(row["pairs"] for row in rows)
    common = [name for name in metric_names(rows) if all(name in row["metrics"] for row in rows)]
    metrics = {name: sum(row["metrics"][name] * row["pairs"] for row in rows) / pairs for name in common}
    return {
        **rows[0],
        "metrics": metrics,
        "tflops_full": sum(row["tflops_full"] * row["pairs"] for row in rows) / pairs,
    }


def side_by_side(rows: Sequence[Row], pairs: Sequence[_EditPair], folder: Path, count: int = 8) -> None:
    """Writes `images-<benchmark>-<steps>.png`: source images, ground truth if known, and the edits of every row.

    Args:
        rows: Rows of one benchmark.
        pairs: The benchmark's pairs.
        folder: The output folder of the rows, with the edited images.
        count: Number of pairs, which are spread evenly over the benchmark.
    """
    import torch

    chosen = pairs[:: max(1, len(pairs) // count)][:count]
    lines = {"source": torch.stack([pair.image() for pair in chosen])}
    if all(pair.ground_truth for pair in chosen):
        lines["ground truth"] = torch.stack([pair.ground_truth() for pair in chosen if pair.ground_truth])
    for row in readable(rows):
        files = [image_folder(folder, row) / f"{pair.id}.png" for pair in chosen]
        name = "no clock" if row["adaptor"] == "none" else label(row)
        lines[name] = torch.stack([read_image(file) for file in files])
    steps = "-".join(str(n) for n in dict.fromkeys(row["inversion_steps"] for row in rows))
    write_grid(folder / f"images-{rows[0]['benchmark']}-{steps}.png", lines, side=64)
