"""`report.html`: one file with everything a sweep's folder holds, to open from disk or to send."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clockwork.errors import MissingFileError
from clockwork.evaluation.rows import image_folder, read_rows
from clockwork.io.atomic import atomic_write
from clockwork.reports import plots
from clockwork.reports.adaptors import Trained, trained
from clockwork.reports.formats import Sheet
from clockwork.reports.paper.comparison import NONE, UNMEASURED
from clockwork.reports.tables import COLUMNS, Row, cell

SHARED = ("prompts", "images", "seed", "metrics")  # rows alike in these can be compared
SIDE = 256  # pixels a side, at most, of a picture in the report


@dataclass(frozen=True)
class Pair:
    """A picture and the teacher's of the same prompt and seed, as data URLs."""

    ours: str
    teacher: str | None


@dataclass(frozen=True)
class Line:
    """An operating point in the page."""

    row: Row
    name: str
    cells: list[tuple[str, Any]]  # what is shown, and what is sorted by
    pairs: list[Pair]


@dataclass(frozen=True)
class Group:
    """Rows that can be compared: the same prompts, seed and metrics."""

    title: str
    columns: list[str]
    lines: list[Line]
    captions: list[str]
    figures: list[dict[str, Any]]
    baseline: bool


def write_report(folder: Path, adaptors: Path | None = None, sheets: Sequence[Sheet] = (), pictures: int = 6) -> Path:
    """`folder/report.html` from `folder/rows.jsonl`, the pictures beside it, the logs of trained adaptors under
    `adaptors`, and `sheets` of the paper's figures beside ours; `pictures` is how many prompts are shown."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    rows = read_rows(folder / "rows.jsonl")
    if not rows:
        raise MissingFileError(f"no rows in {folder / 'rows.jsonl'}: run `python scripts/evaluate.py output={folder}`")
    logs = [] if adaptors is None else trained(adaptors, rows)
    environment = Environment(
        loader=PackageLoader("clockwork.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        title=", ".join(dict.fromkeys(str(row["teacher"]) for row in rows)),
        groups=[_group(same, folder, pictures) for same in _comparable(rows)],
        sheets=[(sheet, [[(text, _order(text)) for text in line] for line in sheet.cells]) for sheet in sheets],
        curves=_curves(logs),
        unlogged=[log.name for log in logs if not log.curves],
        plotly=get_plotlyjs(),
    )
    file = folder / "report.html"
    with atomic_write(file) as partial:
        partial.write_text(page, encoding="utf-8")
    return file


def _order(text: str) -> str | float:
    """What a cell of a sheet is sorted by; nothing for what is not there."""
    if text in (NONE, UNMEASURED):
        return ""
    try:
        return float(text.rstrip("%"))
    except ValueError:
        return text


def _comparable(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in SHARED), []).append(row)
    return list(groups.values())


def _group(rows: Sequence[Row], folder: Path, count: int) -> Group:
    columns, prompts = plots.present(rows, COLUMNS), _prompts(rows, folder)[:count]
    names = [f"{name}, {row['steps']} steps" for name, row in zip(plots.curve_names(rows), rows, strict=True)]
    lines = [
        Line(row, name, [(cell(row, c), row.get(c)) for c in columns], _pairs(row, rows, folder, prompts))
        for name, row in zip(names, rows, strict=True)
    ]
    figures = [
        _figure(plots.pareto(rows, quality, cost))
        for quality in plots.present(rows, plots.QUALITY)
        for cost in plots.present(rows, plots.COSTS)
    ]
    first = rows[0]
    title = f"{first['images']} prompts ({first['prompts']}), seed {first['seed']}; {first['metrics']}"
    baseline = any(row["adaptor"] == "none" for row in rows)
    return Group(title, columns, lines, [text for _, text in prompts], figures, baseline)


def _prompts(rows: Sequence[Row], folder: Path) -> list[tuple[int, str]]:
    """Ids and texts, as the evaluation wrote them down; without that, the numbers of the pictures that are there."""
    kept = folder / "prompts" / f"{rows[0]['prompts']}.json"
    if kept.is_file():
        return [(number, text) for number, text in json.loads(kept.read_text(encoding="utf-8"))]
    numbers = sorted(int(f.stem) for f in image_folder(folder, rows[0]).glob("*.png"))
    return [(number, f"prompt {number}") for number in numbers]


def _pairs(row: Row, rows: Sequence[Row], folder: Path, prompts: Sequence[tuple[int, str]]) -> list[Pair]:
    ours, theirs = image_folder(folder, row), image_folder(folder, row, "teacher_")
    pairs = []
    for number, _ in prompts:
        mine, teachers = ours / f"{number}.png", theirs / f"{number}.png"
        if mine.is_file():
            pairs.append(Pair(_data_url(mine), _data_url(teachers) if teachers.is_file() and ours != theirs else None))
    return pairs


def _data_url(file: Path) -> str:
    """The file's own bytes where it is small; else WebP of `SIDE` pixels."""
    from PIL import Image

    with Image.open(file) as image:
        if max(image.size) <= SIDE:
            return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        image.save(content, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def _curves(logs: Sequence[Trained]) -> list[dict[str, Any]]:
    curves = {log.name: log.curves for log in logs if log.curves}
    return [_figure(plots.training(curves))] if curves else []


def _figure(figure: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(figure.to_json())
    return plain
