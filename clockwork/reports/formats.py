"""A table as text: Markdown, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clockwork.io.atomic import atomic_write


@dataclass(frozen=True)
class Sheet:
    title: str
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]  # a line each
    notes: Sequence[str] = field(default=())  # below the table

    def write(self, stem: Path) -> None:
        """`stem.md`, `stem.csv` and `stem.tex`, each whole or not at all."""
        notes = "\n\n".join(self.notes)
        _write(stem, ".md", f"# {self.title}\n\n{markdown(self.columns, self.cells)}\n" + (notes and f"\n{notes}\n"))
        _write(stem, ".csv", comma_separated(self.columns, self.cells))
        _write(stem, ".tex", latex(self.title, self.columns, self.cells))


def markdown(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(name), *(len(line[i]) for line in cells), 1) for i, name in enumerate(columns)]

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)) + " |"

    return "\n".join([line(columns), line(["-" * width for width in widths]), *map(line, cells)])


def comma_separated(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([columns, *cells])
    return stream.getvalue()


def latex(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table float for the booktabs package."""
    lines = [" & ".join(map(_escaped, line)) + r" \\" for line in (columns, *cells)]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "×": r"$\times$"}


def _escaped(text: str) -> str:
    return re.sub(r"[\\~^–×&%$#_{}]", lambda found: _LATEX.get(found[0], rf"\{found[0]}"), text)


def _write(stem: Path, suffix: str, text: str) -> None:
    with atomic_write(stem.with_name(f"{stem.name}{suffix}")) as partial:
        partial.write_text(text, encoding="utf-8")
