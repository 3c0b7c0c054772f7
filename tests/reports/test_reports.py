"""What is read off rows: the table says what was measured and no more; wandb holds the same rows."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from helpers.commands import QUICK_TRAINING, run
from wandb.proto import wandb_internal_pb2

from clockwork.data.image_io import write_image
from clockwork.evaluation.rows import flat_row
from clockwork.reports.adaptors import TrainedAdaptor
from clockwork.reports.loggers import log_calibration, log_rows, make_logger
from clockwork.reports.tables import label, table

ROWS = [
    {
        "digest": "a",
        "teacher": "miniature",
        "adaptor": "none",
        "schedule": "full",
        "steps": 8,
        "metrics": {"fid_miniature": 31.514},
        "tflops_full": 0.002,
    },
    {
        "digest": "b",
        "teacher": "miniature",
        "adaptor": "resnet",
        "schedule": "clock2",
        "steps": 8,
        "metrics": {"psnr": 30.8},
        "tflops_full": 0.001,
    },
]


def test_table_marks_what_was_not_measured() -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(ROWS).splitlines()]
    assert lines[0] == ["teacher", "adaptor", "schedule", "steps", "fid_miniature", "psnr", "tflops_full"]
    assert lines[2] == ["miniature", "none", "full", "8", "31.51", "–", "0.002"]
    assert lines[3] == ["miniature", "resnet", "clock2", "8", "–", "30.80", "0.001"]
    assert [label(row) for row in ROWS] == ["miniature", "resnet clock2"]


def records(run: Path) -> list[Any]:
    """What wandb wrote offline: protobuf records in LevelDB's log format, in blocks of 32 KiB after a header of 7."""
    wandb.teardown()  # as at the end of a process: what is written last is flushed
    (file,) = run.rglob("*.wandb")
    content, at, whole, found = file.read_bytes(), 7, b"", []
    while at < len(content):
        if 32768 - at % 32768 < 7:  # too short for a header: padding
            at += 32768 - at % 32768
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return tmp_path


def test_wandb_offline_holds_a_sweep(offline: Path) -> None:
    """Rows, plots, pictures, the report and the adaptors, read back from the files of the real client."""
    sweep, folder = offline / "sweep", offline / "resnet-dpm++" / "adaptor"
    write_image_files(sweep, [row["digest"] for row in ROWS])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (sweep / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    adaptor = TrainedAdaptor("resnet-dpm++", folder, {"kind": "resnet"}, {})
    log_rows({"name": "wandb", "project": "test", "group": None}, ROWS, sweep, [adaptor])
    (file,) = sweep.rglob("rows*.table.json")
    kept = json.loads(file.read_text())
    logged = [dict(zip(kept["columns"], line, strict=True)) for line in kept["data"]]
    measured = [{name: value for name, value in row.items() if value is not None} for row in logged]
    assert measured == [flat_row(row) for row in ROWS]
    (plot,) = sweep.rglob("*fid_miniature-tflops_full*.plotly.json")
    assert json.loads(plot.read_text())["data"][0]["name"] == "miniature, fewer steps"
    assert len(list(sweep.rglob("wandb/**/media/images/images/*.png"))) == 2 * len(ROWS)
    kept = records(sweep)
    assert next(r.run.run_group for r in kept if r.HasField("run")) == "sweep"
    artifacts = {r.artifact.name: r.artifact for r in kept if r.HasField("artifact")}
    files = {
        name: [entry.path for entry in a.manifest.contents]
        for name, a in artifacts.items()
        if a.type != "wandb-history"
    }
    assert files["report-sweep"] == ["rows.jsonl"] and files["resnet-dpm__"] == ["config.json"]
    assert json.loads(artifacts["resnet-dpm__"].metadata) == {"kind": "resnet"}


def write_image_files(sweep: Path, digests: list[str]) -> None:
    for number, digest in enumerate(digests):
        (sweep / "images" / digest).mkdir(parents=True)
        for prompt in (0, 1):
            write_image(sweep / "images" / digest / f"{prompt}.png", torch.full((3, 8, 8), number * 9 + prompt).byte())


def test_training_keeps_figures_pictures_and_the_adaptor(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = [*QUICK_TRAINING, "val_prompts=2", "samples_every=1", "steps=2"]
    run(monkeypatch, "train", *quick, "logger=wandb", f"output={offline}/adaptors")
    (folder,) = offline.glob("adaptors/miniature/*")
    columns = (folder / "log" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"loss", "val/loss", "relative_l2/step2"} <= set(columns)  # no figure is in wandb alone
    assert len(list((folder / "wandb").rglob("media/images/samples*.png"))) == 1
    kept = records(folder)
    assert any("loss" in (item.key, *item.nested_key) for r in kept for item in r.history.item)
    assert next(r.run.run_group for r in kept if r.HasField("run")) == "miniature"
    artifacts = [r.artifact for r in kept if r.HasField("artifact")]
    (adaptor,) = (a for a in artifacts if a.type == "adaptor")
    files = sorted(entry.path for entry in adaptor.manifest.contents)
    assert files == ["README.md", "adaptor.safetensors", "config.json"]


def test_wandb_offline_holds_a_calibration(offline: Path) -> None:
    """The errors of each step, the figure and the adaptor."""
    folder = offline / "miniature" / "linear-8" / "adaptor"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write_image(folder.parent / "errors.png", torch.zeros(3, 8, 8).byte())
    steps = [{"step": step, "error": 0.1 * step, "identity_error": 0.5, "ridge": 1e-3} for step in (2, 4)]
    config = {"name": "wandb", "project": "test", "group": None}
    log_calibration(config, folder, {"seconds": 1.5, "steps": steps}, folder.parent / "errors.png")
    kept = records(folder.parent)
    lines = [{item.key or item.nested_key[0]: item.value_json for item in r.history.item} for r in kept]
    errors = [float(line["error"]) for line in lines if "error" in line]
    assert errors == pytest.approx([0.2, 0.4]) and any("errors" in line for line in lines)
    assert next(r.run.run_group for r in kept if r.HasField("run")) == "miniature"
    (adaptor,) = (r.artifact for r in kept if r.HasField("artifact") and r.artifact.type == "adaptor")
    assert adaptor.name == "linear-8" and [entry.path for entry in adaptor.manifest.contents] == ["config.json"]


def test_loggers_by_name(tmp_path: Path) -> None:
    assert make_logger({"name": "none"}, tmp_path) is False
    assert [type(logger).__name__ for logger in make_logger({"name": "csv"}, tmp_path)] == ["AtomicCSVLogger"]
