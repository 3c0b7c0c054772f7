"""Files of others with the names of results: each command refuses before it loads anything, and all stays as it was."""

from pathlib import Path

import pytest
from helpers.commands import run

from clockwork import teachers

TWO = "points=[{adaptor: identity}, {adaptor: identity, schedule: clock4}]"
BENCHMARK = ["+benchmark=scenes", "points=[{}]"]
FITTED = "miniature/linear-stage1-clock2-dpm++-8-g3"
# The command, with {place} for the folder, and a file in it.
CASES: list[tuple[str, list[str], str]] = [
    ("drift", ["output={place}"], "drift.csv"),
    ("drift", ["output={place}"], "drift.png"),
    ("perturb", ["output={place}"], "perturbation.csv"),
    ("perturb", ["output={place}"], "perturbation.png"),
    ("perturb", ["output={place}"], "grid-0.png"),
    *(("evaluate", [TWO, "output={place}"], name) for name in ("pareto.png", "grid.png", "report.html")),
    *(("evaluate", [TWO, "output={place}"], f"categories.{suffix}") for suffix in ("md", "csv", "tex")),
    *(("evidence", ["output={place}"], f"evidence.{suffix}") for suffix in ("md", "csv", "tex")),
    ("evidence", ["output={place}"], "evidence-short.csv"),
    ("evidence", ["output={place}"], "evidence-miniature-dpmpp.png"),
    ("bench", ["output={place}/timings.json"], "timings.json"),
    ("report", ["flops", "output={place}"], "flops.csv"),
    ("report", ["unets", "output={place}"], "unets.md"),
    ("report", ["compare", "output={place}", "rows={place}"], "compare.tex"),
    ("report", ["html", "rows={place}", "output={place}"], "report.html"),
    *(("report", ["table=3", "output={place}"], f"table-3-miniature.{suffix}") for suffix in ("md", "csv", "tex")),
    ("calibrate", ["output={place}"], f"{FITTED}/errors.png"),
    ("calibrate", ["menu", "menu.output={place}"], "miniature/menu.html"),
    ("edit", [*BENCHMARK, "output={place}"], "figure6.png"),
    ("edit", [*BENCHMARK, "output={place}"], "figure15-scenes.png"),
    ("edit", [*BENCHMARK, "output={place}"], "images-scenes-20.png"),
]
# The same, with a file by a name like those of results, but of another teacher, solver, benchmark or number of steps.
OTHERS: list[tuple[str, list[str], str]] = [
    ("evidence", ["output={place}"], "evidence-mine.png"),
    ("evidence", ["output={place}"], "evidence-miniature-flow.png"),
    ("evidence", ["output={place}", "teacher_name=miniature_sd"], "evidence-miniature-dpmpp.png"),
    ("edit", [*BENCHMARK, "output={place}"], "figure15-mine.png"),
    ("edit", [*BENCHMARK, "output={place}"], "images-scenes-100.png"),
    ("edit", [*BENCHMARK, "output={place}", "inversion.steps=50"], "images-scenes-20.png"),
    ("edit", [*BENCHMARK, "output={place}"], "images-mine-100.png"),
]


class LoadedError(Exception):
    """A teacher would be loaded."""


def loads(*_: object, **__: object) -> None:
    raise LoadedError


@pytest.mark.parametrize(("command", "words", "name"), CASES, ids=[f"{c} {name}" for c, _, name in CASES])
def test_a_file_of_others_is_refused_before_any_work(
    command: str,
    words: list[str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a user's")
    monkeypatch.setattr(teachers, "load_teacher", None)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, command, *(word.format(place=tmp_path) if "{place}" in word else word for word in words))
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stopped.value.code == 2 and sentence.startswith(f"error: {file} exists and was not made by Clockwork")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file] and file.read_text() == "a user's"


@pytest.mark.parametrize(("command", "words", "name"), OTHERS, ids=[f"{c} {name}" for c, _, name in OTHERS])
def test_a_file_that_would_not_be_replaced_is_no_reason_to_refuse(
    command: str, words: list[str], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("a user's")
    where = f"rows={tmp_path}/rows" if command == "evidence" else "adaptor=none"
    monkeypatch.setattr(teachers, "load_teacher", loads)
    with pytest.raises(LoadedError):
        run(monkeypatch, command, *(word.replace("{place}", str(tmp_path)) for word in words), where)
