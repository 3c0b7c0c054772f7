"""A training and an evaluation sweep of a second or two, with all that they write, and what has to come out of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.commands import SHORT_TRAINING

from clockwork.evaluation.rows import read_rows

TRAIN = [
    "scripts/train.py",
    *SHORT_TRAINING,
    "epochs=4",
    "samples_every=2",
    "ema=0.9",
    "keep=best",
    "device=cpu",
]
POINTS = (
    "{adaptor: none, schedule: full}",
    "{adaptor: identity, schedule: clock2}",
    "{adaptor: taylor1, schedule: clock4}",
)
EVALUATE = [
    "scripts/evaluate.py",
    f"points=[{', '.join(POINTS)}]",
    "steps=4",
    "metrics=miniature",
    "metrics.reference=120",
    "metrics.latency=false",
    "batch_size=2",
    "prompts.count=6",
    "device=cpu",
]


def train_command(folder: Path) -> list[str]:
    """Trains in a folder."""
    return [*TRAIN, f"output={folder}"]


def evaluate_command(folder: Path) -> list[str]:
    """Measures in a folder."""
    return [*EVALUATE, f"output={folder}", f"metrics.cache={folder}/cache"]


def files(folder: Path, *patterns: str) -> dict[str, bytes]:
    """The contents of files, by their paths in the folder."""
    matching = (file for pattern in patterns for file in folder.rglob(pattern))
    return {str(file.relative_to(folder)): file.read_bytes() for file in matching}


def trained(folder: Path) -> dict[str, Any]:
    """What a training has made: the adaptor bit for bit, its figures, the sample images, and the checkpoints' names."""
    (config,) = folder.rglob("adaptor/config.json")
    figures = json.loads(config.read_text())["training"]
    checkpoints = sorted(files(folder, "*.ckpt"))
    return {"figures": figures, "checkpoints": checkpoints, **files(folder, "adaptor.safetensors", "*.png")}


def measured(folder: Path) -> dict[str, Any]:
    """What a sweep has made: one row per point, the figures of each image, and images."""
    file = folder / "rows.jsonl"
    rows = [{**row, "command": None} for row in read_rows(file)]
    assert len(file.read_bytes().splitlines()) == len(rows) == len(POINTS)
    return {"rows": rows, **files(folder, "*.png", "*.npz", "prompts/*.json")}


def leftovers(folder: Path) -> list[Path]:
    """Temporary files that a stopped command has left behind."""
    return [file for file in folder.rglob("*") if file.suffix in (".partial", ".replaced")]


COMMANDS: dict[str, tuple[Callable[[Path], list[str]], Callable[[Path], dict[str, Any]]]] = {
    "train": (train_command, trained),
    "evaluate": (evaluate_command, measured),
}
