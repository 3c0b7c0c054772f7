"""Figures by the categories of the prompts, as DrawBench and PartiPrompts have them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clockwork.errors import MissingFileError
from clockwork.evaluation.per_image import read_per_image
from clockwork.metrics.registry import metric_info
from clockwork.reports.compare import operating_point, per_prompt
from clockwork.reports.formats import Sheet
from clockwork.reports.spreads import members, with_spreads
from clockwork.reports.tables import Row


def category_sheet(rows: Sequence[Row], folder: Path) -> Sheet | None:
    """Tables the means of each operating point over the prompts of each category.

    Args:
        rows: The rows. Those without figures of each image are left out.
        folder: Folder of `rows.jsonl`, with the prompts and the figures of each image.

    Returns:
        The table, with a line per operating point and category; None if no prompt has a category.
    """
    lines: list[tuple[str, str, int, dict[str, float]]] = []
    for point in with_spreads(rows):
        categories = _categories(folder, point)
        try:
            figures, ids = per_prompt(point, folder), read_per_image(folder, members(point)[0]).ids
        except MissingFileError:
            continue
        of_images = np.array([categories.get(name, "") for name in ids])
        for category in dict.fromkeys(categories.values()):
            chosen = of_images == category
            means = {metric: float(values[chosen].mean()) for metric, values in figures.items()}
            lines.append((operating_point(point), category, int(chosen.sum()), means))
    metrics = list(dict.fromkeys(metric for *_, means in lines for metric in means))
    cells = [
        [name, category, str(count), *(_cell(means.get(metric), metric) for metric in metrics)]
        for name, category, count, means in lines
    ]
    columns = ["operating point", "category", "prompts", *(metric_info(metric).label for metric in metrics)]
    return Sheet("Figures by category", columns, cells) if lines else None


def _categories(folder: Path, row: Row) -> dict[str, str]:
    """Reads the categories of a row's prompts by their ids; empty if they have none."""
    file = folder / "prompts" / f"{row.get('prompts')}.json"
    prompts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return {str(number): rest[0] for number, _, *rest in prompts if rest}


def _cell(value: float | None, metric: str) -> str:
    """Formats a mean."""
    return "–" if value is None else metric_info(metric).number_format.format(value)
