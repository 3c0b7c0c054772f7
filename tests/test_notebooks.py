"""Notebooks call the package and define nothing; they lie in git without outputs. `make notebooks` executes them."""

import ast
from pathlib import Path

import nbformat
import pytest

BOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_is_stripped_and_defines_nothing(book: Path) -> None:
    cells = nbformat.read(book, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    lines = [line for cell in code for line in cell.source.splitlines() if not line.startswith("%")]
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, defined)]


def test_they_are_all_there() -> None:
    names = ["calibrate", "perturbation", "quickstart", "reproduce_tables", "train_an_adaptor"]
    assert [book.stem for book in BOOKS] == names
