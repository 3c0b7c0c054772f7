"""Trained adaptors that rows were measured with, and the losses of their training."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clockwork.adaptors import read_config
from clockwork.errors import UserError
from clockwork.operating_point import is_measured_at
from clockwork.reports.tables import Row


@dataclass(frozen=True)
class TrainedAdaptor:
    """A trained adaptor.

    Attributes:
        name: Name of the training run, which is its folder's name.
        folder: The adaptor's folder.
        config: Contents of the adaptor's `config.json`.
        curves: Losses by epoch (see `curves`); empty if the run has no CSV log.
    """

    name: str
    folder: Path
    config: dict[str, Any] = field(repr=False)
    curves: dict[str, list[float]] = field(repr=False)


def find_trained_adaptors(under: Path, rows: Sequence[Row]) -> list[TrainedAdaptor]:
    """Finds the trained adaptors that rows were measured with.

    Args:
        under: Folder of training runs, at any depth.
        rows: Rows of an evaluation.

    Returns:
        The adaptors whose kind and operating point are those of at least one row.
    """
    adaptors = []
    for file in sorted(under.glob("**/adaptor/config.json")):
        run = file.parent.parent
        try:
            config = read_config(file.parent)
        except UserError as error:
            print(f"passed over: {error}")
            continue
        if any(_used(config, run.name, row) for row in rows):
            adaptors.append(TrainedAdaptor(run.name, file.parent, config, curves(run / "log")))
    return adaptors


def _used(config: dict[str, Any], name: str, row: Row) -> bool:
    """Checks whether a row has the kind or name of an adaptor, and its operating point."""
    same_kind = row["adaptor"] == config["kind"] or name.startswith(f"{row['adaptor']}-")
    return same_kind and is_measured_at(row, config["operating_point"])


def curves(log: Path) -> dict[str, list[float]]:
    """Reads the losses of a training run from Lightning's CSV logs.

    A resumed run has several logs, which are concatenated.

    Args:
        log: The log folder of the run.

    Returns:
        `loss` and `identity` (the loss of the identity adaptor on the same batches), one value per epoch.
    """
    losses: dict[str, list[float]] = {}
    for file in sorted(log.rglob("metrics.csv"), key=lambda file: (len(file.parent.name), file.parent.name)):
        with file.open(newline="") as stream:
            for line in csv.DictReader(stream):
                for name, columns in (("loss", ("loss", "loss_epoch")), ("identity", ("identity",))):  # older logs' too
                    if value := next((line[column] for column in columns if line.get(column)), None):
                        losses.setdefault(name, []).append(float(value))
    return losses
