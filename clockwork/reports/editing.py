"""Reports of editing: the table, Figures 6 and 15, and grids of edited images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from clockwork.data.image_io import read_image, write_grid
from clockwork.evaluation.rows import image_folder
from clockwork.reports.figures import pareto
from clockwork.reports.tables import Row, label

QUALITY = (
    "clip_score",
    "dino_distance",
    "clip_score_miniature",
    "structure_miniature",
    "psnr_right",
    "psnr_reconstruction",
)
COLUMNS = {
    "benchmark": "{}",
    "teacher": "{}",
    "adaptor": "{}",
    "schedule": "{}",
    "inversion_steps": "{}",
    "generation_steps": "{}",
    "clip_score": "{:.4f}",
    "dino_distance": "{:.4f}",
    "clip_score_miniature": "{:.4f}",
    "structure_miniature": "{:.5f}",
    "psnr_right": "{:.2f}",
    "psnr_unedited": "{:.2f}",
    "psnr_reconstruction": "{:.2f}",
    "psnr_autoencoder": "{:.2f}",
    "tflops_paper": "{:.4g}",
    "tflops_full": "{:.4g}",
    "pairs": "{}",
}


class _Pair(Protocol):
    """The attributes of `editing.benchmark.EditPair` that are read here."""

    @property
    def id(self) -> str: ...
    @property
    def picture(self) -> Callable[[], Any]: ...
    @property
    def right(self) -> Callable[[], Any] | None: ...


def readable(rows: Sequence[Row]) -> list[Row]:
    """Adds the columns `adaptor`, `schedule` and `steps`, which name the curves and points of figures.

    Args:
        rows: Rows of editing (`editing.rows.Row`).

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
        pareto([row for row in rows if row["benchmark"] == name], folder / f"figure15-{name}.png", QUALITY)
    pareto(_over_benchmarks(rows, len(benchmarks)), folder / "figure6.png", QUALITY)


def _over_benchmarks(rows: Sequence[Row], num_benchmarks: int) -> list[Row]:
    """Averages over all benchmarks, for the operating points that were measured on each of them."""
    points: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        points.setdefault((label(row), row["inversion_steps"], row["generation_steps"]), []).append(row)
    return [_mean(same) for same in points.values() if len({row["benchmark"] for row in same}) == num_benchmarks]


def _mean(rows: Sequence[Row]) -> Row:
    """Averages rows of one operating point over their pairs; a value that one of them lacks is None."""

    def mean(name: str) -> float | None:
        if any(row.get(name) is None for row in rows):
            return None
        return float(sum(row[name] * row["pairs"] for row in rows) / sum(row["pairs"] for row in rows))

    return {**rows[0], **{name: mean(name) for name in (*QUALITY, "tflops_full")}}


def side_by_side(rows: Sequence[Row], pairs: Sequence[_Pair], folder: Path, count: int = 8) -> None:
    """Writes `pictures-<benchmark>-<steps>.png`: source images, ground truth if known, and the edits of every row.

    Args:
        rows: Rows of one benchmark.
        pairs: The benchmark's pairs.
        folder: The output folder of the rows, with the edited images in `pictures`.
        count: Number of pairs, which are spread evenly over the benchmark.
    """
    import torch

    chosen = pairs[:: max(1, len(pairs) // count)][:count]
    lines = {"source": torch.stack([pair.picture() for pair in chosen])}
    if all(pair.right for pair in chosen):
        lines["ground truth"] = torch.stack([pair.right() for pair in chosen if pair.right])
    for row in readable(rows):
        files = [image_folder(folder, row) / f"{pair.id}.png" for pair in chosen]
        name = "no clock" if row["adaptor"] == "none" else label(row)
        lines[name] = torch.stack([read_image(file) for file in files])
    steps = "-".join(str(n) for n in dict.fromkeys(row["inversion_steps"] for row in rows))
    write_grid(folder / f"pictures-{rows[0]['benchmark']}-{steps}.png", lines, side=64)
