"""Tables that compare the paper's published values with measured rows and counted FLOPs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from clockwork.evaluation.rows import row_value
from clockwork.metrics.registry import metric_info
from clockwork.reports.formats import Sheet
from clockwork.reports.paper.flops_audit import Line, Spec
from clockwork.reports.paper.published import PLUG_AND_PLAY, PUBLISHED, convention
from clockwork.reports.paper.scale import Scale
from clockwork.reports.tables import Row, cell

NONE, UNMEASURED = "–", "not measured"  # cells without a value: one that cannot exist, and one that is missing
# Number formats of what is counted.
COUNTED = {"tflops": ".2f", "gflops": ".1f", "gflops_of_two": ".1f", "saving": ".1f", "parameters": ".2f"}
MEASURED = ("latency_ms", "device")  # columns without a metric


@dataclass(frozen=True)
class Comparison:
    """A table or figure of the paper, beside the project's values.

    Attributes:
        name: Name such as `table 3`.
        spec: Title, columns and operating points, as in `configs/table`.
        scale: The scale at which the rows were measured.
        rows: Measured rows, by the names of the table's lines.
        lines: Counted FLOPs and parameters.
    """

    name: str
    spec: Spec
    scale: Scale
    rows: Mapping[str, Row]
    lines: Sequence[Line]

    def sheet(self, notes: Sequence[str] = ()) -> Sheet:
        """Builds the table, with the columns `… paper`, `…` and `… difference` for each of the paper's columns.

        Metrics of another scale are shown without a comparison. FLOPs are compared at each scale, as they are always
        those of the paper's architectures. Columns without any value are omitted.

        Args:
            notes: Paragraphs to add below the table.

        Returns:
            The table.
        """
        lines = [{"row": _name(point), **self._cells(point)} for point in self._points()]
        columns = list(dict.fromkeys(column for line in lines for column in line))
        columns = [c for c in columns if c == "row" or any(line.get(c, NONE) != NONE for line in lines)]
        cells = [[line.get(column, NONE) for column in columns] for line in lines]
        suffix, note = self.scale.suffix, self.scale.note
        explanation = [note] if note and any(column.endswith(suffix) for column in columns) else []
        return Sheet(f"{self.name.capitalize()}: {self.spec['title']}", columns, cells, [*explanation, *notes])

    def unmeasured(self) -> list[str]:
        """Lists the lines that could be measured but have not been.

        Returns:
            Names of the lines.
        """
        return [point["row"] for point in self._points() if self._possible(point) and point["row"] not in self.rows]

    def _points(self) -> list[Spec]:
        """Returns the operating points; those of editing once per number of inversion steps."""
        points, counts = self.spec["points"], self.spec.get("inversion_steps")
        if not counts:
            return list(points)
        return [{**p, "row": f"{p['row']}, {n} inversion steps"} for p in points for n in counts]

    def _possible(self, point: Spec) -> bool:
        """Checks whether an operating point can be measured at this scale."""
        return bool(point["teacher"] or "made_by" in self.spec) and not point.get("published")

    def _cells(self, point: Spec) -> dict[str, str]:
        """Formats the cells of a line, by column."""
        cells: dict[str, str] = {}
        for column in self.spec["columns"]:
            if column in point:
                cells[column] = str(point[column])
            elif column in COUNTED:
                cells |= self._counted(point["row"], column)
            elif column in MEASURED:
                name = f"{column}{self.scale.suffix}" if column == "latency_ms" else column
                cells[name] = self._ours(point, column)
            elif column.startswith("latency_"):
                cells[f"{column} paper"] = _text(self._printed(point["row"], column))
            else:
                cells |= self._quality(point, column)
        if self.scale.suffix and point["row"] in self.rows:
            cells[f"gflops{self.scale.suffix}"] = f"{1000 * self.rows[point['row']]['tflops_full']:.3f}"
        return cells

    def _quality(self, point: Spec, column: str) -> dict[str, str]:
        """Formats a metric: the paper's value, the measured one, and at real size the difference."""
        printed = self._printed(point["row"], column)
        name = self.scale.metric(column)
        cells = {f"{column} paper": _text(printed), name: self._ours(point, name)}
        if name == column:
            measured = row_value(self.rows.get(point["row"], {}), column)
            both = printed is not None and measured is not None
            signed = metric_info(column).number_format.replace("{:", "{:+")
            cells[f"{column} difference"] = signed.format((measured or 0) - float(printed or 0)) if both else NONE
        return cells

    def _ours(self, point: Spec, name: str) -> str:
        """Formats a measured value."""
        row = self.rows.get(point["row"], {})
        if row_value(row, name) is None:
            return UNMEASURED if self._possible(point) else NONE
        return cell(row, name)

    def _counted(self, row: str, column: str) -> dict[str, str]:
        """Formats counted FLOPs or parameters: the paper's value, ours in its convention and in `full`."""
        lines = [line for line in self.lines if (line.figure, line.row, line.quantity) == (self.name, row, column)]
        counted = next((line for line in lines if line.convention in (convention(self.name, row), "")), None)
        full = next((line for line in lines if line.convention == "full"), None)
        printed = self._printed(row, column)
        return {
            f"{column} paper": _text(printed),
            column: NONE if counted is None else f"{counted.ours:{COUNTED[column]}}",
            f"{column} difference": f"{counted.ours / float(printed) - 1:+.1%}" if counted and printed else NONE,
            f"{column} full": NONE if full is None else f"{full.ours:{COUNTED[column]}}",
        }

    def _printed(self, row: str, column: str) -> Decimal | None:
        """Returns the paper's value, if it prints one."""
        return PUBLISHED.get(self.name, {}).get(row, {}).get(column)


def _name(point: Spec) -> str:
    """Returns a line's name, marked as published if the model has no public weights."""
    return f"{point['row']} (published)" if point.get("published") else point["row"]


def settings_sheet(name: str, spec: Spec, notes: Sequence[str] = ()) -> Sheet:
    """Builds Table 7: the settings of Plug-and-Play in the paper and in this project.

    Args:
        name: Name of the table.
        spec: Title and `settings`, as in `configs/table`.
        notes: Paragraphs to add below the table.

    Returns:
        The table.
    """
    ours = spec["settings"]
    cells = [[key, _setting(value), _setting(ours.get(key))] for key, value in PLUG_AND_PLAY.items()]
    return Sheet(f"{name.capitalize()}: {spec['title']}", ["setting", "paper", "ours"], cells, notes)


def _setting(value: Any) -> str:
    """Formats a setting."""
    return NONE if value is None else str(value)


def _text(printed: Decimal | None) -> str:
    """Formats a published value with the digits that the paper prints."""
    return NONE if printed is None else str(printed)
