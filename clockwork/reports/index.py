"""Which row of `rows.jsonl` belongs to which line of a table: one small file a table and scale, beside the rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clockwork.evaluation.rows import read_rows
from clockwork.io.atomic import atomic_write


def _file(folder: Path, name: str, scale: str) -> Path:
    return folder / "tables" / f"{name.replace(' ', '-')}-{scale}.json"


def write_index(folder: Path, name: str, scale: str, digests: Mapping[str, str]) -> None:
    """`digests` by the table's row names; whole or not at all."""
    with atomic_write(_file(folder, name, scale)) as partial:
        partial.write_text(json.dumps(digests, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def measured(folder: Path, name: str, scale: str) -> dict[str, dict[str, Any]]:
    """A table's rows as they were last measured, by row name; what was not is not there."""
    file = _file(folder, name, scale)
    if not file.is_file():
        return {}
    rows = {row["digest"]: row for row in read_rows(folder / "rows.jsonl")}
    index = json.loads(file.read_text(encoding="utf-8"))
    return {name: rows[digest] for name, digest in index.items() if digest in rows}


def edited(folder: Path, spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of an editing figure, by row name and number of inversion steps; with the same clock in both phases."""
    found = {}
    for row in read_rows(folder / "rows.jsonl"):
        for point in spec["points"]:
            clock = [point["adaptor"], point.get("schedule", "full")]
            phases = [
                [row[f"{phase}_{key}"] for key in ("adaptor", "schedule")] for phase in ("inversion", "generation")
            ]
            here = (row["benchmark"], row["teacher"]) == (spec["benchmark"], point["teacher"])
            if here and phases == [clock, clock]:
                found[f"{point['row']}, {row['inversion_steps']} inversion steps"] = row
    return found
