"""Readers of caption files: text, csv, tsv, jsonl and parquet, row by row, and COCO's json."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from clockwork.data.text_files import COMPRESSED, kind_of, read_text, text_lines
from clockwork.errors import MissingFileError, UserError, import_extra
from clockwork.io.foreign import check_not_pointer, one_line

Row = tuple[str, dict[str, Any]]  # where it is, such as "captions.csv, line 3", and its values by column
Reader = Callable[[Path], Iterator[Row]]
COLUMNS = ("caption", "prompt", "text", "TEXT", "Prompts", "Prompt")  # in which captions are looked for by default


def read_captions(
    path: Path, column: str | None = None, category: str | None = None, quotes: bool | None = None
) -> Iterator[tuple[str, str | None]]:
    """Reads captions and their categories one at a time, in the order of the file.

    Args:
        path: The file. `.csv`, `.tsv`, `.jsonl`, `.ndjson` and `.parquet` files are tables; a `.json` file holds COCO's
            annotations, of which the caption with the lowest id of each image is used, ordered by image id. Any other
            file has one caption per line. All but parquet files may be compressed (`.csv.gz`, `.bz2`, `.xz`).
        column: Column of the captions in a table; the first of `COLUMNS` that exists by default.
        category: Column of the captions' categories in a table; None for captions without categories.
        quotes: Whether fields of a csv or tsv file may be quoted. If not, quotes are part of the captions. By default
            csv files have quotes and tsv files have none, and a tsv file with fields that seem to be quoted is refused.

    Yields:
        The captions that are not empty, with white space and line breaks replaced by single spaces, and their
        categories.

    Raises:
        MissingFileError: There is no such file.
        UserError: The file has no captions, no such column, or a row that cannot be read; the message names its line.
    """
    if not path.is_file():
        raise MissingFileError(f"no caption file at {path}: pass prompts.path=<a file of captions>")
    name, is_empty = None, True
    for place, row in read_rows(path, quotes):
        name = name or caption_column(path, list(row), column)
        if category is not None and category not in row:
            raise UserError(f"{place} has no column {category!r}, only {', '.join(row)}: pass prompts.category=…")
        if name not in row:
            raise UserError(f"{place} is a row without {name!r}: {str(row)[:80]}")
        if caption := text_of(row[name], place, name):
            group = None if category is None or row[category] is None else str(row[category])
            yield caption, group
            is_empty = False
    if is_empty:
        raise UserError(f"{path} holds no captions: write one per line")


def text_of(value: Any, place: str, column: str) -> str:
    """Returns a caption, with white space and line breaks replaced by single spaces.

    Args:
        value: What a table holds: a text, its bytes in UTF-8, or None.
        place: Where it is, for the message.
        column: Its column, for the message.

    Raises:
        UserError: The value is no text.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if value is not None and not isinstance(value, str):
        raise UserError(f"{place}, column {column!r} holds a {type(value).__name__} ({str(value)[:40]}), not a text")
    if wrong := re.search("[\0\ud800-\udfff]", value or ""):
        raise UserError(f"{place}, column {column!r} is not valid text at character {wrong.start() + 1}: correct it")
    # Captions may contain line breaks, and files that were joined byte-order marks.
    return " ".join((value or "").replace("\ufeff", " ").split())


def read_rows(path: Path, quotes: bool | None = None) -> Iterator[Row]:
    """Reads the rows of a table.

    Args:
        path: A file; its ending determines the format, as in `read_captions`.
        quotes: Whether fields of a csv or tsv file may be quoted, as in `read_captions`.

    Returns:
        Where each row is, and a dictionary by column. The lines of a text file are rows with the column `caption`.

    Raises:
        UserError: A line of the file is not valid.
    """
    table: Reader = partial(_csv, quotes=quotes)
    readers: dict[str, Reader] = {".csv": table, ".tsv": table, ".parquet": _parquet, ".json": _coco}
    return (readers | dict.fromkeys((".jsonl", ".ndjson"), _jsonl)).get(kind_of(path), _lines)(path)


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


def _lines(path: Path) -> Iterator[Row]:
    """Reads a text file with one caption per line."""
    yield from ((f"{path}, line {number}", {"caption": line}) for number, line in text_lines(path) if line.strip())


def _csv(path: Path, quotes: bool | None) -> Iterator[Row]:
    """Reads a csv or tsv file with a header."""
    is_tsv = kind_of(path) == ".tsv"
    quoting: Literal[0, 3] = csv.QUOTE_NONE if quotes is False or (is_tsv and not quotes) else csv.QUOTE_MINIMAL
    lines = (line for _, line in text_lines(path))
    reader = csv.reader(lines, delimiter="\t" if is_tsv else ",", quoting=quoting, strict=True)
    header: list[str] = []
    place = f"{path}, line 1"
    try:
        while (fields := next(reader, None)) is not None:
            if not header:
                header = _header(place, fields)
            elif fields:
                if is_tsv and quotes is None:
                    _check_not_quoted(place, fields)
                yield place, _row(place, header, fields)
            place = f"{path}, line {reader.line_num + 1}"
    except csv.Error as error:
        raise UserError(
            f"{place} has a quote that does not enclose a field ({error}): double it, or pass prompts.quotes=false if "
            "fields are not quoted"
        ) from error


def _header(place: str, fields: list[str]) -> list[str]:
    """Returns the names of the columns."""
    names = [name.strip() for name in fields]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{place} names the column {twice!r} twice: rename one of them")
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        raise UserError(
            f"{place} is a header separated by {other!r}: separate fields by commas, or by tabs in a tsv file"
        )
    return names


def _row(place: str, header: list[str], fields: list[str]) -> dict[str, Any]:
    """Returns the fields by column; those that are missing at the end of a row are None."""
    if len(fields) > len(header):
        raise UserError(
            f"{place} has {len(fields)} fields, but the header has {len(header)}: quote those with separators"
        )
    return {name: fields[i] if i < len(fields) else None for i, name in enumerate(header)}


def _check_not_quoted(place: str, fields: list[str]) -> None:
    """Refuses a row of which it is not clear whether fields are quoted."""
    for number, field in enumerate(fields, 1):
        if len(field) > 1 and field[0] == '"' and (field[-1] == '"' or field.count('"') % 2):
            raise UserError(
                f"{place}, field {number} seems to be quoted, as fields of tsv files are not: pass prompts.quotes=true "
                "if quotes enclose fields, =false if they are part of the captions, or save the file as csv"
            )


def _json(text: str, place: str) -> Any:
    """Parses JSON; `place` is that of its first line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if ", line " not in place else ""
        raise UserError(f"{place}{line}, column {error.colno} is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, or nested too deeply
        raise UserError(f"{place} is not JSON that can be read: {one_line(error)}") from error


def _jsonl(path: Path) -> Iterator[Row]:
    """Reads a file with one JSON object per line."""
    for number, line in text_lines(path):
        if line.strip():
            place = f"{path}, line {number}"
            row = _json(line.rstrip(), place)
            if not isinstance(row, dict):
                raise UserError(f'{place} is not a JSON object: write {{"caption": …}} on each line')
            yield place, row


def _parquet(path: Path) -> Iterator[Row]:
    """Reads a parquet file batch by batch."""
    parquet = import_extra("pyarrow.parquet", "eval")
    check_not_pointer(path)
    if path.suffix.lower() in COMPRESSED:
        raise UserError(f"{path} is a compressed parquet file, which is read as a whole: unpack it")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):  # of images in the other columns, too
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (OSError, import_extra("pyarrow", "eval").ArrowException) as error:
        raise UserError(f"{path} is damaged or cut off ({one_line(error)}): download it again") from error


def _coco(path: Path) -> Iterator[Row]:
    """Reads COCO's annotations: for each image, ordered by its id, the annotation with the lowest id."""
    content = _json(read_text(path), str(path))
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise UserError(f"{path} is not a COCO caption file: use one, or a txt, csv, tsv, jsonl or parquet file")
    for number, annotation in enumerate(content["annotations"]):
        ids = [annotation.get(name) for name in ("image_id", "id")] if isinstance(annotation, dict) else [None]
        if not all(type(each) is int for each in ids):
            raise UserError(f"{path}, annotation {number} has no image_id and id that are whole numbers: correct it")
    ordered = sorted(content["annotations"], key=lambda a: (a["image_id"], a["id"]))
    for _, annotations in groupby(ordered, key=lambda a: a["image_id"]):
        first = next(annotations)
        yield f"{path}, annotation with id {first['id']}", first
