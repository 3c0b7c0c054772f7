"""Rows: one a point however often it is asked for, nothing lost to a kill, and what they measure in order."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clockwork.adaptors import Identity
from clockwork.data.prompts import miniature
from clockwork.evaluation.generate import pictures
from clockwork.evaluation.harness import Evaluation, Metrics
from clockwork.evaluation.rows import read_rows
from clockwork.flops.cost import image_flops, step_flops
from clockwork.reports.figures import pareto, pictures_side_by_side
from clockwork.reports.tables import table
from clockwork.sampling.sampler import Setup, widths
from clockwork.schedule import Schedule
from clockwork.teachers import load_teacher
from clockwork.unet.split import SplitUNet


@pytest.fixture(scope="module")
def identity() -> Setup:
    teacher = load_teacher("miniature", guidance=3.0)
    made = Identity(widths(teacher, "stage1"))
    return Setup(teacher, SplitUNet(teacher.unet), Schedule.parse("clock2"), "dpm++", 8, 3.0, made, "identity")


def test_a_row_is_measured_once(identity: Setup, tmp_path: Path) -> None:
    evaluation = Evaluation(miniature("test", 4), Metrics(latency=False), tmp_path, batch_size=4)
    evaluation.evaluate(identity)
    evaluation.evaluate(identity)
    evaluation.evaluate(replace(identity, steps=6))
    rows = read_rows(evaluation.rows)
    assert len(evaluation.rows.read_text().splitlines()) == len(rows) == 2
    assert rows[0]["full_steps"] == 4 and rows[0]["calls"] == 8 and rows[0]["latency_ms"] is None
    evaluation.rows.write_text(evaluation.rows.read_text()[:-30])  # killed in the middle of the second line
    evaluation.evaluate(replace(identity, steps=6))
    again = read_rows(evaluation.rows)
    assert [r["digest"] for r in again] == [r["digest"] for r in rows] and again[1]["psnr"] == rows[1]["psnr"]
    assert "identity" in table(rows)
    pareto(rows, tmp_path / "pareto.png")
    pictures_side_by_side(rows, evaluation.prompts, tmp_path, count=2)
    assert (tmp_path / "pareto.png").stat().st_size > 10_000 and (tmp_path / "grid.png").stat().st_size > 5_000


def test_pictures_do_not_depend_on_the_batch(identity: Setup, tmp_path: Path) -> None:
    prompts = miniature("test", 5)
    one, many = (Evaluation(prompts, Metrics(latency=False), tmp_path / str(n), batch_size=n) for n in (1, 5))
    first, second = (torch.cat(list(pictures(e.pictures(identity), prompts))).int() for e in (one, many))
    assert (first - second).abs().max() <= 1  # the same but for the rounding of a batched convolution


def test_interrupted_painting_keeps_what_is_there(identity: Setup, tmp_path: Path) -> None:
    evaluation = Evaluation(miniature("test", 4), Metrics(latency=False), tmp_path, batch_size=2)
    folder = evaluation.pictures(identity)
    before = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    (folder / "2.png").unlink()
    evaluation.pictures(identity)
    after = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    assert {n for n in before if after[n] != before[n]} == {"2.png"}


def test_flops_of_an_image_are_those_of_its_steps(identity: Setup) -> None:
    full, adaptor = step_flops(identity)
    assert image_flops(identity).full == 2 * (4 * full.full + 4 * adaptor.full)
    assert image_flops(replace(identity, guidance=1.0)).full == 4 * full.full + 4 * adaptor.full
    assert image_flops(replace(identity, solver="pndm")).full == 2 * (5 * full.full + 4 * adaptor.full)
    teacher = replace(identity, adaptor=None, schedule=Schedule())
    assert 0.25 < 1 - image_flops(identity).full / image_flops(teacher).full < 0.5


def test_the_papers_order_of_schedules(identity: Setup, tmp_path: Path) -> None:
    """Table 3: alternating is nearest to the teacher, {3,4,5,6} farthest (PSNR at the same prompts and seeds)."""
    evaluation = Evaluation(miniature("test", 32), Metrics(latency=False), tmp_path)
    psnr = {s: evaluation.measure(replace(identity, schedule=Schedule.parse(s))).psnr for s in ("clock2", "3,4,5,6")}
    assert psnr["clock2"] is not None and psnr["3,4,5,6"] is not None
    assert psnr["clock2"] > psnr["3,4,5,6"] + 1


def test_an_adaptorless_clock_is_refused(identity: Setup) -> None:
    with pytest.raises(ValueError, match="name an adaptor"):
        replace(identity, adaptor=None)
