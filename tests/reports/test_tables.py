"""The paper's tables as operating points: run once, joined to what is printed, honest about what was not run."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import QUICK_TRAINING, ROOT, answers_in_one_sentence, run
from helpers.figures import saved_figures
from hydra import initialize_config_dir

from clockwork.experiments.configs import compose_config
from clockwork.experiments.paper_tables import Table, numbers
from clockwork.reports.index import edited
from clockwork.reports.paper import figures as paper_figures
from clockwork.reports.paper.published import PLUG_AND_PLAY, PUBLISHED
from clockwork.reports.paper.scale import Scale

ONE = ["scale.teachers.sd=null", "scale.teachers.distilled=null"]  # the Efficient UNet's rows alone
QUICK = [*ONE, "prompts.count=1", "metrics=none", "metrics.latency=false"]


def load(kind: str, number: str, scale: str) -> Table:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return Table.load(kind, number, scale)


@pytest.mark.parametrize("scale", ["miniature", "paper"])
@pytest.mark.parametrize(("kind", "number"), [(kind, n) for kind in ("table", "figure") for n in numbers(kind)])
def test_rows_are_named_as_published(kind: str, number: str, scale: str) -> None:
    """Tables have every row that the paper has, in its order; figures those that it gives in numbers."""
    table = load(kind, number, scale)
    rows = [point["row"] for point in table.spec["points"]]
    assert len(rows) == len(set(rows))
    if kind == "table" and number != "7":
        assert sorted(rows) == sorted(PUBLISHED[table.name])
    if number == "4":
        assert set(PUBLISHED[table.name]) <= set(rows)
    assert table.commands and all(command.startswith("python scripts/") for command in table.commands)


def test_there_is_one_for_each_of_the_papers() -> None:
    assert numbers("table") == ["1", "2", "3", "4", "5", "6", "7"]
    assert numbers("figure") == ["2", "4", "6", "7", "10", "11", "12", "13", "15"]


def test_roles_are_teachers_of_the_scale() -> None:
    in_small, real = (dict(load("table", "1", scale).by_teacher()) for scale in ("miniature", "paper"))
    assert list(in_small) == ["miniature_sd", "miniature", "miniature_distilled"]
    others = ["bk_sdm_base", "bk_sdm_small", "bk_sdm_tiny", "instaflow"]
    assert list(real) == [*others, "sd15", "efficient", "distilled"]
    assert [p["row"] for p in real["efficient"]] == ["Efficient UNet", "Efficient UNet + Clockwork"]


def test_settings_of_plug_and_play_are_those_of_the_benchmark() -> None:
    settings = load("table", "7", "paper").spec["settings"]
    assert settings == PLUG_AND_PLAY
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        used = compose_config("edit", ["+benchmark=imagenetr_ti2i", "teacher=sd15"])
    assert (used.solver, used.guidance, used.negative) == ("ddim", settings["guidance"], settings["negative_prompt"])
    assert (used.tau_a, used.tau_f) == (settings["tau_a"], settings["tau_f"])


def test_editing_rows_are_joined_by_clock_and_inversion_steps(tmp_path: Path) -> None:
    spec = load("figure", "6", "miniature").spec
    clocked = {f"{phase}_{key}": value for phase in ("inversion", "generation") for key, value in
               (("adaptor", "identity"), ("schedule", "clock2"))}  # fmt: skip
    row = {"digest": "a", "benchmark": "scenes", "teacher": "miniature_sd", "inversion_steps": 20, **clocked}
    rows = [row, {**row, "digest": "b", "inversion_schedule": "full"}, {**row, "digest": "c", "teacher": "sd15"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert edited(tmp_path, spec) == {
        "Identity, clock 2, 20 inversion steps": {**row, "metrics": {}, "metrics_label": None}
    }


def test_training_makes_the_adaptor_that_a_point_needs() -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        table = Table.load("figure", "7", "miniature")
        noised = next(p for p in table.spec["points"] if p["row"] == "Regular distillation, 16 steps")
        words = table.training(noised, table.config("miniature"))
        clocks = Table.load("table", "3", "paper")
        clock = next(p for p in clocks.spec["points"] if p["row"] == "Clock {5,6,7,8}")
        others = clocks.training(clock, clocks.config("efficient"))
        distilled = Table.load("table", "5", "paper")
        last = distilled.training(distilled.spec["points"][-1], distilled.config("distilled"))
    assert {"teacher=miniature", "adaptor=resnet", "data=noised", "adaptor_name=resnet_noised", "steps=16"} <= set(
        words
    )
    assert {"teacher=efficient", "schedule='5,6,7,8'", "solver=dpm++"} <= set(others)
    assert {"adaptor=resnet_no_prev", "schedule=always", "solver=ddim"} <= set(last)  # that teacher's own solver


def test_a_table_runs_what_is_missing_and_only_that(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, flops_csv: Path
) -> None:
    folders = [f"output={tmp_path / 'eval'}", f"adaptors={tmp_path / 'adaptors'}"]
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "evaluate", "+figure=4", *QUICK, *folders)
    said = capsys.readouterr().err
    assert stopped.value.code == 2  # three adaptors are not trained: the rest was run, and these are named
    assert said.count("python scripts/train.py") == 3 and "teacher=miniature adaptor=resnet" in said
    rows = tmp_path / "eval" / "rows.jsonl"
    before, painted = rows.read_text(), {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.png")}
    assert [json.loads(line)["steps"] for line in before.splitlines()] == [8, 6, 4, 3]
    with pytest.raises(SystemExit):
        run(monkeypatch, "evaluate", "+figure=4", "-m", *QUICK, *folders)
    assert rows.read_text() == before
    assert {f: f.stat().st_mtime_ns for f in painted} == painted

    output = tmp_path / "reports"
    output.mkdir()
    shutil.copy(flops_csv, output / "flops.csv")
    capsys.readouterr()
    where = [f"rows={tmp_path / 'eval'}", f"adaptors={tmp_path / 'adaptors'}", f"output={output}"]
    run(monkeypatch, "report", "figure=4", *ONE, *where)
    tables = [f"figure-4-miniature.{ending}" for ending in ("csv", "md", "tex")]
    assert {file.name for file in output.iterdir()} == {".clockwork-outputs", "clockwork.log", "flops.csv", *tables}
    with (output / "figure-4-miniature.csv").open(encoding="utf-8") as stream:
        lines = {line["row"]: line for line in csv.DictReader(stream)}
    assert lines["Efficient UNet, 6 steps"]["gflops_miniature"] != "–"
    assert lines["Efficient UNet + Clockwork, 6 steps"]["fid_miniature"] == "not measured"
    assert lines["SD UNet, 8 steps"]["fid_miniature"] == "–"  # no such teacher here
    assert lines["SD UNet + Clockwork, 8 steps"]["tflops"] == "7.30"
    text = (output / "figure-4-miniature.md").read_text(encoding="utf-8")
    assert "Not measured: Efficient UNet + Clockwork, 8 steps" in text
    said = " ".join([*ONE, *folders])
    assert f"\npython scripts/evaluate.py +figure=4 scale=miniature {said}\n" in text
    assert f"schedule=clock2 solver=dpm++ steps=4 output={tmp_path / 'adaptors'}\n" in text


@pytest.mark.slow
def test_table_5_is_trained_and_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As its commands say: the ablations' configs, and a schedule without any full step, whose sample images leave the
    identity nothing to repeat."""
    small = ["scale.teachers.distilled=miniature", "steps=2"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        table = Table.load("table", "5", "miniature", tuple(small))
        points = [point for point in table.spec["points"] if point["adaptor"] != "none"]
        training = [table.training(point, table.config("miniature")) for point in points]
    for words in training:
        samples = ["samples_every=1"] if "schedule=always" in words else []
        run(monkeypatch, "train", *words, *QUICK_TRAINING, *samples, f"output={tmp_path / 'adaptors'}")
    assert len(list(tmp_path.rglob("samples/*.png"))) == 1
    once = ["prompts.count=1", "metrics=none", "metrics.latency=false"]
    run(monkeypatch, "evaluate", "+table=5", *small, *once, f"output={tmp_path}", f"adaptors={tmp_path / 'adaptors'}")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["adaptor"], row["schedule"], row["full_steps"]) for row in rows] == [
        ("none", "full", 2),
        *((name, "clock2", 1) for name in ("resnet_r_in", "resnet_r_out", "resnet_no_text", "resnet")),
        ("resnet_no_prev", "always", 0),
    ]


MISTAKES = {
    "no such table": ("report", ["table=9"], "no table 9: there are 1, 2, 3, 4, 5, 6, 7"),
    "no such figure": ("report", ["figure=5"], "no figure 5: there are 2, 4, 6"),
    "no such report": ("report", ["poster"], "what=poster is not allowed: use one of tables, flops, unets, html"),
    "no such table to run": ("evaluate", ["+table=9"], "table=9"),
    "another script's table": ("evaluate", ["+table=7"], "scripts/edit.py"),
    "a teacher beside a table": ("evaluate", ["+table=3", "teacher=sd15"], "names its teachers itself"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script, arguments, expected = MISTAKES[name]
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, script, *arguments, f"output={tmp_path}")
    answers_in_one_sentence(stopped.value.code, capsys, expected, tmp_path)


SMALL = Scale({name: f"{name}_miniature" for name in ("fid", "clip_score")}, "_miniature", "not comparable")


@pytest.mark.parametrize("draw", ["quality_against_flops", "quality_against_steps"])
def test_figures_are_drawn_from_what_was_measured(draw: str, tmp_path: Path) -> None:
    def row(steps: int, fid: float | None) -> dict[str, Any]:
        return {"steps": steps, "tflops_paper": 1.2 * steps, "metrics": {} if fid is None else {"fid": fid}}

    rows = {f"SD UNet{also}, {n} steps": row(n, 30 - n) for also in ("", " + Clockwork") for n in (4, 6, 8)}
    with saved_figures() as figures:
        assert getattr(paper_figures, draw)(rows, Scale(), tmp_path / "figure")
    unit = 1.2 if draw == "quality_against_flops" else 1.0
    curve = [[unit * steps, 30.0 - steps] for steps in (4, 6, 8)]
    for name in ("figure.png", "figure.pdf"):
        (panel,) = figures[name].values()
        assert panel == {"SD UNet": curve, "SD UNet + Clockwork": curve} and (tmp_path / name).is_file()
    assert not getattr(paper_figures, draw)({"SD UNet, 8 steps": row(8, None)}, Scale(), tmp_path / "none")
    assert not list(tmp_path.glob("none*"))


@pytest.mark.full
def test_tables_end_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flops_csv: Path) -> None:
    """Trains the adaptor that Table 6 lacks, measures its rows, writes the report; a second run does nothing."""
    (tmp_path / "reports").mkdir()
    shutil.copy(flops_csv, tmp_path / "reports" / "flops.csv")
    train = 'train=["epochs=1","prompts_per_epoch=2","repeats_per_epoch=1","samples_every=9"]'
    folders = [f"adaptors={tmp_path / 'adaptors'}", f"rows={tmp_path / 'eval'}", f"output={tmp_path / 'reports'}"]
    words = ["tables=[6]", "figures=[]", *ONE, train, 'evaluate=["prompts.count=1","metrics=none"]', *folders]
    run(monkeypatch, "tables", *words)
    (adaptor,) = tmp_path.rglob("adaptor.safetensors")
    before = adaptor.stat().st_mtime_ns, (tmp_path / "eval" / "rows.jsonl").read_text()
    run(monkeypatch, "tables", *words)
    assert (adaptor.stat().st_mtime_ns, (tmp_path / "eval" / "rows.jsonl").read_text()) == before
    with (tmp_path / "reports" / "table-6-miniature.csv").open(encoding="utf-8") as stream:
        lines = {line["row"]: line for line in csv.DictReader(stream)}
    assert float(lines["Efficient UNet + Clockwork"]["latency_ms_miniature"]) > 0
