"""A calibration that is stopped goes on where it was; and what cannot be calibrated ends with one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.calibration import PROMPTS, small_sampler
from helpers.models import small_teacher

from clockwork.adaptors import ResNet
from clockwork.calibration import progress
from clockwork.calibration.fit import Calibrated, calibrate_sampler
from clockwork.calibration.least_squares import StepFit
from clockwork.calibration.options import FitOptions
from clockwork.calibration.progress import Progress, StepMaps
from clockwork.calibration.statistics import Moments
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher

TWO_CHUNKS, FOUR = FitOptions(batch=2), PROMPTS[:4]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return small_teacher("sd15")


@contextmanager
def low_res_calls(sampler: Sampler, stop_at: int = 0, nan_at: int = 0) -> Iterator[list[int]]:
    """Counts the runs of the low-res path; one of them is interrupted, or has an output that is not a number."""
    count = [0]

    def after(module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        if count[0] == stop_at:
            raise KeyboardInterrupt
        return output * torch.nan if count[0] == nan_at else output

    handle = sampler.split.unet.mid_block.register_forward_hook(after)
    try:
        yield count
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def expected(teacher: Teacher) -> Calibrated:
    """A calibration that nothing stopped."""
    sampler = small_sampler(teacher=teacher, steps=6)
    with low_res_calls(sampler) as calls:
        result = calibrate_sampler(sampler, FOUR, options=TWO_CHUNKS)
    assert calls == [2 * 6]  # steps 1 to 6, of which the adaptor steps are the fits'
    return result


def assert_equal(result: Calibrated, expected: Calibrated) -> None:
    assert result.fits == expected.fits
    for name, value in expected.adaptor.state_dict().items():
        assert torch.equal(result.adaptor.state_dict()[name], value)


def test_going_on_gives_the_same_maps_and_repeats_no_sums(expected: Calibrated, tmp_path: Path) -> None:
    """Two chunks per step: after step 1, the fit of 2, and step 3, the 8th call is the second chunk of step 4."""
    sampler = expected.sampler
    with low_res_calls(sampler, stop_at=8), pytest.raises(KeyboardInterrupt):
        calibrate_sampler(sampler, FOUR, options=TWO_CHUNKS, folder=tmp_path)
    for sums_left in (1 + 2, 0):
        with low_res_calls(sampler) as calls:
            result = calibrate_sampler(sampler, FOUR, options=TWO_CHUNKS, folder=tmp_path)
        # Full steps run again. Step 2 is fitted and a chunk of step 4 is summed; the second time all is fitted.
        assert calls == [2 * 3 + sums_left]
        assert_equal(result, expected)


def test_features_that_are_not_finite_stop_the_fit(expected: Calibrated, tmp_path: Path) -> None:
    """The sentence names the step; once the cause is removed, the same command goes on from there."""
    sampler = expected.sampler
    with low_res_calls(sampler, nan_at=7), pytest.raises(UserError, match="features of step 4 are not finite in floa"):
        calibrate_sampler(sampler, FOUR, options=TWO_CHUNKS, folder=tmp_path)
    with low_res_calls(sampler) as calls:
        result = calibrate_sampler(sampler, FOUR, options=TWO_CHUNKS, folder=tmp_path)
    assert calls == [2 * 3 + 2 * 2]
    assert_equal(result, expected)


def test_another_calibration_does_not_go_on_from_it(teacher: Teacher, tmp_path: Path) -> None:
    sampler = small_sampler(teacher=teacher, steps=2)
    others: list[dict[str, Any]] = [{}, {"seed": 1}, {"negatives": ("blurry",)}, {"options": FitOptions(batch=4)}]
    for changed in others:
        with low_res_calls(sampler) as calls:
            calibrate_sampler(sampler, FOUR, **{"options": TWO_CHUNKS, "folder": tmp_path, **changed})
        assert calls == [2 if "options" in changed else 4]


def test_progress_survives_a_file(teacher: Teacher, tmp_path: Path) -> None:
    """With factored maps, too; another calibration's file counts as none."""
    file = tmp_path / "progress0.safetensors"
    result = calibrate_sampler(small_sampler(teacher=teacher, steps=2), FOUR, options=FitOptions(rank=3))
    weights = {name: value[0] for name, value in result.adaptor.state_dict().items()}
    saved = Progress({2: StepMaps(**weights)}, list(result.fits), 2)
    saved.save(file, "digest")
    loaded = Progress.load(file, "digest")
    assert (loaded.fits, loaded.step, loaded.sums) == (saved.fits, 2, None)
    for name, value in loaded.adaptor(result.adaptor.dims, result.adaptor.terms).state_dict().items():
        assert torch.equal(value, result.adaptor.state_dict()[name])
    assert Progress.load(file, "other") == Progress() == Progress.load(tmp_path / "none", "digest")


def test_too_few_captions(teacher: Teacher) -> None:
    """At stage 2 a caption has 16 positions, and maps have 3 × 24 + 2 × 16 … inputs: the number that is named works."""
    sampler = small_sampler(teacher=teacher, cut="stage2", steps=2)
    with pytest.raises(UserError, match="captions are too few: the maps have") as error:
        calibrate_sampler(sampler, PROMPTS[:1])
    needed = int(str(error.value).rpartition(" ")[2])
    with pytest.raises(UserError, match="too few"):
        calibrate_sampler(sampler, PROMPTS[: needed - 1])
    assert calibrate_sampler(sampler, PROMPTS[:needed]).fits[0].observations == 16 * needed


def test_schedules_that_cannot_be_calibrated(teacher: Teacher) -> None:
    with pytest.raises(UserError, match="no adaptor steps to calibrate: use schedule=clock2"):
        calibrate_sampler(small_sampler(teacher=teacher, schedule="full"), PROMPTS)
    reads_nothing_earlier = ResNet(feature_dims(teacher, "stage1"), 8, 1, ("r_in", "t_emb"))
    always = Sampler(
        teacher, small_sampler(teacher=teacher).split, Schedule(0), "dpm++", 2, 3.0, reads_nothing_earlier, "resnet"
    )
    with pytest.raises(UserError, match="schedule always has no full step before step 1: use clock2"):
        calibrate_sampler(always, PROMPTS)


def test_prompts_and_options_that_are_not_possible(teacher: Teacher) -> None:
    sampler = small_sampler(teacher=teacher, steps=2)
    with pytest.raises(UserError, match="0 captions are too few"):
        calibrate_sampler(sampler, [])
    with pytest.raises(UserError, match="no negative prompts: pass at least one"):
        calibrate_sampler(sampler, PROMPTS, ())
    wrong: list[dict[str, Any]] = [{"rank": 0}, {"batch": 0}, {"held_out_every": 1}, {"ridges": ()}, {"ridges": (0.0,)}]
    for options in wrong:
        with pytest.raises(UserError, match="not possible"):
            FitOptions(**options)
    with pytest.raises(UserError, match="terms of r_out_prev"):
        calibrate_sampler(sampler, PROMPTS, options=FitOptions(terms=("r_out",)))


def test_captions_of_one_word(teacher: Teacher) -> None:
    """Only their noise differs; and as the negative prompt is the same word, guidance changes nothing."""
    prompts = [Prompt(i, "snow") for i in range(8)]
    options = FitOptions(ridges=(1e-10,))
    result = calibrate_sampler(small_sampler(teacher=teacher, steps=2), prompts, ("snow",), options=options)
    unconditional, conditional = result.adaptor.weight.unbind(1)
    assert (unconditional - conditional).norm() < 1e-3 * conditional.norm()
    assert all(fit.error < fit.identity_error for fit in result.fits)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_damaged_progress_starts_again(share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "progress0.safetensors"
    maps = StepMaps(torch.zeros(2, 3, 4), torch.zeros(2, 3))
    Progress({2: maps}, [], 2).save(file, "digest")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert Progress.load(file, "digest") == Progress()
    assert f"{file} is damaged" in capsys.readouterr().out


def test_processes_that_were_stopped_in_different_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process has all maps of step 2 and sums of step 4; another has no negative map of step 2, or no maps at all.

    Each goes on from what both have, with no sums of a fit that comes later.
    """

    def state(negative: bool, sums_of: int = 0) -> Progress:
        parts = (torch.zeros(4, 12, 5, 5), torch.zeros(4)) if negative else (None, None)
        maps = StepMaps(torch.zeros(1, 3, 4), torch.zeros(1, 3), None, *parts)
        sums = (1, Moments.zeros(1, 4, 3), Moments.zeros(1, 4, 3))
        return Progress({2: maps}, [StepFit(2, 1e-3, False, 0.5, 1.0, 9)], sums_of, sums if sums_of else None)

    def kept(one: Progress, other: Progress) -> Progress:
        """What is left of the first state beside the other process."""
        counts: list[torch.Tensor] = []
        monkeypatch.setattr(progress, "world_size", lambda: 1)
        monkeypatch.setattr(progress, "sum_over_processes", lambda part: counts.append(part) or part)
        other.keep_common_steps(4)
        monkeypatch.setattr(progress, "world_size", lambda: 2)
        monkeypatch.setattr(progress, "sum_over_processes", lambda part: part + counts[0])
        one.keep_common_steps(4)
        return one

    both = kept(state(negative=True, sums_of=4), state(negative=True))
    assert both.maps[2].negative is not None and both.sums is not None
    without_negative = kept(state(negative=True, sums_of=4), state(negative=False, sums_of=2))
    assert without_negative.maps[2].negative is without_negative.maps[2].negative_bias is None
    assert len(without_negative.fits) == 1
    in_the_negative_fit = kept(state(negative=False, sums_of=2), state(negative=True))
    assert in_the_negative_fit.sums is not None and in_the_negative_fit.maps[2].negative is None
    behind = kept(state(negative=False, sums_of=2), Progress())
    assert (behind.maps, behind.fits, behind.sums) == ({}, [], None)
