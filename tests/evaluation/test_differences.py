"""Differences of measured rows: none is claimed between two seeds of one point, and a planted one is resolved."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.evaluation import evaluation_of
from hydra import initialize_config_dir

from clockwork.errors import UserError
from clockwork.evaluation.per_image import PerImage, per_image_file, read_per_image, write_per_image
from clockwork.evaluation.rows import append_row, read_rows
from clockwork.evaluation.text_to_image import full_teacher
from clockwork.experiments.config_files import FOLDER
from clockwork.experiments.configs import compose_config
from clockwork.experiments.report import compare
from clockwork.metrics.clip_score import CLIPScore
from clockwork.metrics.similarity import PSNR
from clockwork.miniature.prompts import scene_prompts
from clockwork.miniature.teacher import small_clip
from clockwork.reports.intervals import paired_bootstrap
from clockwork.sampling.sampler import Sampler

Report = Callable[..., str]


@pytest.fixture(scope="module")
def measured(identity: Sampler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one point and of its teacher on 24 prompts, and the first seed's figures again, 0.004 better."""
    folder, metrics = tmp_path_factory.mktemp("rows"), [CLIPScore(small_clip(), "clip_score_miniature"), PSNR()]
    two_steps = replace(identity, steps=2)
    for point in (two_steps, full_teacher(two_steps)):
        for seed in (0, 1):
            evaluation_of(scene_prompts("test", 24), folder, metrics=metrics, seed=seed).evaluate(point)
    row = read_rows(folder / "rows.jsonl")[0]
    figures = read_per_image(folder, row)
    noise = np.random.default_rng(0).normal(0, 0.002, 24)
    better = {name: (values + 0.004 + noise).astype(np.float32) for name, values in figures.metrics.items()}
    planted = {
        **row,
        "digest": "planted",
        "adaptor": "planted",
        "metrics": {k: float(v.mean()) for k, v in better.items()},
    }
    write_per_image(folder, "planted", PerImage(figures.ids, better))
    append_row(folder / "rows.jsonl", planted)
    return folder


@pytest.fixture
def report(measured: Path, tmp_path: Path) -> Report:
    def run(*overrides: str, folder: Path = measured) -> str:
        with initialize_config_dir(str(FOLDER), version_base="1.3"):
            cfg = compose_config("report", ["what=compare", f"rows={folder}", f"output={tmp_path}", *overrides])
        return compare(cfg).read_text(encoding="utf-8")

    return run


def test_two_seeds_of_one_point_overlap_in_resamples_of_the_prompts(measured: Path) -> None:
    first, second = (read_per_image(measured, row) for row in read_rows(measured / "rows.jsonl")[:2])
    scores = np.array([figures.metrics["clip_score_miniature"] for figures in (first, second)], dtype=np.float64)
    overlaps = 0
    for chosen in np.random.default_rng(0).integers(0, 24, (100, 24)):
        a, b = (paired_bootstrap(values[chosen], 200) for values in scores)
        overlaps += a.low <= b.high and b.low <= a.high
    assert overlaps >= 95 and not np.allclose(*scores)


def test_a_planted_shift_is_printed_with_an_interval_that_holds_it(report: Report) -> None:
    """Against the row that it was made of, whose two seeds are narrowed down to the one that both share."""
    text = report("point={adaptor:planted}", "to={adaptor:identity,seed:0}")
    cells = [cell.strip() for cell in text.splitlines()[4].split("|")]
    estimate, low, high = (float(word.strip("[],")) for word in cells[6].split())
    assert cells[3] == "CLIP score, miniature" and low < 0.004 < high and low > 0 and cells[7] == "better"
    assert estimate == pytest.approx(0.004, abs=0.001)


def test_by_default_the_full_teacher_at_the_same_steps_is_compared_with(report: Report) -> None:
    """Its mean over both seeds and the difference, by hand; PSNR is to the teacher, which has none of its own."""
    text = report("point={adaptor:identity}")
    (line,) = [line for line in text.splitlines() if line.startswith("| identity")]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2] == "miniature, 2 dpm++ steps" and " ± " in cells[4]
    value, other = (float(cell.split()[0]) for cell in cells[4:6])
    assert float(cells[6].split()[0]) == pytest.approx(value - other, abs=2e-4)


def test_other_prompts_seeds_and_metrics_are_not_compared(report: Report, measured: Path, tmp_path: Path) -> None:
    refusals = {
        "noise seeds ([0]; [0, 1])": ["point={adaptor:planted}", "to={adaptor:identity}"],
        "to={adaptor:none,steps:3}": ["to={adaptor:none,steps:3}"],
        "point names stepz": ["point={stepz:3}"],
        "is 2 operating points": ["to={steps:2,schedule:clock2}"],
    }
    for message, overrides in refusals.items():
        with pytest.raises(UserError, match=re.escape(message)):
            report(*overrides)
    rows: list[dict[str, Any]] = read_rows(measured / "rows.jsonl")[:1]
    for row in (rows[0], {**rows[0], "digest": "other", "adaptor": "other", "prompts": "0123"}):
        append_row(tmp_path / "rows.jsonl", row)
    with pytest.raises(UserError, match="have other prompts"):
        report("point={adaptor:other}", "to={adaptor:identity}", folder=tmp_path)
    append_row(tmp_path / "rows.jsonl", {**rows[0], "digest": "old", "adaptor": "old"})
    with pytest.raises(UserError, match="has no figures of each image"):
        report("point={adaptor:old}", "to={adaptor:identity}", folder=tmp_path)
    assert not per_image_file(tmp_path, "old").exists()
