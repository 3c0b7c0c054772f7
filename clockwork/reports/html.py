"""The HTML report: one self-contained file with the rows, figures and images of an evaluation."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clockwork.errors import MissingFileError
from clockwork.evaluation.rows import flat_row, image_folder, read_rows, row_value
from clockwork.reports import plots
from clockwork.reports.adaptors import TrainedAdaptor, find_trained_adaptors
from clockwork.reports.categories import category_sheet
from clockwork.reports.formats import FEW_IMAGES, Sheet, few_images_note
from clockwork.reports.pages import page_template, write_page
from clockwork.reports.paper.comparison import NONE, UNMEASURED
from clockwork.reports.pareto import curve_names, pareto_figures
from clockwork.reports.spreads import with_spreads
from clockwork.reports.tables import Row, cell, present

SHARED = ("prompts", "images", "seeds", "metrics_label")  # rows can be compared if they agree in these columns
SIDE = 256  # maximum width and height of an image in the report, in pixels
FRAME_MILLISECONDS = 125


@dataclass(frozen=True)
class EditPair:
    """An image of an operating point, and the teacher's for the same prompt and seed, as data URLs.

    Attributes:
        ours: The image.
        teacher: The teacher's image, or None if the row is the teacher's own or there is no such image.
    """

    ours: str
    teacher: str | None


@dataclass(frozen=True)
class Line:
    """A row in the page.

    Attributes:
        values: Fields and metrics of the row, by name.
        name: Name of the operating point.
        cells: Per column, the text that is shown and the value to sort by.
        pairs: The images, one pair per prompt.
    """

    values: dict[str, Any]
    name: str
    cells: list[tuple[str, Any]]
    pairs: list[EditPair]


@dataclass(frozen=True)
class Group:
    """Rows that can be compared, because they share prompts, seed and metrics.

    Attributes:
        title: Description of what they share.
        columns: Columns of the table.
        lines: The rows.
        captions: The prompts whose images are shown.
        figures: Plotly figures as JSON objects.
        baseline: Whether one of the rows is the teacher without an adaptor.
        categories: Figures by the prompts' categories, if they have some.
        notes: What marks in the table mean.
    """

    title: str
    columns: list[str]
    lines: list[Line]
    captions: list[str]
    figures: list[dict[str, Any]]
    baseline: bool
    categories: Sheet | None
    notes: list[str]


def write_report(folder: Path, adaptors: Path | None = None, sheets: Sequence[Sheet] = (), count: int = 6) -> Path:
    """Writes `report.html` for the rows of a folder.

    Args:
        folder: An evaluation's output folder, with `rows.jsonl` and the generated images.
        adaptors: Folder of training runs whose losses are plotted, if any.
        sheets: Tables of the paper to show.
        count: Number of prompts whose images are shown.

    Returns:
        Path of the report.

    Raises:
        MissingFileError: If the folder has no rows.
        UserError: If its `report.html` is of something else.
    """
    from plotly.offline import get_plotlyjs

    rows = with_spreads(read_rows(folder / "rows.jsonl"))
    if not rows:
        raise MissingFileError(f"no rows in {folder / 'rows.jsonl'}: run `python scripts/evaluate.py output={folder}`")
    runs = [] if adaptors is None else find_trained_adaptors(adaptors, rows)
    page = page_template("report.html.jinja").render(
        title=", ".join(dict.fromkeys(str(row["teacher"]) for row in rows)),
        groups=[_group(group, folder, count) for group in _comparable(rows)],
        sheets=[(sheet, [[(text, _sort_key(text)) for text in line] for line in sheet.cells]) for sheet in sheets],
        curves=_curves(runs),
        unlogged=[run.name for run in runs if not run.curves and "calibration" not in run.config],
        plotly=get_plotlyjs(),
    )
    file = folder / "report.html"
    write_page(file, page)
    return file


def _sort_key(text: str) -> str | float:
    """Returns the value by which a sheet's cell is sorted; empty if it was not measured."""
    if text in (NONE, UNMEASURED):
        return ""
    try:
        return float(text.rstrip(f"%{FEW_IMAGES}"))
    except ValueError:
        return text


def _comparable(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups rows that share prompts, seed and metrics."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str([row.get(name) for name in SHARED]), []).append(row)
    return list(groups.values())


def _group(rows: Sequence[Row], folder: Path, count: int) -> Group:
    """Collects everything the page shows of comparable rows; `count` is the number of prompts with images."""
    columns, prompts = present(rows), _prompts(rows, folder)[:count]
    names = [f"{name}, {row['steps']} steps" for name, row in zip(curve_names(rows), rows, strict=True)]
    lines = [
        Line(_settings(row), name, [(cell(row, c), row_value(row, c)) for c in columns], _pairs(row, folder, prompts))
        for name, row in zip(names, rows, strict=True)
    ]
    figures = [_figure(figure) for figure in pareto_figures(rows).values()]
    first, seeds = rows[0], rows[0]["seeds"]
    noise = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    title = f"{first['images']} prompts ({first['prompts']}), {noise}; {first['metrics_label']}"
    baseline = any(row["adaptor"] == "none" for row in rows)
    captions, notes = (
        [text for _, text in prompts],
        few_images_note([[text for text, _ in line.cells] for line in lines]),
    )
    return Group(title, columns, lines, captions, figures, baseline, category_sheet(rows, folder), notes)


def _settings(row: Row) -> dict[str, Any]:
    """Returns the fields and metrics of a row, of the first where it stands for several."""
    return {name: value for name, value in flat_row(row).items() if name not in ("members", "rows")}


def _prompts(rows: Sequence[Row], folder: Path) -> list[tuple[int, str]]:
    """Reads the ids and texts of the prompts; without the evaluation's file of them, the ids of the images suffice."""
    file = folder / "prompts" / f"{rows[0]['prompts']}.json"
    if file.is_file():
        return [(number, text) for number, text, *_ in json.loads(file.read_text(encoding="utf-8"))]
    ids = sorted(int(image.stem) for image in image_folder(folder, rows[0]).glob("*.png"))
    return [(number, f"prompt {number}") for number in ids]


def _pairs(row: Row, folder: Path, prompts: Sequence[tuple[int, str]]) -> list[EditPair]:
    """Reads a row's images of the prompts, each with the teacher's if there is one and the row is not the teacher's."""
    images, teacher_images = image_folder(folder, row), image_folder(folder, row, "teacher_")
    pairs = []
    for number, _ in prompts:
        image, reference = images / f"{number}.png", teacher_images / f"{number}.png"
        if image.is_file():
            has_reference = reference.is_file() and image != reference
            pairs.append(EditPair(_data_url(image), _data_url(reference) if has_reference else None))
    return pairs


def _data_url(file: Path) -> str:
    """Encodes an image file: unchanged if it is small, else as WebP of at most `SIDE` pixels."""
    from PIL import Image

    with Image.open(file) as image:
        if max(image.size) <= SIDE:
            return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
        return image_url(image)


def image_url(image: Any, *later_frames: Any) -> str:
    """Encodes an image or a video as a data URL: as PNG if it is small, else as WebP of at most `SIDE` pixels.

    Args:
        image: A PIL image.
        *later_frames: Further images of the same size, which follow as a video, `FRAME_MILLISECONDS` each.
    """
    from PIL import Image

    content, kind = io.BytesIO(), "png" if max(image.size) <= SIDE else "webp"
    for frame in (image, *later_frames):
        frame.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    video = {"save_all": True, "append_images": later_frames, "duration": FRAME_MILLISECONDS, "loop": 0}
    image.save(content, kind, quality=90, **(video if later_frames else {}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _curves(runs: Sequence[TrainedAdaptor]) -> list[dict[str, Any]]:
    """Plots the losses of the training runs that have a log."""
    curves = {run.name: run.curves for run in runs if run.curves}
    return [_figure(plots.training(curves))] if curves else []


def _figure(figure: Any) -> dict[str, Any]:
    """Converts a plotly figure to a JSON object."""
    converted: dict[str, Any] = json.loads(figure.to_json())
    return converted
