"""Lines of text files from elsewhere: compressed or not, in UTF-8 or with a byte order mark; others are refused."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clockwork.errors import UserError
from clockwork.io.foreign import check_not_pointer, one_line

COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
LONGEST_LINE = 2**20  # characters
LARGEST_FILE = 2**30  # characters of a file that is read at once
_BINARY = {  # first bytes of files that are no text
    b"\x1f\x8b": "a gzip file: name it .gz",
    b"BZh": "a bzip2 file: name it .bz2",
    b"\xfd7zXZ": "an xz file: name it .xz",
    b"PK\x03\x04": "a zip file, or a sheet or document in one: unpack it, or save it as csv",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it",
    b"PAR1": "a parquet file: name it .parquet",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"%PDF": "a PDF document: save it as text",
    b"SQLite format 3": "a database: save its table as csv",
    **dict.fromkeys((b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML"), "a web page: download the file itself"),
}
_ENCODINGS = {  # by byte order mark, the longer ones first
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_NOT_TEXT = re.compile("[\0\udc80-\udcff]")  # zeros, and the bytes that are not valid


def kind_of(path: Path) -> str:
    """Returns the ending that says what a file holds, in small letters: `.csv` of `a.csv`, `a.CSV` and `a.csv.gz`.

    Args:
        path: The file.
    """
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Reads a text file line by line.

    Args:
        path: The file: UTF-8, or UTF-16 or UTF-32 with a byte order mark; compressed if it ends with .gz, .bz2 or .xz.

    Yields:
        The numbers of the lines, from 1, and the lines with their ends.

    Raises:
        UserError: The file is no text, cut off, or in another encoding; the message names line and column.
    """
    number = 0
    with _opened(path) as stream:
        while line := stream.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE and line[-1] not in "\r\n":
                raise UserError(f"{path}, line {number} has more than {LONGEST_LINE:,} characters: break it into lines")
            _check_text(path, number, line)
            yield number, line


def read_text(path: Path) -> str:
    """Reads a text file as a whole, without a byte order mark.

    Args:
        path: A file as in `text_lines`, of at most 2³⁰ characters.

    Raises:
        UserError: As in `text_lines`, or the file is larger.
    """
    with _opened(path) as stream:
        text = stream.read(LARGEST_FILE)
        if len(text) == LARGEST_FILE:
            raise UserError(f"{path} has more than {LARGEST_FILE:,} characters: divide it into several files")
    if wrong := _NOT_TEXT.search(text):
        line = text.count("\n", 0, wrong.start())
        _check_text(path, line + 1, text[text.rfind("\n", 0, wrong.start()) + 1 :])
    return str(text)


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOWrapper]:
    """Opens a text file, decompressed and decoded."""
    check_not_pointer(path)
    opener = COMPRESSED.get(path.suffix.lower(), Path.open)
    try:
        with opener(path, "rb") as binary:
            start = bytes(binary.peek(16)[:16])
            if kind := next((kind for magic, kind in _BINARY.items() if start.startswith(magic)), None):
                raise UserError(f"{path} is {kind}; a text file of captions is needed")
            encoding = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), "utf-8")
            errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
            yield io.TextIOWrapper(binary, encoding, errors, newline="")
    except UnicodeError as error:
        raise UserError(f"{path} is not valid {encoding.upper()} text ({one_line(error)}): save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} is damaged or cut off ({one_line(error)}): download it again") from error


def _check_text(path: Path, number: int, line: str) -> None:
    """Refuses a line with bytes that are no text."""
    if wrong := _NOT_TEXT.search(line):
        raise UserError(f"{path}, line {number}, column {wrong.start() + 1} is not UTF-8 text: save the file as UTF-8")
