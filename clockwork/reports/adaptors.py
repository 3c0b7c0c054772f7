"""Which trained adaptors stand behind rows, and how their training went."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clockwork.reports.tables import Row


@dataclass(frozen=True)
class Trained:
    """An adaptor's folder, and its losses by epoch where a csv log lies beside it."""

    name: str
    folder: Path
    config: dict[str, Any] = field(repr=False)
    curves: dict[str, list[float]] = field(repr=False)


def trained(under: Path, rows: Sequence[Row]) -> list[Trained]:
    """The adaptors under a folder of training runs that some row used."""
    found = []
    for file in sorted(under.glob("**/adaptor/config.json")):
        config, run = json.loads(file.read_text()), file.parent.parent
        if any(_used(config, run.name, row) for row in rows):
            found.append(Trained(run.name, file.parent, config, curves(run / "log")))
    return found


def _used(config: dict[str, Any], name: str, row: Row) -> bool:
    kind = row["adaptor"] == config["kind"] or name.startswith(f"{row['adaptor']}-")
    return kind and all(row[key] == value for key, value in config["operating_point"].items())


def curves(log: Path) -> dict[str, list[float]]:
    """`loss` and `identity` by epoch, from Lightning's csv files of a run and of those that went on from it."""
    found: dict[str, list[float]] = {}
    for file in sorted(log.rglob("metrics.csv"), key=lambda file: (len(file.parent.name), file.parent.name)):
        with file.open(newline="") as stream:
            for line in csv.DictReader(stream):
                for name, column in (("loss", "loss_epoch"), ("identity", "identity")):
                    if line.get(column):
                        found.setdefault(name, []).append(float(line[column]))
    return found
