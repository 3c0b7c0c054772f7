"""FLOPs and parameters that the paper prints beside the counted ones: the file `flops.csv` (docs/flops.md)."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from clockwork.io.outputs import write_output
from clockwork.reports.formats import markdown
from clockwork.reports.paper.published import NOTES

Spec = Mapping[str, Any]  # a table or figure, or one of its operating points, as in configs/table
COLUMNS = ["figure", "row", "quantity", "paper", "ours", "relative_error", "convention"]
COUNTED = {"tflops", "gflops", "gflops_of_two", "saving", "parameters"}
UNITS = {"flops": 1.0, "gmacs": 1e9, "gflops": 1e9, "gflops_of_two": 1e9, "tflops": 1e12}


@dataclass(frozen=True)
class Line:
    """One value of the paper in one convention, beside the counted one.

    Attributes:
        figure: The table or figure, for example `table 1`.
        row: Name of the row.
        quantity: `flops`, `gmacs` or `gflops` per pass; `gflops_of_two` per pass at batch 2; `tflops` per image or
            edit; `saving` in %; `parameters` in millions.
        paper: The printed value, or None if the paper prints none in this convention.
        ours: The counted value.
        convention: `macs`, `paper` or `full`; empty for parameters.
    """

    figure: str
    row: str
    quantity: str
    paper: Decimal | None
    ours: float
    convention: str

    @property
    def relative_error(self) -> float | None:
        """Relative distance to the nearest number that is printed as the paper's value; None if there is no such value.

        The paper rounds some values (7.2998 is printed as 7.3) and truncates others (287.99 is printed as 287), so 5.9
        can be any number from 5.85 to 6.0.
        """
        if self.paper is None:
            return None
        printed, last_digit = float(self.paper), 10.0 ** int(self.paper.as_tuple().exponent)
        if printed == 0:
            return 0.0 if self.ours == 0 else None
        nearest = min(max(self.ours, printed - last_digit / 2), printed + last_digit)
        return (self.ours - nearest) / printed

    def cells(self) -> list[str]:
        """Formats the line for `flops.csv`.

        Returns:
            The values of `COLUMNS`.
        """
        row = f"{self.row} — {NOTES[self.row]}" if self.row in NOTES else self.row
        error = self.relative_error
        paper = "" if self.paper is None else str(self.paper)
        ours = str(self.ours) if isinstance(self.ours, int) else f"{self.ours:.9g}"
        return [self.figure, row, self.quantity, paper, ours, "" if error is None else f"{error:.5f}", self.convention]


def summary(lines: Sequence[Line]) -> str:
    """Formats the values that the paper prints as a Markdown table, beside ours in its convention and in `full`.

    Args:
        lines: The lines of `flops.csv`.

    Returns:
        The table.
    """
    full_counts = {(line.figure, line.row, line.quantity): line.ours for line in lines if line.convention == "full"}
    cells = []
    for line in lines:
        if line.relative_error is not None:
            full = full_counts.get((line.figure, line.row, line.quantity))
            difference = line.ours / float(line.paper) - 1 if line.paper else 0.0
            ours = [f"{line.ours:.5g}", f"{difference:+.2%}", f"{line.relative_error:+.2%}", line.convention or "–"]
            paper = [line.figure, line.row, line.quantity, str(line.paper)]
            cells.append([*paper, *ours, "–" if full is None else f"{full:.5g}"])
    columns = ["figure", "row", "quantity", "paper", "ours", "difference", "relative_error", "convention", "ours, full"]
    return markdown(columns, cells)


def write_flops(lines: Iterable[Line], file: Path) -> None:
    """Writes `flops.csv` atomically.

    Args:
        lines: The lines.
        file: The file to write.
    """
    with write_output(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([COLUMNS, *(line.cells() for line in lines)])


def read_flops(file: Path) -> list[Line]:
    """Reads `flops.csv`.

    Args:
        file: A file written by `write_flops`.

    Returns:
        The lines, without the notes of their rows.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            Line(
                line["figure"],
                line["row"].split(" — ")[0],
                line["quantity"],
                Decimal(line["paper"]) if line["paper"] else None,
                float(line["ours"]),
                line["convention"],
            )
            for line in csv.DictReader(stream)
        ]
