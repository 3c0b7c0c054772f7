"""Evidence: means, spreads and gains over fewer steps, by hand; and the commands that make it."""

from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from clockwork.experiments.configs import FOLDER, compose_config
from clockwork.experiments.evidence import adaptor_of, making, measuring, runs, to_make
from clockwork.reports.evidence import at_flops, evidence_sheet, front, gain, summarise, write_evidence


def row(adaptor: str, steps: int, fid: float, tflops: float, seed: int = 0, **more: Any) -> dict[str, Any]:
    point = {"teacher": "small", "cut": "2,3", "schedule": "clock2", "solver": "dpm++", "guidance": 3.0, "images": 9}
    metrics = {"fid": fid, "clip_score": fid / 10}
    return {
        **point,
        "adaptor": adaptor,
        "steps": steps,
        "seed": seed,
        "tflops_full": tflops,
        "metrics": metrics,
        **more,
    }


ROWS = [
    *(row("none", 8, fid, 4e-3, seed) for seed, fid in enumerate((5.0, 7.0))),
    row("none", 4, 12.0, 2e-3),
    *(row("linear", 8, fid, 3e-3, seed) for seed, fid in enumerate((4.0, 5.0, 6.0))),
    row("linear", 8, 9.0, 3e-3, solver="ddim"),
]


def test_seeds_and_fits_of_a_point_are_one_mean_with_its_spread() -> None:
    teacher_four, teacher_eight, ddim, linear = summarise(ROWS)
    assert (teacher_eight.count, teacher_eight.value("fid"), teacher_eight.spreads["fid"]) == (
        2,
        6.0,
        pytest.approx(2**0.5),
    )
    assert (linear.count, linear.value("fid"), linear.spreads["fid"]) == (3, 5.0, 1.0)
    assert (teacher_four.row["steps"], ddim.row["solver"], ddim.spreads["fid"]) == (4, "ddim", 0.0)


def test_gain_is_over_the_teacher_at_equal_flops_in_the_direction_of_the_metric() -> None:
    """At 3 GFLOPs, half way between 4 and 8 steps, the teacher has FID (12 + 6) / 2 = 9 and CLIP score 0.9."""
    summaries = summarise(ROWS)
    teacher, linear, ddim = summaries[:2], summaries[3], summaries[2]
    assert at_flops(teacher, "fid", 3e-3) == pytest.approx(9) and at_flops(teacher, "fid", 5e-3) is None
    assert gain(linear, summaries, "fid") == pytest.approx(4)
    assert gain(linear, summaries, "clip_score") == pytest.approx(0.5 - 0.9)
    assert gain(teacher[0], summaries, "fid") is None and gain(ddim, summaries, "fid") is None


def test_the_front_holds_what_no_other_point_is_better_than() -> None:
    points = [(3.0, 5.0), (1.0, 9.0), (2.0, 9.5), (2.0, 7.0), (4.0, 6.0)]
    assert front(points, "lower") == [(1.0, 9.0), (2.0, 7.0), (3.0, 5.0)]
    assert front(points, "higher") == [(1.0, 9.0), (2.0, 9.5)]


def test_the_table_and_the_plots(tmp_path: Path) -> None:
    sheet = evidence_sheet(ROWS)
    lines = [dict(zip(sheet.columns, cells, strict=True)) for cells in sheet.cells]
    linear = next(line for line in lines if line["adaptor"] == "linear" and line["solver"] == "dpm++")
    assert linear["GFLOPs"] == "3" and linear["FID"] == "5.00 ± 1.00" and linear["gain in FID"] == "+4.00"
    assert write_evidence(ROWS, tmp_path).read_text(encoding="utf-8").startswith("# Evidence")
    assert {file.name for file in tmp_path.glob("*.png")} == {"evidence-dpmpp.png", "evidence-ddim.png"}


def test_its_commands_are_ones_that_the_other_commands_accept() -> None:
    """Every adaptor that has weights is made at the point at which it is measured, with the seed of the fit."""
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        cfg = compose_config("evidence", [])
        points: Any = OmegaConf.to_container(cfg.points)
        for point in to_make(cfg, points)[::4]:
            verb, overrides = making(cfg, point, fit=2)
            composed = compose_config(verb, overrides)
            assert composed.seed == 2 and composed.output.endswith("fit2")
            assert all(str(composed[key]) == str(value) for key, value in point.items() if key != "adaptor")
        composed = compose_config("evaluate", measuring(cfg, points, seed=1, fit=2))
    assert composed.seed == 1 and composed.prompts.count == 2000 and composed.adaptors.endswith("fit2")
    assert OmegaConf.to_container(composed.points) == points


def test_rows_take_noise_and_fits_in_pairs() -> None:
    pairs = OmegaConf.create({"seeds": [0, 1, 2], "fits": [5, 6]})
    assert runs(pairs) == [(0, 5), (1, 6), (2, 5)]


def test_what_an_adaptor_starts_from_is_made_first_at_the_same_point() -> None:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        cfg = compose_config("evidence", [])
        corrected = {"adaptor": "resnet_on_linear", "schedule": "clock3", "steps": 6}
        base, made_of_it = to_make(cfg, [corrected])
        assert base == {**corrected, "adaptor": "linear"} and made_of_it == corrected
        folder = adaptor_of(cfg, base, fit=1)
        assert f"base={folder}" in making(cfg, made_of_it, fit=1)[1]
        assert folder.parts[-2:] == ("linear-stage1-clock3-dpm++-6-g3", "adaptor")
        assert len(to_make(cfg, [base, corrected])) == 2
