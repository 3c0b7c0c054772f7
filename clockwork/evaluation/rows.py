"""Rows of measurements and their files, the source of truth: one flat JSON object per line."""

import importlib.metadata
import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Row:
    """What was not measured is None. FLOPs are of one image, all steps; `*_miniature` are the small metrics."""

    digest: str
    teacher: str
    teacher_hash: str
    cut: str
    adaptor: str
    adaptor_hash: str | None
    schedule: str
    solver: str
    steps: int
    full_steps: int
    calls: int
    guidance: float
    resolution: int
    prompts: str
    images: int
    seed: int
    fid: float | None
    clip_score: float | None
    fid_miniature: float | None
    clip_score_miniature: float | None
    metrics: str
    psnr: float | None  # to the full teacher's picture at the same steps
    ssim: float | None
    tflops_paper: float
    tflops_full: float
    gmacs: float
    latency_ms: float | None
    device: str
    commit: str | None
    versions: str
    teacher_digest: str | None = None  # of the full teacher at the same steps, whose pictures psnr and ssim look at
    command: str | None = None  # that measured it


def append_row(file: Path, row: "DataclassInstance") -> None:
    """One write and a flush to disk, so that a kill leaves whole lines only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as stream:
        if stream.tell() and not _ends_whole(stream):
            stream.write(b"\n")  # an earlier run was cut off in the middle of a line
        stream.write(json.dumps(asdict(row)).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Whole rows, the last one of a digest; a line cut off by a kill is passed over."""
    rows: dict[str, dict[str, Any]] = {}
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["digest"]] = row
    return list(rows.values())


def _ends_whole(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    return bool(stream.read(1) == b"\n")


def commit() -> str | None:
    """The project's commit, with a + where the tree has changed since; None outside a checkout or without git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git on PATH, or none that may be run
        return None
    return run.stdout.strip() or None


def versions() -> str:
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "diffusers", "clockwork"))
