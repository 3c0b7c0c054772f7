"""Tables of rows: columns, number formats and labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clockwork.evaluation.rows import row_value
from clockwork.metrics.registry import find_metric, metric_info
from clockwork.reports.formats import FEW_IMAGES, few_images_note, markdown

Row = Mapping[str, Any]  # an operating point with its measurements, as `evaluation.rows.read_rows` returns it

# Columns of the table; `metrics` is replaced by the names of all that were measured.
COLUMNS = (
    *("teacher", "adaptor", "schedule", "solver", "steps"),
    *("metrics", "tflops_paper", "tflops_full", "latency_ms", "images", "rows"),
)


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Lists the metrics that were measured.

    Args:
        rows: The rows.

    Returns:
        Their names, in the order in which the rows have them.
    """
    return list(dict.fromkeys(name for row in rows for name in row.get("metrics", {})))


def present(rows: Sequence[Row], columns: Iterable[str] = COLUMNS) -> list[str]:
    """Selects the columns that have a value in at least one row.

    Args:
        rows: The rows.
        columns: Names of fields and metrics; `metrics` stands for all metrics that were measured.

    Returns:
        Those names, in the same order.
    """
    names = [name for column in columns for name in (metric_names(rows) if column == "metrics" else [column])]
    return [name for name in names if any(row_value(row, name) is not None for row in rows)]


def table(rows: Sequence[Row], columns: Iterable[str] = COLUMNS) -> str:
    """Formats rows as a Markdown table.

    Args:
        rows: The rows.
        columns: As in `present`; columns without any value are omitted.

    Returns:
        The table, with a note below it if figures are of few images.
    """
    shown = present(rows, columns)
    cells = [[cell(row, name) for name in shown] for row in rows]
    return "\n\n".join([markdown(shown, cells), *few_images_note(cells)])


def cell(row: Row, name: str) -> str:
    """Formats one value of a row.

    Args:
        row: The row, or one of `spreads.with_spreads`.
        name: A field or the name of a metric.

    Returns:
        The value, with its standard deviation over several rows as in `5.82 ± 0.11`, and a mark if it is a Fréchet
        distance of fewer images than features; a dash if it was not measured.
    """
    value = row_value(row, name)
    if value is None:
        return "–"
    is_metric = name in row.get("metrics", {}) or find_metric(name) is not None
    if not is_metric:
        return str(value)
    info, spread = metric_info(name), row.get("spreads", {}).get(name)
    mark = FEW_IMAGES if row.get("images", info.num_features + 1) <= info.num_features else ""
    text = info.number_format.format(value)
    return f"{text}{mark}" if spread is None else f"{text} ± {info.number_format.format(spread)}{mark}"


def card_labels(row: Row) -> dict[str, str]:
    """Labels the measurements of a row for an adaptor's model card.

    Args:
        row: The row.

    Returns:
        Labels by the names of metrics and costs, of those that were measured.
    """
    return {
        name: metric_info(name).label
        for name in present([row], ("metrics", "tflops_paper", "tflops_full", "latency_ms"))
    }


def label(row: Row) -> str:
    """Names the curve that a row belongs to.

    Args:
        row: The row.

    Returns:
        The teacher's name, adaptor and schedule such as `resnet clock2`, or the rival's name.
    """
    if row["adaptor"] == "none":
        return str(row["teacher"])
    return str(row["adaptor"]) if row["schedule"] == "full" else f"{row['adaptor']} {row['schedule']}"


def flops_unit(rows: Sequence[Row]) -> tuple[str, float]:
    """Chooses a unit of FLOPs with readable numbers.

    Args:
        rows: Rows with `tflops_full`.

    Returns:
        The name of the unit, and the factor that converts TFLOPs to it.
    """
    return ("TFLOPs", 1.0) if max(row["tflops_full"] for row in rows) > 0.1 else ("GFLOPs", 1000.0)
