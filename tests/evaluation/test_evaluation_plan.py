"""The cost of an evaluation: what is told before it starts is what it then takes."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.evaluation import evaluation_of

from clockwork.evaluation.plan import Trial, disk_usage, evaluation_plan, missing_images, run_trial
from clockwork.evaluation.text_to_image import full_teacher
from clockwork.flops.cost import image_flops
from clockwork.io.units import duration
from clockwork.miniature.prompts import scene_prompts
from clockwork.sampling.sampler import Sampler


def test_the_plan_counts_what_is_missing_and_what_it_costs(identity: Sampler, tmp_path: Path) -> None:
    """Of two steps of clock2 one is full, of the teacher's two both; with guidance each is two passes."""
    point = replace(identity, steps=2)
    evaluation, teacher = evaluation_of(scene_prompts("test", 3), tmp_path), full_teacher(point)
    work = missing_images(evaluation, point)
    plan = evaluation_plan(list(work.values()), 1, Trial(1e9, 2048.0), world_size=2)
    assert (plan.images, plan.unet_passes) == (6, 3 * 2 + 3 * 4)
    assert plan.flops == 3 * (image_flops(point).full + image_flops(teacher).full)
    assert plan.seconds == pytest.approx(plan.flops / 1e9 / 2) and plan.disk_bytes == 6 * 2048
    assert "images to generate                  6  the full teacher's included" in str(plan)
    evaluation.generate(teacher)
    assert {sampler.adaptor_name: count for sampler, count in missing_images(evaluation, point).values()} == {
        "identity": 3,
        "none": 0,
    }
    evaluation.evaluate(point)
    assert missing_images(evaluation, point) == {}, "there is a row"
    images, size = disk_usage(work)
    assert images == plan.images and plan.outcome(90.0, images, size).startswith("took 2 min (planned: ")


@pytest.mark.parametrize(("keep", "written"), [("all", 6), ("teacher", 3), ("sample", 4), ("none", 0)])
def test_the_plan_counts_what_is_written(
    keep: str, written: int, identity: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clockwork.evaluation.text_to_image.SAMPLE", 2)
    evaluation = evaluation_of(scene_prompts("test", 3), tmp_path, keep_images=keep)
    work = missing_images(evaluation, identity).values()
    assert sum(evaluation.num_written(*item) for item in work) == written
    plan = evaluation_plan(list(work), 1, Trial(1e9, 2048.0), written=written)
    assert plan.images == 6 and plan.disk_bytes == written * 2048


def test_a_trial_is_two_images_that_are_not_kept(identity: Sampler, tmp_path: Path) -> None:
    trial = run_trial(replace(identity, steps=1, schedule=full_teacher(identity).schedule), scene_prompts("test", 5))
    assert trial.flops_per_second > 1e6 and 200 < trial.bytes_per_image < 32 * 32 * 3 + 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.23, "4.2 s"), (719, "12 min"), (12_010, "3 h 20 min"), (59.9, "60 s")]
)
def test_times_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
