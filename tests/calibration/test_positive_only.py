"""Adaptor steps that run the positive half of guidance only: the fit of the negative one, FLOPs, and limits."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.calibration import CAPTIONS, PROMPTS, LinearInFeatures, small_sampler
from helpers.models import small_teacher
from helpers.pipelines import generate, make, miniature_pipeline, reasons, steps
from torch import Tensor

import clockwork
from clockwork.adaptors import Linear, load_adaptor, save_adaptor
from clockwork.adaptors.negative import NegativeMap
from clockwork.calibration import denoiser as calibrating
from clockwork.calibration.denoiser import CalibratingDenoiser
from clockwork.calibration.fit import Calibrated, calibrate_sampler
from clockwork.calibration.options import FitOptions
from clockwork.errors import UserError
from clockwork.flops.cost import image_flops, step_flops
from clockwork.flops.counter import Flops, count_flops, counted
from clockwork.pipeline.enable import enabled_hook
from clockwork.sampling.rollout import StepRecord
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.inputs import EmbeddedInputs
from clockwork.unet.split import HighResFeatures

POSITIVE = FitOptions(positive_only=True, batch=3)


class NegativeIsConvolved(LinearInFeatures):
    """The prediction of the negative half is a 5 × 5 convolution of the positive one's, wherever both run."""

    def high_out(self, r_out: Tensor, high: HighResFeatures, embedded: EmbeddedInputs) -> Tensor:
        """Replaces the predictions for the negative prompt."""
        output = super().high_out(r_out, high, embedded)
        if not torch.allclose(embedded.encoder_hidden_states[0], self.negative[0], atol=1e-5):
            return output
        positive = output.chunk(2)[1]
        kernel = torch.randn(4, 4, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.1
        return torch.cat([F.conv2d(positive, kernel, padding=2), positive])


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return small_teacher("sd15")


@pytest.fixture(scope="module")
def fitted(teacher: Teacher) -> Calibrated:
    return calibrate_sampler(small_sampler(teacher=teacher), PROMPTS, options=POSITIVE)


def records(sampler: Sampler, denoiser: Any = None) -> list[StepRecord]:
    noise = sampler.teacher.noise([prompt.id for prompt in PROMPTS])
    return list(sampler.rollout(list(CAPTIONS), noise, denoiser))


@pytest.mark.parametrize("schedule", ["clock2", "clock4"])
def test_a_negative_half_that_is_linear_in_the_positive_one_is_recovered(teacher: Teacher, schedule: str) -> None:
    """The low-res path is linear as well, so the whole roll-out is the teacher's, although no negative half ran."""
    negative = teacher.empty(False).prompt_embeds
    sampler = small_sampler(teacher=teacher, split=NegativeIsConvolved, negative=negative, schedule=schedule)
    result = calibrate_sampler(sampler, PROMPTS, options=replace(POSITIVE, ridges=(1e-10,)))
    full = records(replace(sampler, schedule=Schedule(), adaptor=None))
    for clocked, exact in zip(records(result.sampler), full, strict=True):
        expected = exact.denoised.output
        assert (clocked.denoised.output - expected).norm() < 1e-4 * expected.norm()
    unfitted = Linear(result.adaptor.dims, result.adaptor.steps, branches=("conditional",), negative_channels=4)
    *_, last = records(replace(sampler, adaptor=unfitted))
    assert (last.denoised.output - expected).norm() > 1e-2 * expected.norm()


@pytest.mark.parametrize("schedule", ["clock2", "clock4"])
def test_the_fit_ran_on_the_roll_out_of_its_maps(teacher: Teacher, schedule: str) -> None:
    """The calibrating roll-out in chunks and that of the fitted adaptor in one batch are the same."""
    sampler = small_sampler(teacher=teacher, schedule=schedule)
    denoiser = CalibratingDenoiser(sampler.split, sampler.schedule, 3.0, POSITIVE)
    during = records(sampler, denoiser)
    adaptor = denoiser.progress.adaptor(denoiser.adaptor.dims, POSITIVE.terms)
    for one, other in zip(during, records(replace(sampler, adaptor=adaptor)), strict=True):
        assert torch.allclose(one.latents, other.latents, atol=1e-4)
        assert len(one.denoised.r_out) == len(other.denoised.r_out) == (16 if one.denoised.full else 8)
    assert not torch.equal(adaptor.negative.weight, torch.zeros_like(adaptor.negative.weight))


def test_full_steps_are_the_teachers_bit_for_bit(fitted: Calibrated) -> None:
    (first, *_), (exact, *_) = records(fitted.sampler), records(replace(fitted.sampler, schedule=Schedule()))
    assert first.denoised.full and torch.equal(first.latents, exact.latents)


def test_flops_are_those_that_run(fitted: Calibrated, teacher: Teacher) -> None:
    """Of an adaptor step those of one half and of a convolution with 12 × 25 inputs; counted while it runs.

    The halves of a full step share the embedding of the timestep, which the figures of an image count for each.
    """
    sampler = fitted.sampler
    conditions, noise = sampler.conditions([""]), teacher.noise([0])
    ran = count_flops(lambda: sampler.latents_of(conditions, noise))
    for name in ("macs", "paper", "full"):
        assert getattr(image_flops(sampler), name) == pytest.approx(getattr(ran, name), rel=2e-3)
    full, adaptor = step_flops(sampler)
    convolution = 4 * 12 * 25 * teacher.latent_shape[1] * teacher.latent_shape[2]
    assert image_flops(sampler).macs == 2 * (2 * full.macs + adaptor.macs + convolution)
    unguided = replace(sampler, guidance=1.0)
    assert image_flops(unguided).macs == 2 * (full.macs + adaptor.macs)


def test_without_guidance_the_positive_half_is_all_there_is(fitted: Calibrated) -> None:
    unguided, plain = (
        replace(fitted.sampler, guidance=1.0),
        Linear(fitted.adaptor.dims, (2, 4), branches=("conditional",)),
    )
    plain.load_state_dict({k: v for k, v in fitted.adaptor.state_dict().items() if "negative" not in k})
    for one, other in zip(records(unguided), records(replace(unguided, adaptor=plain)), strict=True):
        assert torch.equal(one.latents, other.latents)


def test_it_is_saved_in_the_adaptors_folder(fitted: Calibrated, tmp_path: Path) -> None:
    """Adaptors of both halves have the config that they had."""
    save_adaptor(tmp_path, fitted.adaptor)
    loaded, _ = load_adaptor(tmp_path)
    assert isinstance(loaded, Linear) and loaded.negative_channels == 4
    assert loaded.state_dict().keys() == fitted.adaptor.state_dict().keys() > {"negative.weight", "negative.bias"}
    assert "negative_channels" not in Linear(fitted.adaptor.dims, (2, 4)).config()


def test_a_calibration_goes_on_within_the_fit_of_the_negative_half(
    teacher: Teacher, fitted: Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at each of its chunks but the first: three per step. Sums that are there are not computed again."""
    calls, original = Counter[int](), calibrating.negative_observations

    def observations(denoiser: Any, step: int, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        calls[step] += 1
        if calls.total() in (2, 4, 7):
            raise KeyboardInterrupt
        return original(denoiser, step, *rest)

    monkeypatch.setattr(calibrating, "negative_observations", observations)
    sampler = small_sampler(teacher=teacher)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            calibrate_sampler(sampler, PROMPTS, options=POSITIVE, folder=tmp_path)
    result = calibrate_sampler(sampler, PROMPTS, options=POSITIVE, folder=tmp_path)
    assert calls == {2: 3 + 2, 4: 3 + 1}
    for name, value in fitted.adaptor.state_dict().items():
        assert torch.equal(result.adaptor.state_dict()[name], value)


def test_a_zero_map_keeps_the_difference_of_the_halves() -> None:
    positive, previous = torch.randn(2, 4, 6, 6), torch.randn(4, 4, 6, 6)
    estimate = NegativeMap((2,), 4)(positive, previous, 2)
    assert torch.allclose(estimate - positive, previous[:2] - previous[2:], atol=1e-6)


def test_a_pipeline_gives_the_roll_out_and_counts_it(fitted: Calibrated, teacher: Teacher) -> None:
    """The UNet's batch is halved on adaptor steps; FLOPs are those that torch counts in its calls.

    Apart from the trends, which the first adaptor step does not have yet.
    """
    pipe, ran = miniature_pipeline(teacher), list[Flops]()
    clockwork.enable(pipe, adaptor=fitted.adaptor)
    hook = enabled_hook(pipe)

    def denoise(call: dict[str, Any]) -> Tensor:
        output, flops = counted(lambda: denoise_uncounted(call))
        ran.append(flops)
        return output

    denoise_uncounted, hook.denoise = hook.denoise, denoise  # type: ignore[method-assign]
    call = {"prompt": list(CAPTIONS), "latents": teacher.noise([prompt.id for prompt in PROMPTS])}
    images = generate(pipe, guidance_scale=3.0, **call)
    *_, last = records(fitted.sampler)
    assert torch.allclose(images, last.latents, atol=1e-4)
    assert steps(pipe) == "FaFa" and not reasons(pipe)
    report = clockwork.summary(pipe)
    trends = 24 * 16 * 64 * 8
    assert report.flops.macs == sum(ran, Flops()).macs + trends
    assert report.flops.full == sum(ran, Flops()).full + 2 * trends


def test_a_pipeline_is_calibrated_and_runs_without_guidance_too() -> None:
    pipe, _ = make()
    options = FitOptions(terms=("r_in", "r_in_change"), positive_only=True)
    adaptor = clockwork.calibrate(pipe, list(CAPTIONS), options=options, num_inference_steps=4, guidance_scale=3.0)
    assert len(adaptor.branches) == 1 and adaptor.negative_channels == 4
    guided = generate(pipe, guidance_scale=3.0)
    assert steps(pipe) == "FaFa" and not reasons(pipe)
    with pytest.warns(UserWarning, match="guidance"):
        unguided = generate(pipe, guidance_scale=1.0)
    assert steps(pipe) == "FaFa" and not torch.equal(guided, unguided)


@pytest.mark.parametrize(
    ("options", "call", "message"),
    [
        ({"joint": True}, {}, "joint maps read both halves"),
        ({}, {"guidance_scale": 1.0}, "positive_only is for images with guidance"),
    ],
)
def test_where_it_cannot_work_it_is_refused(options: dict[str, Any], call: dict[str, Any], message: str) -> None:
    pipe, _ = make()
    with pytest.raises(UserError, match=message):
        positive = FitOptions(positive_only=True, **options)
        clockwork.calibrate(pipe, list(CAPTIONS), options=positive, num_inference_steps=2, **call)


def test_tasks_of_both_halves_refuse_it(fitted: Calibrated, tmp_path: Path) -> None:
    pipe, _ = make()
    options = FitOptions(terms=("r_in",), positive_only=True)
    clockwork.calibrate(pipe, list(CAPTIONS), options=options, num_inference_steps=4, guidance_scale=3.0)
    with pytest.raises(UserError, match="an exported graph needs both halves of guidance"):
        clockwork.export(pipe, tmp_path / "graphs", "pt2")
