"""The house rules of docs and CONTRIBUTING.md that a program can check: sizes, names, and one place for old names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted([*(ROOT / "clockwork").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# Names of the first edition. `timesteps`, `begin` and others that are right elsewhere are not among them.
OLD_NAMES = {
    *("Setup", "States", "Visits", "Sets", "_Passes", "Full", "Clocked", "Place", "Run", "Call", "Widths", "Tuning"),
    *("Recover", "whole", "passes", "drawn", "told", "tell", "said", "away", "asked", "lacking", "still", "pushed"),
    *("begun", "having", "halves", "which_half", "guide", "unplanned", "why", "one_by_one"),
    *("found", "here", "seen", "made", "own", "there"),  # local names that do not say what they hold
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("file", [*PACKAGE, *TESTS], ids=name_of)
def test_files_and_functions_are_short(file: Path) -> None:
    """250 lines a file; 40 a function, without its docstring."""
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 250
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            assert (node.end_lineno or 0) - node.lineno + 1 - len(docstring.splitlines()) <= 40, node.name


@pytest.mark.parametrize("file", [file for file in PACKAGE if file.name != "deprecated.py"], ids=name_of)
def test_no_old_names_are_defined(file: Path) -> None:
    defined: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            defined.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
    assert not defined & OLD_NAMES


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=name_of)
def test_scripts_are_thin(script: Path) -> None:
    """What a command does is in clockwork/experiments, where it is imported and type-checked."""
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 40


def test_nothing_names_a_place_on_somebodys_machine() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "configs").rglob("*.yaml")]
    for file in [*PACKAGE, *TESTS, *pages]:
        assert not re.search(r"/(home|Users)/\w+", file.read_text(encoding="utf-8")), file
