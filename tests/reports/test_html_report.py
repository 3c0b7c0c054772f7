"""The report that people open: one file, which a real browser shows without a word in its console."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.browser import CHROMIUM, opened

from clockwork.data.image_io import write_image
from clockwork.errors import UserError
from clockwork.reports.adaptors import find_trained_adaptors
from clockwork.reports.formats import Sheet
from clockwork.reports.html import write_report
from clockwork.reports.pareto import curve_names, pareto_figure
from clockwork.reports.plots import BASELINE

POINT: dict[str, Any] = {"teacher": "small", "teacher_hash": "t", "cut": "2,3", "solver": "dpm++", "guidance": 3.0}
COMMAND = "python scripts/evaluate.py sweep=<none> & 'so on'"


def row(adaptor: str, schedule: str, steps: int, fid: float | None, tflops: float, **more: Any) -> dict[str, Any]:
    point = {**POINT, "adaptor": adaptor, "schedule": schedule, "steps": steps, "resolution": 32}
    digest = f"{adaptor}-{schedule}-{steps}"
    shared = {
        "prompts": "p",
        "images": 2,
        "seed": 0,
        "metrics_label": "FID of nothing",
        "device": "cpu",
        "command": COMMAND,
    }
    metrics = {"clip_score": 0.3} if fid is None else {"fid": fid, "clip_score": 0.3}
    figures = {"metrics": metrics, "latency_ms": 10 * tflops, "tflops_full": tflops}
    return {"digest": digest, **point, **shared, **figures, "teacher_digest": f"none-full-{steps}", **more}


ROWS = [
    row("none", "full", 8, 9.5, 8.0),
    row("none", "full", 4, 30.0, 4.0),
    row("identity", "clock2", 8, None, 5.0),
    row("resnet", "clock2", 8, 10.25, 5.5),
]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A folder as an evaluation leaves it, with a prompt that would break a careless page."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "p.json").write_text(json.dumps([[0, 'a <b>fox</b> & "dog"'], [1, "</script><i>"]]))
    for number, r in enumerate(ROWS):
        folder = tmp_path / "images" / r["digest"]
        folder.mkdir(parents=True)
        for prompt, side in ((0, 32), (1, 300)):  # the second is larger than a report shows
            write_image(folder / f"{prompt}.png", torch.full((3, side, side), 40 * number, dtype=torch.uint8))
    run = tmp_path / "adaptors" / "small" / "resnet-stage1-clock2-dpm++-8"
    (run / "adaptor").mkdir(parents=True)
    names = [*POINT, "schedule", "steps", "resolution"]
    config = {"kind": "resnet", "adaptor": {}, "operating_point": {name: ROWS[3][name] for name in names}}
    (run / "adaptor" / "config.json").write_text(json.dumps(config))
    older = "epoch,identity,loss_epoch,loss_step\n0,,,3\n0,2.5,2.0,\n"
    for version, lines in enumerate([older, "epoch,identity,loss\n1,2.5,1.5\n"]):  # the second is a resumed run's
        (run / "log" / f"version_{version}").mkdir(parents=True)
        log = run / "log" / f"version_{version}" / "metrics.csv"
        log.write_text(lines)
    return tmp_path


def test_the_report_is_one_file(sweep: Path) -> None:
    page = write_report(sweep, sweep / "adaptors").read_text()
    assert not re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"(?!data:)", page)
    ours = page.replace(re.findall(r"<script>(.{100000,}?)</script>", page, re.S)[0], "")  # without plotly
    assert "http" not in ours.replace("http://www.w3.org", "")
    assert "&lt;b&gt;fox&lt;/b&gt; &amp; &#34;dog&#34;" in page and "<b>fox" not in page
    assert (
        ours.count("image/webp") == 6 and ours.count("image/png;base64") == 6
    )  # four points, and two teachers beneath them


def test_the_papers_figures_stand_beside_ours(sweep: Path) -> None:
    """What was not measured sorts by nothing, a difference by its number."""
    cells = [["ResNet", "23.21", "not measured", "–"], ["Identity", "24.36", "24.10", "-1.1%"]]
    sheet = Sheet("Table 3", ["row", "fid paper", "fid", "fid difference"], cells, ["```\nmake tables\n```"])
    page = write_report(sweep, None, [sheet]).read_text()
    lines = re.findall(r'<td data-value="([^"]*)">([^<]*)</td>', page)[:8]
    assert [shown for _, shown in lines] == cells[0] + cells[1]
    assert [order for order, _ in lines] == ["ResNet", "23.21", "", "", "Identity", "24.36", "24.1", "-1.1"]
    assert "make tables" in page


def test_figures_hold_what_rows_say() -> None:
    figure = json.loads(pareto_figure(ROWS, "fid", "tflops_full").to_json())
    front, baseline, resnet = figure["data"]
    assert (front["name"], front["x"], front["y"]) == ("front", [4.0, 5.5, 8.0], [30.0, 10.25, 9.5])
    assert baseline["name"] == "small, fewer steps" and baseline["line"] == {"color": BASELINE, "dash": "dash"}
    assert (baseline["x"], baseline["y"], baseline["text"]) == ([4.0, 8.0], [30.0, 9.5], ["4", "8"])
    assert (resnet["x"], resnet["y"]) == ([5.5], [10.25])  # the identity's FID was not measured
    clip = json.loads(pareto_figure(ROWS, "clip_score", "latency_ms").to_json())["data"]
    assert [curve["name"] for curve in clip] == ["small, fewer steps", "identity clock2", "resnet clock2"]
    assert clip[-1]["line"] == resnet["line"]  # a curve has one colour


def test_names_tell_rows_apart() -> None:
    rows = [ROWS[3], {**ROWS[3], "solver": "ddim"}]
    assert curve_names(rows) == ["resnet clock2, solver dpm++", "resnet clock2, solver ddim"]
    assert curve_names(ROWS)[3] == "resnet clock2"


def test_training_logs_are_found_by_their_operating_point(sweep: Path) -> None:
    (log,) = find_trained_adaptors(sweep / "adaptors", ROWS)
    assert log.curves == {"loss": [2.0, 1.5], "identity": [2.5, 2.5]}
    assert find_trained_adaptors(sweep / "adaptors", ROWS[:3]) == []  # no row used it


def test_a_sweep_without_rows_or_baseline_says_so(sweep: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"scripts/evaluate\.py output="):
        write_report(sweep / "prompts")
    (sweep / "rows.jsonl").write_text(json.dumps(ROWS[3]) + "\n")
    assert "the baseline with fewer steps is missing" in write_report(sweep).read_text()


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


@needs_chromium
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_it_without_errors(sweep: Path, width: int) -> None:
    """Plots drawn, rows sorted by a click, the slider at half, nothing wider than the screen, an empty console."""
    act = """addEventListener("load", () => setTimeout(() => {
      document.querySelectorAll(".sortable th button")[[...document.querySelectorAll(".sortable th")]
        .findIndex(th => th.textContent === "fid")].click();
      const slider = document.querySelector(".wipe input");
      slider.value = 50; slider.dispatchEvent(new Event("input"));
      const rows = [...document.querySelectorAll(".sortable tbody tr")];
      document.body.dataset.names = rows.map(row => row.cells[0].textContent);
      document.body.dataset.clip = getComputedStyle(document.querySelector(".ours")).clipPath;
      document.body.dataset.wide = document.documentElement.scrollWidth - innerWidth;
      location.hash = "resnet-clock2-8";
    }, 1000))"""
    document, console = opened(write_report(sweep, sweep / "adaptors"), act, width)
    assert console == []
    assert document.count('class="main-svg"') >= 5  # two qualities by two costs, and the training
    assert "small, fewer steps" in document and "resnet-stage1-clock2-dpm++-8: the identity" in document
    said = dict(re.findall(r'data-(names|clip|wide)="([^"]*)"', document))
    assert said["names"] == "small, 8 steps,resnet clock2, 8 steps,small, 4 steps,identity clock2, 8 steps"
    assert said["clip"] == "inset(0px 0px 0px 50%)" and int(said["wide"]) <= 0
    assert re.search(r'<details id="resnet-clock2-8" open=""', document)


@needs_chromium
def test_the_browser_would_tell_of_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<body></body>")
    (said,) = opened(tmp_path / "page.html", "undefinedFunction()")[1]
    assert "undefinedFunction is not defined" in said


def test_a_report_of_others_is_not_replaced(sweep: Path) -> None:
    file = write_report(sweep)
    assert write_report(sweep) == file
    file.write_text("<title>notes</title>")
    with pytest.raises(UserError, match=r"report\.html exists and was not made by Clockwork"):
        write_report(sweep)
    assert file.read_text() == "<title>notes</title>"


def test_figures_of_fewer_images_than_features_are_marked(sweep: Path) -> None:
    page = write_report(sweep).read_text()
    assert ">9.50†<" in page and ">0.3000<" in page and "† of fewer images than features" in page
    many = [{**r, "images": 2049} for r in ROWS]
    (sweep / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in many))
    assert "†" not in write_report(sweep).read_text()
