"""Which lines of `rows.jsonl` are rows. Others are passed over, so that a kill or a slip in an editor costs no row."""

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from clockwork.io import distributed

# What rows of every version have, of text-to-image and of editing.
_REQUIRED = (("digest", "adaptor", "schedule", "steps"), ("digest", "benchmark", "inversion_steps"))


def parse_row(line: bytes, kinds: tuple[type, ...]) -> dict[str, Any] | None:
    """Reads a line of a file of rows.

    Args:
        line: The line.
        kinds: The dataclasses of rows, whose fields a row may have besides others.

    Returns:
        The row; None if the line is none, because it is not JSON or a field is missing or of another type.
    """
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and _is_row(row, kinds) else None


def _is_row(row: Mapping[str, Any], kinds: tuple[type, ...]) -> bool:
    if not any(all(row.get(name) is not None for name in required) for required in _REQUIRED):
        return False
    types = _types(kinds)
    if not all(_fits(value, types[name]) for name, value in row.items() if name in types and name != "metrics"):
        return False
    metrics = row.get("metrics")
    if not _fits(metrics, (dict, str, NoneType)):  # a text in rows of earlier versions, with figures among the fields
        return False
    figures = metrics.values() if isinstance(metrics, dict) else ()
    names = [row[name] for name in row if name.endswith("digest") or name == "prompts"]
    return all(_fits(figure, (float, NoneType)) for figure in figures) and all(map(_names_a_folder, names))


def _names_a_folder(name: Any) -> bool:
    """Whether a value can be the name of a folder or file among those of the rows; None names nothing."""
    return name is None or (isinstance(name, str) and re.fullmatch(r"\w[\w.+-]*", name) is not None)


@cache
def _types(kinds: tuple[type, ...]) -> dict[str, tuple[type, ...]]:
    """The types of the fields of rows; None is always allowed, for what an earlier version did not know."""
    types: dict[str, tuple[type, ...]] = {}
    for kind in kinds:
        for name, hint in get_type_hints(kind).items():
            arms = get_args(hint) if isinstance(hint, UnionType) else (hint,)
            types[name] = (*types.get(name, ()), *(get_origin(arm) or arm for arm in arms), NoneType)
    return types


def _fits(value: Any, types: tuple[type, ...]) -> bool:
    """Whether a value has one of the types, and is finite if it is a number. A whole number is a number, too."""
    if type(value) is int:
        return int in types or (float in types and abs(value) < 2**53)
    return type(value) in types and (type(value) is not float or math.isfinite(value))


@cache
def report_foreign_lines(file: Path, numbers: tuple[int, ...]) -> None:
    """Prints, once per process, which lines of a file are no rows.

    Args:
        file: The file of rows.
        numbers: Numbers of the lines, from 1.
    """
    if distributed.rank() == 0:
        shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
        lines = "1 line that is no row is" if len(numbers) == 1 else f"{len(numbers)} lines that are no rows are"
        print(f"{file}: {lines} passed over ({shown})")
