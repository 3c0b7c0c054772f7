"""A table of the paper's beside ours: printed figures, rows that were measured, FLOPs of the architectures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from clockwork.reports.formats import Sheet
from clockwork.reports.paper.flops_audit import Line, Spec
from clockwork.reports.paper.published import PLUG_AND_PLAY, PUBLISHED, convention

NONE, UNMEASURED = "–", "not measured"
QUALITY = {"fid": ".2f", "clip_score": ".3f", "dino_distance": ".4f"}
SMALL = {"dino_distance": "structure_miniature"}  # not DINO's: named as what it is
COUNTED = {"tflops": ".2f", "gflops": ".1f", "gflops_of_two": ".1f", "saving": ".1f", "parameters": ".2f"}
MEASURED = {"latency_ms": ".1f", "device": ""}
MINIATURE = (
    "What ends in _miniature was measured on the miniature, through its own small metrics, and cannot be compared with "
    "the paper's. FLOPs and parameters are those of the paper's architectures at real size."
)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """`name` as in "table 3"; `rows` are what was measured, by the table's row names."""

    name: str
    spec: Spec
    miniature: bool
    rows: Mapping[str, Row]
    lines: Sequence[Line]

    def sheet(self, notes: Sequence[str] = ()) -> Sheet:
        """Paper, ours and difference, column by column. At miniature scale quality is ours alone and named so: what
        is compared there is FLOPs, which are those of the paper's own architectures at every scale."""
        lines = [{"row": _name(point), **self._cells(point)} for point in self._points()]
        columns = list(dict.fromkeys(column for line in lines for column in line))
        columns = [c for c in columns if c == "row" or any(line.get(c, NONE) != NONE for line in lines)]
        cells = [[line.get(column, NONE) for column in columns] for line in lines]
        about = [MINIATURE] if any(column.endswith("_miniature") for column in columns) else []
        return Sheet(f"{self.name.capitalize()}: {self.spec['title']}", columns, cells, [*about, *notes])

    def unmeasured(self) -> list[str]:
        """Row names that this scale has a teacher for, and that have not been run."""
        return [point["row"] for point in self._points() if self._possible(point) and point["row"] not in self.rows]

    def _points(self) -> list[Spec]:
        """Editing's points are repeated for every number of inversion steps."""
        counts = self.spec.get("inversion_steps")
        points = self.spec["points"]
        return (
            [{**p, "row": f"{p['row']}, {n} inversion steps"} for p in points for n in counts]
            if counts
            else list(points)
        )

    def _possible(self, point: Spec) -> bool:
        return bool(point["teacher"] or "made_by" in self.spec) and not point.get("published")

    def _cells(self, point: Spec) -> dict[str, str]:
        cells: dict[str, str] = {}
        for column in self.spec["columns"]:
            if column in point:
                cells[column] = str(point[column])
            elif column in COUNTED:
                cells |= self._counted(point["row"], column)
            elif column in MEASURED:
                here = f"{column}_miniature" if self.miniature and column == "latency_ms" else column
                cells[here] = self._ours(point, column, MEASURED[column])
            elif column.startswith("latency_"):
                cells[f"{column} paper"] = _text(self._printed(point["row"], column))
            else:
                cells |= self._quality(point, column)
        if self.miniature and point["row"] in self.rows:
            cells["gflops_miniature"] = f"{1000 * self.rows[point['row']]['tflops_full']:.3f}"
        return cells

    def _quality(self, point: Spec, column: str) -> dict[str, str]:
        printed = self._printed(point["row"], column)
        name = SMALL.get(column, f"{column}_miniature") if self.miniature else column
        cells = {f"{column} paper": _text(printed), name: self._ours(point, name, QUALITY[column])}
        if not self.miniature:
            measured = self.rows.get(point["row"], {}).get(column)
            both = printed is not None and measured is not None
            cells[f"{column} difference"] = (
                f"{float(measured or 0) - float(printed or 0):+{QUALITY[column]}}" if both else NONE
            )
        return cells

    def _ours(self, point: Spec, name: str, form: str) -> str:
        value = self.rows.get(point["row"], {}).get(name)
        if value is None:
            return UNMEASURED if self._possible(point) else NONE
        return f"{value:{form}}"

    def _counted(self, row: str, column: str) -> dict[str, str]:
        found = [line for line in self.lines if (line.figure, line.row, line.quantity) == (self.name, row, column)]
        own = next((line for line in found if line.convention in (convention(self.name, row), "")), None)
        whole = next((line for line in found if line.convention == "full"), None)
        printed = self._printed(row, column)
        return {
            f"{column} paper": _text(printed),
            column: NONE if own is None else f"{own.ours:{COUNTED[column]}}",
            f"{column} difference": f"{own.ours / float(printed) - 1:+.1%}" if own and printed else NONE,
            f"{column} full": NONE if whole is None else f"{whole.ours:{COUNTED[column]}}",
        }

    def _printed(self, row: str, column: str) -> Decimal | None:
        return PUBLISHED.get(self.name, {}).get(row, {}).get(column)


def _name(point: Spec) -> str:
    """Says of a row without public weights that its figures are the published ones."""
    return f"{point['row']} (published)" if point.get("published") else point["row"]


def settings_sheet(name: str, spec: Spec, notes: Sequence[str] = ()) -> Sheet:
    """Table 7: Plug-and-Play's settings, the paper's and ours."""
    ours = spec["settings"]
    cells = [[key, _setting(value), _setting(ours.get(key))] for key, value in PLUG_AND_PLAY.items()]
    return Sheet(f"{name.capitalize()}: {spec['title']}", ["setting", "paper", "ours"], cells, notes)


def _setting(value: Any) -> str:
    return NONE if value is None else str(value)


def _text(printed: Decimal | None) -> str:
    return NONE if printed is None else str(printed)
