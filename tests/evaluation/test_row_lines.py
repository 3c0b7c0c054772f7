"""Lines of rows.jsonl that are no rows are passed over and counted; the rows beside them are read as if alone."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from clockwork.evaluation.rows import EditRow, ImageRow, append_row, read_rows


def row_of(kind: type, **values: Any) -> dict[str, Any]:
    """A row with every field."""
    plain: dict[Any, Any] = {str: "a", int: 1, float: 0.5, bool: True}
    row = {field.name: plain.get(field.type) for field in fields(kind)}
    return {**row, "metrics": {"psnr": 20.5}, **values}


ROW = row_of(ImageRow, digest="0123456789ab")
EDIT = row_of(EditRow, digest="edit")


def changed(**values: Any) -> bytes:
    return json.dumps({**ROW, "digest": "changed", **values}).encode()


FOREIGN = {
    "cut off": json.dumps(ROW).encode()[:80],
    "a text": b'"a row"',
    "a number": b"3",
    "null": b"null",
    "a list": json.dumps([ROW]).encode(),
    "an empty object": b"{}",
    "an object of others": b'{"loss": 0.5, "epoch": 3}',
    "only a digest": b'{"digest": "a"}',
    "notes": b"measured on Friday",
    "a merge conflict": b"<<<<<<< HEAD",
    "not UTF-8": b'{"digest": "\xff"}',
    "zeros, as a power cut leaves them": b"\0" * 300,
    "deeply nested": b"[" * 100_000,
    "a number of too many digits": b'{"digest": ' + b"9" * 5000 + b"}",
    "two rows on a line": json.dumps(ROW).encode() * 2,
    "a row without adaptor": json.dumps({k: v for k, v in ROW.items() if k != "adaptor"}).encode(),
    "a row without digest": json.dumps({k: v for k, v in ROW.items() if k != "digest"}).encode(),
    "a digest that is null": changed(digest=None, adaptor=None),
    "a digest that is a number": changed(digest=5),
    "a digest outside of the folder": changed(digest="../../elsewhere"),
    "images outside of the folder": changed(images_digest="../elsewhere"),
    "images of the teacher elsewhere": changed(teacher_images_digest="/elsewhere"),
    "a hidden folder": changed(images_digest=".hidden"),
    "prompts outside of the folder": changed(prompts="../elsewhere"),
    "steps as text": changed(steps="8"),
    "steps that are not whole": changed(steps=8.5),
    "steps that are true": changed(steps=True),
    "steps as a list": changed(steps=[8]),
    "guidance that is not finite": changed(guidance=float("inf")),
    "a metric that is NaN": changed(metrics={"psnr": float("nan")}),
    "a metric that is infinite": changed(metrics={"psnr": float("-inf")}),
    "a metric as text": changed(metrics={"psnr": "20"}),
    "a metric as a list": changed(metrics={"psnr": [20]}),
    "metrics as a list": changed(metrics=[20]),
    "a latency as text": changed(latency_ms="fast"),
    "a teacher that is an object": changed(teacher={}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_line_is_passed_over_and_counted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, lines = tmp_path / "rows.jsonl", [json.dumps(row).encode() for row in (ROW, EDIT)]
    file.write_bytes(b"\n".join([lines[0], FOREIGN[name], b"", lines[1]]))
    for _ in range(2):
        assert read_rows(file) == [ROW, EDIT]
    assert capsys.readouterr().out == f"{file}: 1 line that is no row is passed over (2)\n"
    append_row(file, {**ROW, "digest": "next"})
    assert [row["digest"] for row in read_rows(file)] == [ROW["digest"], "edit", "next"]


RIGHT = {
    "a byte order mark": b"\xef\xbb\xbf" + changed(),
    "Windows' line ends": changed() + b"\r",
    "fields of a later version": changed(colour="red"),
    "a whole number for a metric": changed(metrics={"psnr": 20}),
    "a metric that was not measured": changed(metrics={"psnr": None}),
    "no latency": changed(latency_ms=None),
    "whole guidance": changed(guidance=3),
    "accents and line separators": changed(command="été \u2028 \u0085"),
    "the same, not escaped": json.dumps({**ROW, "digest": "changed", "command": "\u2028"}, ensure_ascii=False).encode(),
}


@pytest.mark.parametrize("name", RIGHT)
def test_rows_of_other_versions_and_editors_are_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(RIGHT[name])
    assert [row["digest"] for row in read_rows(tmp_path / "rows.jsonl")] == ["changed"]
    assert capsys.readouterr().out == ""
