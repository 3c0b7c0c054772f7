"""flops.csv: every FLOPs and parameter figure that the paper prints, beside ours."""

import csv
from decimal import Decimal
from pathlib import Path

import pytest

from clockwork.reports.paper.flops_audit import COUNTED, Line, read_flops
from clockwork.reports.paper.published import PUBLISHED, convention

Cell = dict[str, str]


@pytest.fixture(scope="module")
def table(flops_csv: Path) -> list[Cell]:
    with flops_csv.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def ours(table: list[Cell], figure: str, row: str, quantity: str, way: str) -> float:
    (found,) = [
        line["ours"]
        for line in table
        if (line["figure"], line["row"], line["quantity"], line["convention"]) == (figure, row, quantity, way)
    ]
    return float(found)


def test_columns(flops_csv: Path) -> None:
    first = flops_csv.read_text(encoding="utf-8").splitlines()[0]
    assert first == "figure,row,quantity,paper,ours,relative_error,convention"


def test_every_printed_figure_is_there_and_within_half_a_percent(table: list[Cell]) -> None:
    """But SnapFusion's, which says why."""
    printed = {
        (figure, row, quantity): str(value)
        for figure, rows in PUBLISHED.items()
        for row, figures in rows.items()
        for quantity, value in figures.items()
        if quantity in {*COUNTED, "gmacs"} and (figure != "figure 4" or quantity == "tflops")
    }
    found = {(c["figure"], c["row"].split(" — ")[0], c["quantity"]): c for c in table if c["paper"]}
    found.pop(("section 5", "sd15", "parameters"))
    assert {key: line["paper"] for key, line in found.items()} == printed
    for (_, row, _), line in found.items():
        if row == "SnapFusion":
            assert "unpublished changes" in line["row"] and float(line["relative_error"]) > 0.1
        else:
            assert abs(float(line["relative_error"])) <= 0.005, line


def test_each_is_beside_its_full_count(table: list[Cell]) -> None:
    quantities = {"gmacs": "gflops"}
    whole = {(c["figure"], c["row"], c["quantity"]) for c in table if c["convention"] == "full"}
    for line in table:
        if line["convention"] in ("macs", "paper"):
            assert (line["figure"], line["row"], quantities.get(line["quantity"], line["quantity"])) in whole, line


def test_an_error_is_to_what_the_printed_digits_can_stand_for() -> None:
    def error(paper: str, value: float) -> float:
        found = Line("table 1", "row", "tflops", Decimal(paper), value, "paper").relative_error
        assert found is not None
        return found

    assert error("7.3", 7.2998) == error("287", 287.99) == error("5.9", 5.949) == 0  # rounded, cut off, rounded
    assert error("9.5", 9.40) == pytest.approx((9.40 - 9.45) / 9.5)
    assert error("4.0", 4.88) == pytest.approx((4.88 - 4.1) / 4.0)
    assert error("0", 0) == 0
    assert Line("table 1", "row", "tflops", None, 1.0, "full").relative_error is None


def test_passes_to_the_last_digit(table: list[Cell]) -> None:
    """PAPER.md's integers."""
    for row, way, count in (
        ("sd15, full pass", "paper", 677_765_165_824),
        ("sd15, full pass", "full", 803_273_441_280),
        ("sd15, identity pass, stage1", "paper", 228_428_701_184),
        ("efficient, full pass", "paper", 593_330_221_824),
        ("efficient, identity pass, stage1", "paper", 143_993_757_184),
    ):
        assert ours(table, "section 5", row, "flops", way) == count
    assert ours(table, "section 5", "sd15, full pass", "flops", "macs") == pytest.approx(338.61e9, rel=1e-5)
    assert ours(table, "section 5", "sd15, identity pass, stage1", "flops", "full") == pytest.approx(
        337.509e9, rel=1e-6
    )
    branches = [ours(table, "section 5", f"sd15, identity pass, layer{i}", "flops", "full") / 1e9 for i in (1, 2, 3)]
    assert [round(b, 1) for b in branches] == [63.3, 180.1, 305.4]  # DeepCache's


def test_like_for_like_the_saving_is_another(table: list[Cell]) -> None:
    """With attention counted SD + Clockwork costs 9.18 TFLOPs and saves 28.6%, the Efficient UNet keeps its 37.7%."""
    assert round(ours(table, "table 1", "SD UNet + Clockwork", "tflops", "full"), 2) == 9.18
    assert round(ours(table, "table 1", "SD UNet + Clockwork", "saving", "full"), 1) == 28.6
    assert round(ours(table, "table 1", "Efficient UNet + Clockwork", "saving", "full"), 1) == 37.7
    assert round(ours(table, "figure 6", "Identity, clock 2, 1000 inversion steps", "saving", "full"), 1) == 29.0


def test_equations_in_both_readings_and_counts(table: list[Cell]) -> None:
    row = "Identity, clock 2, 1000 inversion steps, n div clock"
    assert round(ours(table, "equation 6 with the bracket", row, "saving", "paper"), 1) == 33.1
    assert round(ours(table, "equation 6 as printed", row, "saving", "paper"), 1) == 34.6
    short = "Identity, clock 2, 25 inversion steps"
    ran, divided = (
        ours(table, "equation 4", f"{short}, {count}", "tflops", "paper")
        for count in ("full steps that ran", "n div clock")
    )
    assert ran - divided == pytest.approx(0.677765165824 - 0.228428701184)


def test_conventions_are_mixed_as_the_paper_mixes_them() -> None:
    assert convention("figure 8", "MID") == "macs"
    assert convention("table 1", "BK-SDM-Tiny") == convention("table 2", "InstaFlow (1 step)") == "full"
    assert convention("table 1", "SD UNet") == convention("table 5", "r_in, t_emb") == "paper"


def test_a_file_reads_back(flops_csv: Path, table: list[Cell]) -> None:
    lines = read_flops(flops_csv)
    assert len(lines) == len(table)
    assert {line.row for line in lines} >= {"SnapFusion", "SD UNet + Clockwork"}
