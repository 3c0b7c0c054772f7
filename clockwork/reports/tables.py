"""Tables of rows: columns, number formats and labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from clockwork.reports.formats import markdown

Row = Mapping[str, Any]  # an operating point with its measurements, as read from rows.jsonl

# The columns of the table and their number formats.
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
    """Formats rows as a Markdown table.

    Args:
        rows: The rows.
        formats: Format strings by column. Columns without any value are omitted.

    Returns:
        The table.
    """
    columns = [name for name in formats if any(row.get(name) is not None for row in rows)]
    cells = [[cell(row, name, formats) for name in columns] for row in rows]
    return markdown(columns, cells)


def cell(row: Row, name: str, formats: Mapping[str, str] = COLUMNS) -> str:
    """Formats one value of a row.

    Args:
        row: The row.
        name: The column.
        formats: Format strings by column.

    Returns:
        The value, or a dash if it was not measured.
    """
    return "–" if row.get(name) is None else formats[name].format(row[name])


def label(row: Row) -> str:
    """Names the curve that a row belongs to.

    Args:
        row: The row.

    Returns:
        The teacher's name, or adaptor and schedule such as `resnet clock2`.
    """
    return str(row["teacher"]) if row["adaptor"] == "none" else f"{row['adaptor']} {row['schedule']}"


def flops_unit(rows: Sequence[Row]) -> tuple[str, float]:
    """Chooses a unit of FLOPs with readable numbers.

    Args:
        rows: Rows with `tflops_full`.

    Returns:
        The name of the unit, and the factor that converts TFLOPs to it.
    """
    return ("TFLOPs", 1.0) if max(row["tflops_full"] for row in rows) > 0.1 else ("GFLOPs", 1000.0)
