"""Rows of measurements and their files, the source of truth: one JSON object per line."""

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import clockwork
from clockwork.evaluation.row_lines import parse_row, report_foreign_lines
from clockwork.io.disk import append_whole, naming_full_disk
from clockwork.io.lock import locked
from clockwork.io.outputs import begin_list


@dataclass(frozen=True, kw_only=True)
class Row:
    """What rows of text-to-image and of editing share. FLOPs are of one image or edit, over all steps.

    Attributes:
        digest: Of everything that changes the figures.
        images_digest: Of everything that changes the images, which names their folder.
        metrics: Figures by the metrics' names (`metrics.registry`); what was not measured is absent.
        metrics_label: Networks and references of the metrics.
        precision: The teacher's.
        text_embedder: The text embedder that an adaptor reads; None if none reads text.
        device: Where it was measured.
        commit: The project's commit, if known.
        versions: Of the libraries.
        command: The command that measured it.
    """

    digest: str
    images_digest: str
    teacher: str
    teacher_hash: str
    cut: str
    resolution: int
    guidance: float
    metrics: dict[str, float]
    metrics_label: str
    tflops_paper: float
    tflops_full: float
    gmacs: float
    precision: str
    text_embedder: str | None
    device: str
    commit: str | None
    versions: str
    command: str | None


@dataclass(frozen=True, kw_only=True)
class ImageRow(Row):
    """A row of text-to-image.

    Attributes:
        prompts: Hash of the prompts.
        images: Number of images.
        teacher_digest: Digest of the full teacher's row at the same steps.
        teacher_images_digest: Names the folder of its images, with which `psnr` and `ssim` compare.
        solver_settings: Settings of the solver that are not defaults of its class.
        fit: Seed of the adaptor's calibration or training, where several were asked for.
        latency_ms: Mean time of one prompt's latents, without encoders and decoder.
        latency_median_ms: Median.
        latency_spread_ms: Interquartile range.
        latency_device: Name of the hardware.
    """

    adaptor: str
    adaptor_hash: str | None
    schedule: str
    solver: str
    steps: int
    full_steps: int
    calls: int
    prompts: str
    images: int
    seed: int
    teacher_digest: str
    teacher_images_digest: str
    solver_settings: dict[str, Any] | None = None
    fit: int | None = None
    latency_ms: float | None = None
    latency_median_ms: float | None = None
    latency_spread_ms: float | None = None
    latency_device: str | None = None


@dataclass(frozen=True, kw_only=True)
class EditRow(Row):
    """A row of editing; its columns are those of `editing.edit.Editor`.

    Attributes:
        benchmark: Name of the benchmark.
        pairs: Number of edits.
        pairs_hash: Hash of prompts and source images.
    """

    benchmark: str
    pairs: int
    pairs_hash: str
    inversion_steps: int
    inversion_full_steps: int
    inversion_schedule: str
    inversion_adaptor: str
    inversion_adaptor_hash: str | None
    generation_steps: int
    generation_full_steps: int
    generation_schedule: str
    generation_adaptor: str
    generation_adaptor_hash: str | None
    negative: str
    tau_f: float
    tau_a: float
    keep_source: bool
    replay: bool


RENAMED = {"source_to_the_end": "keep_source"}  # fields of earlier versions
FIELDS = {field.name for kind in (ImageRow, EditRow) for field in fields(kind)}


def image_folder(folder: Path, row: Mapping[str, Any], of: str = "") -> Path:
    """Returns the folder with the images of a row.

    Args:
        folder: Folder of `rows.jsonl`.
        row: A row of this version or an earlier one.
        of: `"teacher_"` for the images of the full teacher at the same steps.

    Returns:
        The folder. Earlier versions wrote to `pictures` in place of `images`.
    """
    name = str(row.get(f"{of}images_digest") or row.get(f"{of}digest"))
    earlier = folder / "pictures" / name
    return earlier if earlier.is_dir() else folder / "images" / name


def row_value(row: Mapping[str, Any], name: str) -> Any:
    """Returns a value of a row.

    Args:
        row: A row as `read_rows` returns it.
        name: A field, or the name of a metric.

    Returns:
        The value; None if it was not measured.
    """
    return row[name] if name in row else row.get("metrics", {}).get(name)


def flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a row with its metrics among them.

    Args:
        row: A row as `read_rows` returns it.

    Returns:
        The values by the names of fields and metrics.
    """
    return {**{name: value for name, value in row.items() if name != "metrics"}, **row.get("metrics", {})}


def append_row(file: Path, row: Mapping[str, Any], unless_measured: bool = False) -> None:
    """Appends a row in one write and flushes it to disk, so that a kill or a full disk leaves complete lines only.

    Args:
        file: The file of rows, which is created if it is missing.
        row: The row.
        unless_measured: Whether to leave it out if the file has a row with its digest, from another process.

    Raises:
        UserError: There is no room on the file's disk.
    """
    with naming_full_disk(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        begin_list(file.parent)
        stream = file.open("a+b", buffering=0)
    with stream, locked(stream):
        if unless_measured and any(other["digest"] == row["digest"] for other in read_rows(file)):
            return
        stream.seek(0, os.SEEK_END)
        # An earlier run may have been cut off in the middle of a line.
        start = b"\n" if stream.tell() and not _ends_with_newline(stream) else b""
        append_whole(stream, start + json.dumps(dict(row)).encode() + b"\n")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Reads rows, of this version and of earlier ones. Lines that are no rows are passed over, and reported once.

    Args:
        file: The file of rows; it may be missing.

    Returns:
        The rows, of each digest the last one, with the metrics in a dictionary of their own.
    """
    rows: dict[str, dict[str, Any]] = {}
    foreign: list[int] = []
    for number, line in enumerate(file.read_bytes().split(b"\n") if file.is_file() else [], 1):
        if (row := parse_row(line, (ImageRow, EditRow))) is not None:
            rows[row["digest"]] = _with_named_metrics(row)
        elif line.strip():
            foreign.append(number)
    if foreign:
        report_foreign_lines(file, tuple(foreign))
    return list(rows.values())


def _with_named_metrics(row: dict[str, Any]) -> dict[str, Any]:
    """Converts a row of an earlier version, in which metrics were fields and `metrics` was their label."""
    if isinstance(row.get("metrics"), dict):
        return row
    label, row = row.get("metrics"), {RENAMED.get(name, name): value for name, value in row.items()}
    metrics = {name: value for name, value in row.items() if name not in FIELDS and type(value) in (int, float)}
    described = {name: value for name, value in row.items() if name in FIELDS}
    return {**described, "metrics": metrics, "metrics_label": label}


def _ends_with_newline(stream: Any) -> bool:
    """Checks whether the last line of a file is complete."""
    stream.seek(-1, os.SEEK_END)
    return bool(stream.read(1) == b"\n")


def commit() -> str | None:
    """Returns the project's commit, with a + if files have changed since; None outside a checkout or without git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git on PATH, or none that may be run
        return None
    return run.stdout.strip() or None


def versions() -> str:
    """Returns the versions of the libraries and of this package."""
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "diffusers")]
    return " ".join([*libraries, f"clockwork {clockwork.__version__}"])
