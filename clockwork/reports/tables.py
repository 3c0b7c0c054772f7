"""Rows as a table to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from clockwork.reports.formats import markdown

Row = Mapping[str, Any]

COLUMNS = {
    "teacher": "{}",
    "adaptor": "{}",
    "schedule": "{}",
    "solver": "{}",
    "steps": "{}",
    "fid": "{:.2f}",
    "clip_score": "{:.4f}",
    "fid_miniature": "{:.2f}",
    "clip_score_miniature": "{:.4f}",
    "psnr": "{:.2f}",
    "ssim": "{:.4f}",
    "tflops_paper": "{:.4g}",
    "tflops_full": "{:.4g}",
    "latency_ms": "{:.1f}",
    "images": "{}",
}


def table(rows: Sequence[Row], formats: Mapping[str, str] = COLUMNS) -> str:
    """Markdown, without the columns that no row has a value for."""
    columns = [name for name in formats if any(row.get(name) is not None for row in rows)]
    cells = [[cell(row, name, formats) for name in columns] for row in rows]
    return markdown(columns, cells)


def cell(row: Row, name: str, formats: Mapping[str, str] = COLUMNS) -> str:
    return "–" if row.get(name) is None else formats[name].format(row[name])


def label(row: Row) -> str:
    """Teacher or adaptor, and its clock: "resnet clock2"."""
    return str(row["teacher"]) if row["adaptor"] == "none" else f"{row['adaptor']} {row['schedule']}"


def flops_unit(rows: Sequence[Row]) -> tuple[str, float]:
    """A unit that can be read, and what TFLOPs are multiplied by for it."""
    return ("TFLOPs", 1.0) if max(row["tflops_full"] for row in rows) > 0.1 else ("GFLOPs", 1000.0)
