"""Grids of generated images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from clockwork.data.image_io import read_images, write_grid
from clockwork.evaluation.rows import image_folder
from clockwork.reports.tables import Row, label


class _Prompt(Protocol):
    """The attribute of `data.prompts.Prompt` that is read here."""

    @property
    def id(self) -> int: ...


def images_side_by_side(rows: Sequence[Row], prompts: Sequence[_Prompt], folder: Path, count: int = 10) -> None:
    """Writes `grid.png`: one line per operating point, with the same prompts and seeds.

    Operating points whose images were not kept are left out; without any there is no file.

    Args:
        rows: The rows.
        prompts: The prompts of the evaluation.
        folder: The output folder of the rows, with the generated images.
        count: Number of prompts, from the first.
    """
    lines = {}
    for row in rows:
        files = [image_folder(folder, row) / f"{p.id}.png" for p in prompts[:count]]
        if all(file.is_file() for file in files):
            lines[f"{label(row)}, {row['steps']} steps"] = read_images(files)
    if lines:
        write_grid(folder / "grid.png", lines, side=64)
