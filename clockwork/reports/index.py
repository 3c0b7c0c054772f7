"""Index files that map the lines of a table to rows of `rows.jsonl`: one small file per table and scale."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clockwork.evaluation.rows import read_rows
from clockwork.io.atomic import atomic_write
from clockwork.reports.spreads import members, with_spreads


def _file(folder: Path, name: str, scale: str) -> Path:
    """Returns the path of a table's index file."""
    return folder / "tables" / f"{name.replace(' ', '-')}-{scale}.json"


def write_index(folder: Path, name: str, scale: str, digests: Mapping[str, str]) -> None:
    """Writes the index file of a table atomically.

    Args:
        folder: The output folder of the rows.
        name: Name of the table, for example `table 3`.
        scale: `miniature` or `paper`.
        digests: Digests of the rows by the names of the table's lines.
    """
    with atomic_write(_file(folder, name, scale)) as partial:
        partial.write_text(json.dumps(digests, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def measured(folder: Path, name: str, scale: str) -> dict[str, dict[str, Any]]:
    """Reads the rows of a table that have been measured.

    Args:
        folder: The output folder of the rows.
        name: Name of the table, for example `table 3`.
        scale: `miniature` or `paper`.

    Returns:
        The rows by the names of the table's lines, with spreads over noise seeds where there are several. Lines that
        were not measured are absent.
    """
    file = _file(folder, name, scale)
    if not file.is_file():
        return {}
    points = with_spreads(read_rows(folder / "rows.jsonl"))
    rows = {member["digest"]: dict(point) for point in points for member in members(point)}
    index = json.loads(file.read_text(encoding="utf-8"))
    return {name: rows[digest] for name, digest in index.items() if digest in rows}


def edited(folder: Path, spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Reads the rows of a figure on editing that have been measured with the same clock in inversion and generation.

    Args:
        folder: The output folder of the rows.
        spec: The figure's benchmark and operating points, as in `configs/figure`.

    Returns:
        The rows by the point's name and the number of inversion steps.
    """
    rows = {}
    for row in read_rows(folder / "rows.jsonl"):
        for point in spec["points"]:
            if _is_point(row, point, spec["benchmark"]):
                rows[f"{point['row']}, {row['inversion_steps']} inversion steps"] = row
    return rows


def _is_point(row: Mapping[str, Any], point: Mapping[str, Any], benchmark: str) -> bool:
    """Checks whether a row has the benchmark, the teacher, and in both phases the clock of an operating point."""
    clock = (point["adaptor"], point.get("schedule", "full"))
    clocks = [(row[f"{phase}_adaptor"], row[f"{phase}_schedule"]) for phase in ("inversion", "generation")]
    return (row["benchmark"], row["teacher"]) == (benchmark, point["teacher"]) and clocks == [clock, clock]
