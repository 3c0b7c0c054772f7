"""The paper's figures beside measured ones."""

import csv
from decimal import Decimal
from pathlib import Path

from clockwork.reports.formats import Sheet
from clockwork.reports.paper.comparison import Comparison
from clockwork.reports.paper.flops_audit import Line
from clockwork.reports.paper.published import PUBLISHED
from clockwork.reports.paper.scale import Scale

SMALL = Scale({name: f"{name}_miniature" for name in ("fid", "clip_score")}, "_miniature", "not comparable")


def comparison(miniature: bool) -> dict[str, dict[str, str]]:
    points = [
        {"row": "SD UNet", "teacher": "sd15"},
        {"row": "SD UNet + Clockwork", "teacher": "sd15"},
        {"row": "SnapFusion", "teacher": None, "published": True},
    ]
    spec = {"title": "Title", "columns": ["fid", "clip_score", "tflops"], "points": points}
    metrics = {"fid": 25.0, "fid_miniature": 8.125, "clip_score_miniature": 0.9}
    measured = {"metrics": metrics, "tflops_full": 0.002}
    printed = PUBLISHED["table 1"]["SD UNet"]["tflops"]
    lines = [
        Line("table 1", "SD UNet", "tflops", printed, 10.844, "paper"),
        Line("table 1", "SD UNet", "tflops", None, 12.852, "full"),
    ]
    sheet = Comparison("table 1", spec, SMALL if miniature else Scale(), {"SD UNet": measured}, lines).sheet()
    return {line[0]: dict(zip(sheet.columns, line, strict=True)) for line in sheet.cells}


def test_paper_ours_and_difference() -> None:
    cells = comparison(miniature=False)
    assert cells["SD UNet"] == {
        "row": "SD UNet",
        "fid paper": "24.64",
        "fid": "25.00",
        "fid difference": "+0.36",
        "clip_score paper": "0.300",
        "clip_score": "not measured",
        "tflops paper": "10.8",
        "tflops": "10.84",
        "tflops difference": "+0.4%",
        "tflops full": "12.85",
    }
    assert cells["SD UNet + Clockwork"]["fid"] == "not measured"
    published = cells["SnapFusion (published)"]
    assert published["fid"] == "–" and published["fid paper"] == "24.20"


def test_the_miniature_is_never_compared_but_in_flops() -> None:
    cells = comparison(miniature=True)["SD UNet"]
    assert cells["fid_miniature"] == "8.12" and cells["gflops_miniature"] == "2.000"
    assert [name for name in cells if name.endswith("difference")] == ["tflops difference"]
    assert "fid" not in cells


def test_latex_and_csv_escape_what_they_must(tmp_path: Path) -> None:
    sheet = Sheet("50% of {a}", ["row", "r_in, t_emb"], [["Clock {2,4}", "32 × 32 & –"]], ["a note"])
    sheet.write(tmp_path / "t")
    tex = (tmp_path / "t.tex").read_text()
    assert r"\caption{50\% of \{a\}}" in tex and r"Clock \{2,4\} & 32 $\times$ 32 \& -- \\" in tex
    with (tmp_path / "t.csv").open() as stream:
        assert list(csv.reader(stream)) == [list(sheet.columns), list(sheet.cells[0])]
    assert (tmp_path / "t.md").read_text().endswith("| Clock {2,4} | 32 × 32 & – |\n\na note\n")


def test_printed_digits_are_kept() -> None:
    assert str(PUBLISHED["table 1"]["SnapFusion"]["fid"]) == "24.20"
    assert PUBLISHED["table 6"]["SD UNet + Clockwork"]["latency_v100"] == Decimal(360)
    assert "clip_score" not in PUBLISHED["table 2"]["InstaFlow (1 step)"]
