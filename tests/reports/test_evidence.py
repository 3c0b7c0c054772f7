"""Evidence: gains over the full teacher and over fewer steps, by hand; and the commands that make it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.figures import saved_figures
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from clockwork.experiments.config_files import FOLDER
from clockwork.experiments.configs import compose_config
from clockwork.experiments.evidence import adaptor_of, making, measuring, to_make
from clockwork.experiments.runs import at_fit
from clockwork.reports.evidence import Evidence, evidence_sheet, write_evidence
from clockwork.reports.intervals import welch


def row(adaptor: str, steps: int, fid: float, tflops: float, seed: int = 0, **more: Any) -> dict[str, Any]:
    point = {"teacher": "small", "cut": "2,3", "schedule": "clock2", "solver": "dpm++", "guidance": 3.0, "images": 9}
    metrics = {"fid": fid, "clip_score": fid / 10}
    return {
        **point,
        "digest": f"{adaptor}{steps}-{seed}",
        "adaptor": adaptor,
        "steps": steps,
        "seed": seed,
        "tflops_full": tflops,
        "metrics": metrics,
        **more,
    }


ROWS = [
    *(row("none", 8, fid, 4e-3, seed) for seed, fid in enumerate((5.0, 7.0, 6.0))),
    *(row("none", 4, fid, 2e-3, seed) for seed, fid in enumerate((12.0, 12.0, 12.0))),
    *(row("linear", 8, fid, 3e-3, seed, fit=seed, adaptor_hash=str(fid)) for seed, fid in enumerate((4.0, 5.0, 6.0))),
    row("linear", 8, 9.0, 3e-3, solver="ddim"),
]


def test_the_gain_is_over_the_teacher_at_equal_flops_in_the_direction_of_the_metric(tmp_path: Path) -> None:
    """At 3 GFLOPs, half way between 4 and 8 steps, the teacher has FID (12 + 6) / 2 = 9 and CLIP score 0.9."""
    evidence = Evidence(ROWS, tmp_path)
    teacher, _, ddim, linear = evidence.points
    fewer = {metric: evidence.gain_over_fewer_steps(linear, metric) for metric in ("fid", "clip_score")}
    assert fewer["fid"] is not None and fewer["clip_score"] is not None
    assert fewer["fid"].difference == pytest.approx(4) and fewer["clip_score"].difference == pytest.approx(0.5 - 0.9)
    by_hand = welch([9.0 - 0.5, 9 + 0.5, 9.0], [4.0, 5.0, 6.0])  # of the teacher, seed by seed
    assert (fewer["fid"].low, fewer["fid"].high) == pytest.approx((by_hand.low, by_hand.high))
    full = evidence.gain_over_teacher(linear, "fid")
    assert full is not None and full.difference == pytest.approx(1) and not full.excludes_zero
    assert evidence.gain_over_fewer_steps(teacher, "fid") is None and evidence.gain_over_teacher(teacher, "fid") is None
    assert evidence.gain_over_fewer_steps(ddim, "fid") is None, "there is no teacher with this solver"


def test_the_table_and_the_plots(tmp_path: Path) -> None:
    sheet = evidence_sheet(ROWS, tmp_path)
    lines = [dict(zip(sheet.columns, cells, strict=True)) for cells in sheet.cells]
    linear = next(line for line in lines if line["adaptor"] == "linear" and line["solver"] == "dpm++")
    assert linear["GFLOPs"] == "3" and linear["FID"] == "5.00 ± 1.00†" and linear["rows"] == "3"
    assert linear["gain in FID over teacher"] == "no difference beyond the spread: +1.00 [-1.27, +3.27]"
    assert linear["gain in FID over fewer steps"].startswith("+4.00 [+")
    assert "has no figures of each image" in sheet.notes[1], "intervals of CLIP score are over rows"
    short = evidence_sheet(ROWS, tmp_path, with_gains=False)
    assert [cells[: len(row)] for cells, row in zip(sheet.cells, short.cells, strict=True)] == short.cells
    assert short.columns == [name for name in sheet.columns if not name.startswith("gain in")] and len(short.notes) == 1
    with saved_figures() as figures:
        file = write_evidence(ROWS, tmp_path, tmp_path)
    assert file.read_text(encoding="utf-8").startswith("# Evidence")
    assert set(figures) == {"evidence-small-dpmpp.png", "evidence-small-ddim.png"}
    panel = figures["evidence-small-dpmpp.png"]["FID (lower is better)"]
    assert np.allclose(panel["fewer steps"], [(2, 12), (4, 6)]) and np.allclose(panel["linear"], [(3, 5)])


def test_its_commands_are_ones_that_the_other_commands_accept() -> None:
    """Every adaptor that has weights is made at the point at which it is measured, with the seed of the fit."""
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        cfg = compose_config("evidence", [])
        points: Any = OmegaConf.to_container(cfg.points)
        adaptor_folder = f"{cfg.adaptors}/fit2"
        for point in to_make(cfg, points)[::4]:
            verb, overrides = making(cfg, point, fit=2)
            composed = compose_config(verb, overrides)
            assert composed.seed == 2 and composed.output == adaptor_folder
            assert all(str(composed[key]) == str(value) for key, value in point.items() if key != "adaptor")
        composed = compose_config("evaluate", measuring(cfg, points, seed=1, fit=2))
    assert (composed.seeds, composed.fits) == ([1], [2]) and composed.prompts.count == 2000
    assert at_fit(composed, 2).adaptors == adaptor_folder
    assert OmegaConf.to_container(composed.points) == points


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
