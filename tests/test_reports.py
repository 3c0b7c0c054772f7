"""What is read off rows: the table says what was measured and no more; wandb holds the same rows."""

import json
from pathlib import Path

import pytest

from clockwork.reports.loggers import log_rows, make_logger
from clockwork.reports.tables import label, table

ROWS = [
    {"teacher": "miniature", "adaptor": "none", "schedule": "full", "steps": 8, "fid_miniature": 31.514, "psnr": None},
    {
        "teacher": "miniature",
        "adaptor": "resnet",
        "schedule": "clock2",
        "steps": 8,
        "fid_miniature": None,
        "psnr": 30.8,
    },
]


def test_table_marks_what_was_not_measured() -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(ROWS).splitlines()]
    assert lines[0] == ["teacher", "adaptor", "schedule", "steps", "fid_miniature", "psnr"]
    assert lines[2] == ["miniature", "none", "full", "8", "31.51", "–"]
    assert lines[3] == ["miniature", "resnet", "clock2", "8", "–", "30.80"]
    assert [label(row) for row in ROWS] == ["miniature", "resnet clock2"]


def test_wandb_offline_holds_the_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    log_rows({"name": "wandb", "project": "test", "group": "sweep"}, ROWS, tmp_path)
    (file,) = tmp_path.rglob("rows*.table.json")
    kept = json.loads(file.read_text())
    assert [dict(zip(kept["columns"], line, strict=True)) for line in kept["data"]] == ROWS


def test_loggers_by_name(tmp_path: Path) -> None:
    assert make_logger({"name": "none"}, tmp_path) is False
    assert type(make_logger({"name": "csv"}, tmp_path)).__name__ == "CSVLogger"
