"""Tables as Markdown, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clockwork.io.outputs import check_outputs, write_output

FEW_IMAGES = "†"  # marks a figure
FEW_IMAGES_NOTE = f"{FEW_IMAGES} of fewer images than features: compare it only with figures of as many images"


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Attributes:
        title: The title, which is also the LaTeX caption.
        columns: Names of the columns.
        cells: The cells, line by line.
        notes: Markdown paragraphs below the table; the mark of figures of few images is explained in a last one.
    """

    title: str
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", [*self.notes, *few_images_note(self.cells)])

    def write(self, stem: Path) -> None:
        """Writes the table as Markdown (with the notes), CSV and LaTeX; each file atomically.

        Args:
            stem: Path of the files without the suffixes `.md`, `.csv` and `.tex`.

        Raises:
            UserError: A file of something else is there.
        """
        notes = "\n\n".join(self.notes)
        _write(stem, ".md", f"# {self.title}\n\n{markdown(self.columns, self.cells)}\n" + (notes and f"\n{notes}\n"))
        _write(stem, ".csv", comma_separated(self.columns, self.cells))
        _write(stem, ".tex", latex(self.title, self.columns, self.cells))


def check_sheet(stem: Path) -> None:
    """Checks that writing a table replaces nothing of others.

    Args:
        stem: As in `Sheet.write`.

    Raises:
        UserError: It would.
    """
    check_outputs(stem.parent, *(f"{stem.name}{suffix}" for suffix in (".md", ".csv", ".tex")))


def few_images_note(cells: Sequence[Sequence[str]]) -> list[str]:
    """Returns the explanation of the mark of figures of few images, if cells have it.

    Args:
        cells: The cells, line by line.
    """
    return [FEW_IMAGES_NOTE] if any(cell.endswith(FEW_IMAGES) for line in cells for cell in line) else []


def markdown(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Formats a table as Markdown with aligned columns.

    Args:
        columns: Names of the columns.
        cells: The cells, line by line.

    Returns:
        The table, without a final line break.
    """
    widths = [max(len(name), *(len(line[i]) for line in cells), 1) for i, name in enumerate(columns)]

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)) + " |"

    return "\n".join([line(columns), line(["-" * width for width in widths]), *map(line, cells)])


def comma_separated(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Formats a table as CSV.

    Args:
        columns: Names of the columns.
        cells: The cells, line by line.

    Returns:
        The contents of a CSV file.
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([columns, *cells])
    return stream.getvalue()


def latex(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Formats a table as a LaTeX table environment; needs the package booktabs.

    Args:
        title: The caption.
        columns: Names of the columns.
        cells: The cells, line by line.

    Returns:
        The LaTeX code.
    """
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
    """Escapes the special characters of LaTeX."""
    return re.sub(r"[\\~^–×&%$#_{}]", lambda match: _LATEX.get(match[0], rf"\{match[0]}"), text)


def _write(stem: Path, suffix: str, text: str) -> None:
    """Writes a text file atomically."""
    with write_output(stem.with_name(f"{stem.name}{suffix}")) as partial:
        partial.write_text(text, encoding="utf-8")
