"""Results are written over those of Clockwork alone, known by a mark inside or by the list of their folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from clockwork.errors import UserError
from clockwork.evaluation.rows import append_row
from clockwork.io.outputs import LIST, check_outputs, write_output
from clockwork.reports.analysis import curves, write_csv
from clockwork.reports.formats import Sheet
from clockwork.reports.pages import write_page
from clockwork.reports.timings import Timings

ROWS = [{"cut": "stage1", "step": 2, "value": 1.0}]
SHEET = Sheet("Rows", ["a", "b"], [["1", "2"]])
# What writes each file, and all files that it writes.
WRITERS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a table": (lambda folder: SHEET.write(folder / "evidence"), ["evidence.md", "evidence.csv", "evidence.tex"]),
    "rows": (lambda folder: write_csv(ROWS, folder / "drift.csv"), ["drift.csv"]),
    "a plot": (lambda folder: curves(ROWS, "cut", "step", {"value": ""}, folder / "drift.png", ""), ["drift.png"]),
    "a plot for print": (lambda folder: curves(ROWS, "cut", "step", {"value": ""}, folder / "a.pdf", ""), ["a.pdf"]),
    "a page": (lambda folder: write_page(folder / "report.html", "<title>clockwork: rows</title>"), ["report.html"]),
    "timings": (lambda folder: Timings("a CPU", {}, ()).write(folder / "timings.json"), ["timings.json"]),
}
CASES = [(name, file) for name, (_, files) in WRITERS.items() for file in files]


def foreign(file: Path) -> bytes:
    """Writes a file as users have them."""
    if file.suffix == ".png":
        Image.new("RGB", (8, 8)).save(file)
    else:
        file.write_text('{"machine": "mine"}' if file.suffix == ".json" else "a,b\n1,2\n")
    return file.read_bytes()


@pytest.mark.parametrize(("name", "file"), CASES)
def test_files_of_others_are_not_replaced(name: str, file: str, tmp_path: Path) -> None:
    write, _ = WRITERS[name]
    content = foreign(tmp_path / file)
    with pytest.raises(UserError, match="exists and was not made by Clockwork, so it is not replaced"):
        write(tmp_path)
    assert (tmp_path / file).read_bytes() == content


@pytest.mark.parametrize("name", WRITERS)
def test_results_are_replaced_also_in_a_folder_that_was_moved(name: str, tmp_path: Path) -> None:
    write, files = WRITERS[name]
    (tmp_path / "first").mkdir()
    for folder in (tmp_path / "first", tmp_path / "second", tmp_path / "new" / "below"):
        write(folder)
        write(folder)
        assert {file.name for file in folder.iterdir()} - {LIST} == set(files)
        if folder.name == "first":
            folder.rename(tmp_path / "second")


@pytest.mark.parametrize(("name", "file"), CASES)
def test_a_file_of_others_among_results_is_not_replaced(name: str, file: str, tmp_path: Path) -> None:
    """The folder is ours: it has rows, and a table of another name."""
    append_row(tmp_path / "rows.jsonl", {"digest": "a"})
    Sheet("Other", ["a"], [["1"]]).write(tmp_path / "other")
    foreign(tmp_path / file)
    with pytest.raises(UserError, match="was not made by Clockwork"):
        WRITERS[name][0](tmp_path)


EARLIER = {"clockwork.log": "2025 train.py\n", "rows.jsonl": "{}\n", "config.json": '{\n  "settings": {}\n}\n'}


@pytest.mark.parametrize("begun", EARLIER)
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "a page"])  # which had its mark
def test_results_of_earlier_versions_are_replaced(name: str, begun: str, tmp_path: Path) -> None:
    write, files = WRITERS[name]
    (tmp_path / begun).write_text(EARLIER[begun])
    for file in files:
        foreign(tmp_path / file)  # without list and mark they look as a user's
    write(tmp_path)
    write(tmp_path)
    foreign(tmp_path / "late.csv")
    if (tmp_path / LIST).exists():  # from now on
        with pytest.raises(UserError, match=r"late\.csv exists"):
            write_csv(ROWS, tmp_path / "late.csv")


def test_a_folder_at_the_path_of_a_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "drift.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        check_outputs(tmp_path, "drift.csv")


def test_similar_names_and_links(tmp_path: Path) -> None:
    foreign(tmp_path / "figure15-a.png")
    check_outputs(tmp_path, "figure6.png", "figure15-*.png", "figure15-[a].png")
    foreign(tmp_path / "mine.csv")
    (tmp_path / "drift.csv").symlink_to("mine.csv")
    with pytest.raises(UserError, match=r"drift\.csv"):
        check_outputs(tmp_path, "drift.csv")


def test_a_result_that_fails_is_not_listed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), write_output(tmp_path / "drift.csv"):
        raise RuntimeError
    foreign(tmp_path / "drift.csv")
    with pytest.raises(UserError, match="not made"):
        check_outputs(tmp_path, "drift.csv")
