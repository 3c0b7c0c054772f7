"""Rows of measurements and their files, the source of truth: one flat JSON object per line."""

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clockwork


@dataclass(frozen=True)
class Row:
    """What was not measured is None. FLOPs are of one image, all steps; `*_miniature` are the small metrics.

    Rows of earlier versions have fewer fields: they are read and shown, but never taken for a row of today, whose
    digest holds more.
    """

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
    device: str
    commit: str | None
    versions: str
    teacher_digest: str | None = None  # of the full teacher's row at the same steps
    command: str | None = None  # that measured it
    precision: str | None = None  # of the teacher
    text_embedder: str | None = None  # whose embedding the adaptor reads
    images_digest: str | None = None  # names the images' folder
    teacher_images_digest: str | None = None  # and that of the images which psnr and ssim compare with
    latency_ms: float | None = None  # of one prompt's latents, without encoders and decoder: mean,
    latency_median_ms: float | None = None
    latency_spread_ms: float | None = None  # interquartile range
    latency_device: str | None = None  # the hardware's name


def image_folder(folder: Path, row: Mapping[str, Any], of: str = "") -> Path:
    """Where the images of a row are.

    Args:
        folder: Of `rows.jsonl`.
        row: Of this version or an earlier one.
        of: `"teacher_"`: of the full teacher at the same steps instead.
    """
    return folder / "pictures" / str(row.get(f"{of}images_digest") or row.get(f"{of}digest"))


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """One write and a flush to disk, so that a kill leaves complete lines only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as stream:
        if stream.tell() and not _ends_whole(stream):
            stream.write(b"\n")  # an earlier run was cut off in the middle of a line
        stream.write(json.dumps(dict(row)).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Rows, the last one of each digest; a line cut off by a kill is passed over."""
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
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "diffusers")]
    return " ".join([*libraries, f"clockwork {clockwork.__version__}"])
