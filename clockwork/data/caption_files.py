"""Readers of caption files: text, csv, tsv, jsonl and parquet, row by row, and COCO's json."""

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from clockwork.errors import MissingFileError, UserError, import_extra

Reader = Callable[[Path], Iterator[dict[str, Any]]]
COLUMNS = ("caption", "prompt", "text", "TEXT", "Prompts", "Prompt")  # in which captions are looked for by default


def read_captions(
    path: Path, column: str | None = None, category: str | None = None, quotes: bool = True
) -> Iterator[tuple[str, str | None]]:
    """Reads captions and their categories one at a time, in the order of the file.

    Args:
        path: The file. `.csv`, `.tsv`, `.jsonl` and `.parquet` files are tables; a `.json` file holds COCO's
            annotations, of which the caption with the lowest id of each image is used, ordered by image id. Any other
            file has one caption per line.
        column: Column of the captions in a table; the first of `COLUMNS` that exists by default.
        category: Column of the captions' categories in a table; None for captions without categories.
        quotes: Whether fields of a csv or tsv file may be quoted. If not, quotes are part of the captions.

    Yields:
        The captions that are not empty, with white space and line breaks replaced by single spaces, and their
        categories.

    Raises:
        MissingFileError: There is no such file.
        UserError: The file has no captions, no such column, or a row that cannot be read.
    """
    if not path.is_file():
        raise MissingFileError(f"no caption file at {path}: pass prompts.path=<a file of captions>")
    name = None
    for row in read_rows(path, quotes):
        name = name or caption_column(path, list(row), column)
        if category is not None and category not in row:
            raise UserError(f"{path} has no column {category!r}, only {', '.join(row)}: pass prompts.category=…")
        if name not in row:
            raise UserError(f"{path} has a row without {name!r}: {str(row)[:80]}")
        if caption := " ".join(str(row[name] or "").split()):  # captions may contain line breaks
            yield caption, None if category is None else str(row[category])
    if name is None:
        raise UserError(f"{path} holds no captions: write one per line")


def read_rows(path: Path, quotes: bool = True) -> Iterator[dict[str, Any]]:
    """Reads the rows of a table.

    Args:
        path: A file; its suffix determines the format, as in `read_captions`.
        quotes: Whether fields of a csv or tsv file may be quoted.

    Returns:
        One dictionary per row, by column. The lines of a text file are rows with the column `caption`.

    Raises:
        UserError: A line of the file is not valid.
    """
    table: Reader = partial(_csv, quotes=quotes)
    readers: dict[str, Reader] = {".csv": table, ".tsv": table, ".jsonl": _jsonl, ".parquet": _parquet, ".json": _coco}
    return readers.get(path.suffix, _lines)(path)


def caption_column(path: Path, available: list[str], column: str | None) -> str:
    """Chooses the column of a table that holds the captions.

    Args:
        path: File of the table, for the error message.
        available: Columns of the table.
        column: Name of the column, or None for the first of `COLUMNS` that exists.

    Returns:
        Name of the column.

    Raises:
        UserError: The table has no such column.
    """
    for name in (column,) if column else COLUMNS:
        if name in available:
            return name
    expected = repr(column) if column else "caption, prompt or text"
    raise UserError(f"{path} has no column {expected}, only {', '.join(map(str, available))}: pass prompts.column=…")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Reads a text file with one caption per line."""
    with path.open(encoding="utf-8") as lines:
        yield from ({"caption": line} for line in lines if line.strip())


def _csv(path: Path, quotes: bool) -> Iterator[dict[str, Any]]:
    """Reads a csv or tsv file with a header, which may begin with a byte order mark, as spreadsheets write it."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",", quoting=quoting, strict=True)
        try:
            yield from reader
        except csv.Error as error:
            at = f"{path}, line {reader.reader.line_num}"
            raise UserError(
                f"{at} has a quote that does not enclose a field ({error}): double it, or pass prompts.quotes=false if "
                "fields are not quoted"
            ) from error


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Reads a file with one JSON object per line."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(f"{path}, line {number} is not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise UserError(f'{path}, line {number} is not a JSON object: write {{"caption": …}} on each line')
                yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Reads a parquet file batch by batch."""
    parquet = import_extra("pyarrow.parquet", "eval")

    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _coco(path: Path) -> Iterator[dict[str, Any]]:
    """Reads COCO's annotations: for each image, ordered by its id, the annotation with the lowest id."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "annotations" not in content:
        raise UserError(f"{path} is not a COCO caption file: use one, or a txt, csv, tsv, jsonl or parquet file")
    ordered = sorted(content["annotations"], key=lambda a: (a["image_id"], a["id"]))
    for _, annotations in groupby(ordered, key=lambda a: a["image_id"]):
        yield next(annotations)
