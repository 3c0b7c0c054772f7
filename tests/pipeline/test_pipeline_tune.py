"""`clockwork.tune`: the menu's figures, each computed another way, and the entry that a budget or a quality takes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pipelines import generate, make, miniature_pipeline
from torch import Tensor

import clockwork
from clockwork.errors import UserError
from clockwork.flops.counter import count_flops
from clockwork.io.fingerprint import weights_hash
from clockwork.metrics.similarity import PSNR
from clockwork.miniature.prompts import scene_prompts
from clockwork.pipeline.calibration_call import pipeline_arguments
from clockwork.pipeline.enable import enabled_hook, get_unet
from clockwork.pipeline.hook import get_hook
from clockwork.pipeline.menu import QUALITIES, Menu
from clockwork.pipeline.tune import _choose
from clockwork.reports.menu import write_menu
from clockwork.teachers import Teacher

CALL: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": 3.0}
PROMPTS = [prompt.text for prompt in scene_prompts("train", 28)]


@pytest.fixture(scope="module")
def tuned(teacher: Teacher) -> tuple[Any, Menu]:
    pipe = miniature_pipeline(teacher)
    pipe.set_progress_bar_config(disable=True)
    return pipe, clockwork.tune(pipe, PROMPTS, ["layer1"], ["clock2", "clock3"], num_measured=4, runs=1, **CALL)


def test_the_menu_says_what_each_entry_costs_and_how_near_it_comes(tuned: tuple[Any, Menu], teacher: Teacher) -> None:
    pipe, menu = tuned
    assert get_hook(get_unet(pipe)) is None, "without a budget the pipeline is as before"
    assert [entry.psnr for entry in menu.entries] == sorted((entry.psnr for entry in menu.entries), reverse=True)
    assert {(entry.cut, entry.schedule) for entry in menu.entries} == {
        ("layer1", schedule) for schedule in ("clock2", "clock3")
    }

    def images() -> Tensor:
        return teacher.decode(pipe(**pipeline_arguments(pipe, PROMPTS[-4:], CALL, 0)).images)

    full = images()
    assert torch.equal(menu.images, full)
    number = next(i for i, e in enumerate(menu.entries, 1) if (e.cut, e.schedule) == ("layer1", "clock3"))
    entry = menu.entries[number - 1]
    adaptor = menu.use(pipe, number)
    assert adaptor.steps == (2, 3, 5, 6) and str(enabled_hook(pipe).denoiser.schedule) == "clock3"
    clocked = images()
    clockwork.disable(pipe)
    assert torch.equal(entry.images, clocked)
    errors = [fit["error"] for fit in (adaptor.calibration or {})["steps"]]
    assert entry.feature_error == pytest.approx(sum(errors) / 4) and f"{entry.feature_error:.3f}" in str(menu)
    assert entry.psnr == pytest.approx(float(PSNR().of_pairs(clocked.float(), full.float()).mean()), abs=1e-3)
    assert 0 < entry.flops_share("paper") < 1 and 0 < entry.flops_share("full") < 1


def test_flops_are_those_of_one_image(tuned: tuple[Any, Menu]) -> None:
    """Counted while a pipeline generates one image, without its text encoder."""
    pipe, menu = tuned
    arguments = pipeline_arguments(pipe, PROMPTS[-1:], CALL, 0)
    embeds = pipe.encode_prompt(arguments["prompt"], "cpu", 1, True)
    del arguments["prompt"]
    counted = count_flops(lambda: pipe(**arguments, prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1]))
    assert menu.entries[0].flops_without == counted


def test_the_weights_are_read_once_however_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingerprint of each adaptor's teacher is that of the UNet."""
    read: list[str] = []

    def count(unet: Any) -> str:
        read.append(weights_hash(unet))
        return read[-1]

    monkeypatch.setattr("clockwork.pipeline.parts.weights_hash", count)
    pipe, _ = make()
    options: dict[str, Any] = {"num_measured": 2, "runs": 1, "num_inference_steps": 2}
    menu = clockwork.tune(pipe, PROMPTS[:10], ["layer1", "stage1"], ["clock2"], **options)
    hashes = {entry.adaptor.point.teacher_hash for entry in menu.entries if entry.adaptor.point is not None}
    assert len(read) == 1 and hashes == set(read)


def test_a_budget_takes_the_nearest_and_a_quality_the_fastest(tuned: tuple[Any, Menu]) -> None:
    menu = tuned[1]
    shares = sorted(entry.time_share for entry in menu.entries)
    chosen = _choose(menu, budget=shares[1], quality=None)
    within = [entry for entry in menu.entries if entry.time_share <= shares[1]]
    assert chosen is not None and chosen.psnr == max(entry.psnr for entry in within) and len(within) == 2
    assert min(entry.psnr for entry in menu.entries) > QUALITIES["fast"]
    fastest = _choose(menu, budget=None, quality="fast")
    assert (fastest is not None and fastest.time_share == shares[0]) or shares[0] > 1
    with pytest.raises(UserError, match="no entry of the menu"):
        _choose(menu, budget=1e-6, quality=None)


def test_a_chosen_entry_is_enabled_and_an_error_leaves_the_pipeline_as_it_was() -> None:
    pipe, _ = make()
    prompts = ["a red circle", "a green star", "a blue square", "two rings"] * 4
    menu = clockwork.tune(
        pipe, prompts, ["stage1"], ["clock2"], quality="fast", num_measured=2, runs=1, num_inference_steps=2
    )
    assert menu.chosen is menu.entries[0] and "1*" in str(menu) and "* is enabled" in str(menu)
    hook = enabled_hook(pipe)
    images = generate(pipe, steps=2, guidance_scale=7.5)
    with pytest.raises(UserError, match="no entry of the menu"):
        clockwork.tune(
            pipe, prompts, ["stage1"], ["clock2"], budget=1e-9, num_measured=2, runs=1, num_inference_steps=2
        )
    assert enabled_hook(pipe) is hook and torch.equal(generate(pipe, steps=2, guidance_scale=7.5), images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cuts": []}, "lists of cuts and schedules"),
        ({"schedules": "clock2"}, "lists of cuts and schedules"),
        ({"budget": 1.5}, "a number between 0 and 1"),
        ({"quality": "best"}, "use high, balanced, fast"),
        ({"num_measured": 28}, "leave some to fit on"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    tuned: tuple[Any, Menu], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        clockwork.tune(tuned[0], **{"prompts": PROMPTS, **CALL, **changes})
    with pytest.raises(UserError, match="no entry 9"):
        tuned[1].use(tuned[0], 9)


def test_the_menu_is_one_html_file(tuned: tuple[Any, Menu], tmp_path: Path) -> None:
    page = write_menu(tuned[1], tmp_path / "menu.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 4 * 3, "four prompts, without Clockwork and with each entry"
    for entry in tuned[1].entries:
        assert f"<td>{entry.cut}</td><td>{entry.schedule}</td>" in page and f"{entry.psnr:.1f}" in page
    assert "http" not in page.replace("http-equiv", "")
