"""Calibrated adaptors: exact for a linear low-res path, fitted on what they read, and the same in any batches."""

from dataclasses import replace

import pytest
import torch
from helpers.calibration import CAPTIONS, PROMPTS, LinearInFeatures, LinearInTime, small_sampler
from helpers.models import small_teacher
from torch import Tensor

from clockwork.adaptors.linear import term_values
from clockwork.calibration import denoiser as calibrating
from clockwork.calibration.fit import calibrate_sampler
from clockwork.calibration.options import FitOptions
from clockwork.calibration.statistics import Moments
from clockwork.miniature.prompts import scene_prompts
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoised
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, load_teacher

EXACT = FitOptions(ridges=(1e-12,))


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return small_teacher("sd15")


def r_outs(sampler: Sampler) -> dict[int, Tensor]:
    """Of each step of a roll-out of the calibration's captions."""
    noise = sampler.teacher.noise([prompt.id for prompt in PROMPTS])
    return {record.step: record.denoised.r_out for record in sampler.rollout(list(CAPTIONS), noise)}


@pytest.mark.parametrize("joint", [False, True])
def test_a_low_res_path_that_is_linear_in_the_features_is_recovered(teacher: Teacher, joint: bool) -> None:
    """`M' r_in' − M r_in` is `(M' − M) r_in' + M (r_in' − r_in)`: the maps are known, each half has its own.

    Joint maps find that the other half has nothing to add.
    """
    negative = teacher.empty(False).prompt_embeds
    sampler = small_sampler(teacher=teacher, split=LinearInFeatures, negative=negative)
    result = calibrate_sampler(sampler, PROMPTS, options=replace(EXACT, terms=("r_in", "r_in_change"), joint=joint))
    matrices = sampler.split.matrices
    assert len(matrices) == 4 and result.adaptor.steps == (2, 4)
    for i, step in enumerate((2, 4)):
        now, before = matrices[step - 1], matrices[step - 2]
        assert (now - before).abs().max() > 0.01, "the steps differ"
        expected = torch.cat([now - before, before], 2)
        if joint:
            none = torch.zeros_like(expected[0])
            expected = torch.stack([torch.cat([expected[0], none], 1), torch.cat([none, expected[1]], 1)])
        torch.testing.assert_close(result.adaptor.weight[i], expected, rtol=0, atol=2e-4)
        assert result.adaptor.bias[i].abs().max() < 2e-4
    assert all(fit.error < 1e-5 < 1e-2 < fit.identity_error and not fit.singular for fit in result.fits)


@pytest.mark.parametrize("schedule", ["clock2", "clock4"])
def test_the_roll_out_is_then_the_teachers(teacher: Teacher, schedule: str) -> None:
    """With clock 4 adaptor steps follow each other. All terms repeat each other then, and there is no one solution."""
    negative = teacher.empty(False).prompt_embeds
    sampler = small_sampler(teacher=teacher, split=LinearInFeatures, negative=negative, schedule=schedule)
    result = calibrate_sampler(sampler, PROMPTS, options=FitOptions(ridges=(1e-10,)))
    assert all(fit.singular for fit in result.fits)
    full, clocked = r_outs(replace(sampler, schedule=type(sampler.schedule)())), r_outs(result.sampler)
    identity = r_outs(sampler)
    for step, expected in full.items():
        assert (clocked[step] - expected).norm() < 1e-5 * expected.norm()
    assert (identity[4] - full[4]).norm() > 1e-2 * full[4].norm()


def test_a_low_res_path_that_moves_on_a_straight_line_is_extrapolated(teacher: Teacher) -> None:
    """Once two full steps are known: by the ratio of the steps' lengths, and with nothing else."""
    sampler = small_sampler(teacher=teacher, split=LinearInTime, steps=6)
    options = replace(EXACT, terms=("r_out_prev", "r_out_trend"), joint=False)
    result = calibrate_sampler(sampler, PROMPTS, options=options)
    clocks = sampler.split.clocks
    for i, step in enumerate((2, 4, 6)):
        prev, trend = result.adaptor.weight[i].split(16, 2)
        if step == 2:  # one full step: the trend is unknown, and counts as zero
            assert not trend.any() and not result.fits[i].singular
            continue
        ratio = (clocks[step - 1] - clocks[step - 2]) / (clocks[step - 2] - clocks[step - 4])
        torch.testing.assert_close(trend, ratio * torch.eye(16).expand(2, 16, 16), rtol=0, atol=1e-4)
        torch.testing.assert_close(prev, torch.zeros(2, 16, 16), rtol=0, atol=1e-4)
        assert result.fits[i].error < 1e-5 < result.fits[i].identity_error


def record_sums(patch: pytest.MonkeyPatch) -> dict[int, Moments]:
    """Keeps the sums over all captions that each step is fitted on."""
    sums: dict[int, Moments] = {}

    def fit_step(step: int, fitted: Moments, held_out: Moments, *args: object) -> object:
        sums[step] = fitted + held_out
        return original(step, fitted, held_out, *args)  # type: ignore[arg-type]

    original = calibrating.fit_step
    patch.setattr(calibrating, "fit_step", fit_step)
    return sums


@pytest.mark.parametrize("schedule", ["clock2", "clock4"])
def test_maps_read_in_a_roll_out_what_they_were_fitted_on(
    teacher: Teacher, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The matrix of second moments of the inputs on each adaptor step of the fitted sampler is the fit's."""
    sums, sampler = record_sums(monkeypatch), small_sampler(teacher=teacher, schedule=schedule)
    result = calibrate_sampler(sampler, PROMPTS, options=FitOptions(batch=3))
    adaptor = result.adaptor
    grams = {}

    class Recorder(ClockworkDenoiser):
        def __call__(self, sample: Tensor, t: Tensor, condition: object, step: int, history: object) -> Denoised:
            denoised = super().__call__(sample, t, condition, step, history)
            if not denoised.full:
                r_in, past = denoised.r_in, history
                values = term_values(adaptor.terms, r_in, past.r_out_prev, past.r_in_prev, past.full_steps)
                zeros = {term: r_in.new_zeros(16, adaptor.term_channels(term), *r_in.shape[2:]) for term in values}
                x = torch.cat([zeros[k] if v is None else v for k, v in values.items()], 1).double()
                x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
                side_by_side = torch.cat(x.chunk(2), 1).transpose(0, 1).flatten(1)
                grams[step] = side_by_side @ side_by_side.T
            return denoised

    recorder = Recorder(sampler.split, adaptor, sampler.schedule)
    noise = teacher.noise([prompt.id for prompt in PROMPTS])
    result.sampler.latents(list(CAPTIONS), noise, recorder)
    assert grams.keys() == sums.keys() == set(adaptor.steps)
    for step, gram in grams.items():
        fitted = sums[step].products[: len(gram), : len(gram)]
        assert (gram - fitted).abs().max() < 1e-6 * fitted.abs().max()


@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_the_fit_does_not_depend_on_batches(teacher: Teacher, guidance: float) -> None:
    """Nor on which captions share one. In float32 features change in the last digits."""
    sampler = small_sampler(teacher=teacher, steps=2 if guidance == 1 else 4, guidance=guidance)
    first, *others = [
        calibrate_sampler(sampler, prompts, options=FitOptions(batch=batch, ridges=(1e-3,))).adaptor
        for batch, prompts in ((8, PROMPTS), (3, PROMPTS[::-1]), (1, PROMPTS))[: 3 if guidance > 1 else 2]
    ]
    assert len(first.branches) == (1 if guidance == 1 else 2)
    for other in others:
        for name, value in first.state_dict().items():
            assert (other.state_dict()[name] - value).norm() < 1e-4 * value.norm()


@pytest.mark.parametrize(("captions", "held_out"), [(1, []), (2, [1]), (5, [4]), (8, [7]), (20, [7, 15])])
def test_some_of_few_captions_choose_the_ridge_too(captions: int, held_out: list[int]) -> None:
    """A fixed ridge overfits where captions are few; a single one leaves no choice."""
    period = FitOptions().hold_out_period(captions)
    assert [i for i in range(captions) if period is not None and i % period == period - 1] == held_out
    assert FitOptions(held_out_every=None).hold_out_period(captions) is None


@pytest.mark.parametrize(("captions", "joint"), [(4, False), (6, True)])
def test_a_few_captions_are_better_than_none(captions: int, joint: bool) -> None:
    """On captions that the maps were not fitted on, with hardly more observations than inputs."""
    teacher = load_teacher("miniature", device="cpu")
    sampler = small_sampler(teacher=teacher)
    result = calibrate_sampler(sampler, scene_prompts("train", captions), options=FitOptions(joint=joint))
    prompts = scene_prompts("test", 8)
    captions, noise = [prompt.text for prompt in prompts], teacher.noise([prompt.id for prompt in prompts])
    exact = replace(sampler, schedule=Schedule(), adaptor=None).latents(captions, noise)
    identity, linear = ((one.latents(captions, noise) - exact).square().mean() for one in (sampler, result.sampler))
    assert linear < 0.75 * identity
