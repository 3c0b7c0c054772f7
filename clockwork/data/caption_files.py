"""Caption files, read line by line: text, csv, tsv, jsonl, parquet, and COCO's own json."""

import csv
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from clockwork.errors import MissingFileError, UserError

COLUMNS = ("caption", "prompt", "text", "TEXT")  # where captions are looked for, unless a column is named


def read_captions(path: Path, column: str | None = None) -> Iterator[str]:
    """The captions of a file in its order, one at a time; empty ones are passed over.

    `.txt`: one a line; `.csv`, `.tsv`, `.jsonl`, `.parquet`: a column by name; `.json`: COCO's annotations, of each
    image, by its id, the caption of the lowest id.
    """
    if not path.is_file():
        raise MissingFileError(f"no caption file at {path}: give prompts.path=<a file of captions>")
    name = None
    for row in read_rows(path):
        name = name or caption_column(path, list(row), column)
        if name not in row:
            raise UserError(f"{path} has a row without {name!r}: {str(row)[:80]}")
        if caption := " ".join(str(row[name] or "").split()):  # some hold newlines
            yield caption
    if name is None:
        raise UserError(f"{path} holds no captions: write one a line")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table by the file's ending; of a text, its lines as captions."""
    kinds = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet, ".json": _coco}
    return kinds.get(path.suffix, _lines)(path)


def caption_column(path: Path, there: list[str], column: str | None) -> str:
    for name in (column,) if column else COLUMNS:
        if name in there:
            return name
    wanted = repr(column) if column else "caption, prompt or text"
    raise UserError(f"{path} has no column {wanted}, only {', '.join(map(str, there))}: say prompts.column=…")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from ({"caption": line} for line in lines if line.strip())


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(f"{path}, line {number} is no JSON: {error}") from error
                if not isinstance(row, dict):
                    raise UserError(f'{path}, line {number} is no JSON object: write {{"caption": …}} a line')
                yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as parquet

    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _coco(path: Path) -> Iterator[dict[str, Any]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "annotations" not in content:
        raise UserError(f"{path} is no COCO caption file: it has no annotations")
    ordered = sorted(content["annotations"], key=lambda a: (a["image_id"], a["id"]))
    for _, of_image in groupby(ordered, key=lambda a: a["image_id"]):
        yield next(of_image)
