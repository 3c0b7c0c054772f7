"""Calibration at other cuts, solvers, guidance and precisions: errors agree with those of the fitted roll-out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.calibration import CAPTIONS, PROMPTS, small_sampler
from torch import Tensor

from clockwork.adaptors import History
from clockwork.calibration.fit import Calibrated, calibrate_sampler
from clockwork.calibration.options import FitOptions
from clockwork.miniature.prompts import scene_prompts
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoised
from clockwork.schedule import Schedule
from clockwork.teachers import Condition, load_teacher
from clockwork.unet.inputs import EmbeddedInputs
from clockwork.unet.split import HighResFeatures, SplitUNet


class MeasuringDenoiser(ClockworkDenoiser):
    """Runs the low-res path, too, on each adaptor step."""

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        denoised = super().__call__(sample, t, condition, step, history)
        embedded = self.split.embed(sample.to(self.split.dtype), t, condition.prompt_embeds, **condition.unet_kwargs)
        r_outs.append((denoised.full, denoised.r_out, self.split.low(self.split.high_in(embedded), embedded)))
        return denoised


r_outs: list[tuple[bool, Tensor, Tensor]] = []


def measured_errors(result: Calibrated) -> list[float]:
    """Guided relative errors of each adaptor step in a roll-out of the calibration's captions."""
    sampler = result.sampler
    noise = sampler.teacher.noise([prompt.id for prompt in PROMPTS[:4]])
    r_outs.clear()
    sampler.latents(list(CAPTIONS[:4]), noise, MeasuringDenoiser(sampler.split, result.adaptor, sampler.schedule))
    errors = []
    for _, estimate, r_out in (step for step in r_outs if not step[0]):
        parts = torch.stack([estimate.float() - r_out.float(), r_out.float()])
        if len(result.adaptor.branches) == 2:
            unconditional, conditional = parts.chunk(2, 1)
            parts = unconditional + sampler.guidance * (conditional - unconditional)
        errors.append(float(parts[0].norm() / parts[1].norm()))
    return errors


@pytest.mark.parametrize(
    ("shape", "cut", "solver", "guidance", "rank", "joint"),
    [
        ("sd15", "stage1_upsampled", "dpm++", 3.0, None, True),  # r_in at half the resolution of r_out
        ("sd15", "2,4", "dpm++", 3.0, None, False),  # r_in at twice the resolution of r_out
        ("sd15", "layer1", "ddim", 7.5, 2, True),
        ("sdxl", "stage1", "pndm", 3.0, None, False),  # one more UNet call than steps
        ("guided", "stage1", "dpm++", 3.0, 4, True),  # conditioned on the guidance scale: one pass per step
        ("bk_sdm_tiny", "stage1", "ddim", 1.0, None, False),  # without guidance
    ],
)
def test_errors_are_those_of_the_roll_out(
    shape: str, cut: str, solver: str, guidance: float, rank: int | None, joint: bool
) -> None:
    sampler = small_sampler(shape, cut, solver=solver, guidance=guidance)
    options = FitOptions(held_out_every=None, rank=rank, joint=joint, batch=3)
    result = calibrate_sampler(sampler, PROMPTS[:4], options=options)
    guided = guidance != 1 and shape != "guided"
    assert len(result.adaptor.branches) == (2 if guided else 1) and result.adaptor.rank == rank
    assert result.adaptor.joint == (joint and guided), "there are two halves to read"
    assert result.adaptor.steps == tuple(sampler.schedule.adaptor_steps(5 if solver == "pndm" else 4))
    errors = measured_errors(result)
    for fit, error in zip(result.fits, errors, strict=True):
        assert fit.error <= fit.identity_error
        if rank is None:
            assert error == pytest.approx(fit.error, rel=1e-3)
        assert error < fit.identity_error
    assert result.adaptor.point == sampler.point and result.sampler.adaptor_name == "linear"


class RecordingUNet(SplitUNet):
    """Keeps the text features that its low-res path reads."""

    def __init__(self, *args: object, texts: list[Tensor], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.texts = texts

    def low(self, high: HighResFeatures, embedded: EmbeddedInputs) -> Tensor:
        self.texts.append(embedded.encoder_hidden_states)
        return super().low(high, embedded)


@pytest.mark.parametrize("negatives", [("",), ("a red circle",), ("", "blurry", "a blue square")])
def test_captions_take_negative_prompts_in_turn(negatives: Sequence[str]) -> None:
    texts: list[Tensor] = []
    sampler = small_sampler(steps=2, split=partial(RecordingUNet, texts=texts))
    calibrate_sampler(sampler, PROMPTS, negatives)
    teacher = sampler.teacher
    expected = [teacher.empty(False) if text == "" else teacher.encode([text], False) for text in negatives]
    for i, text in enumerate(texts[0][:8]):
        assert torch.allclose(text, expected[i % len(negatives)].prompt_embeds[0], atol=1e-5)
    assert torch.allclose(texts[0][8:], teacher.encode(list(CAPTIONS), False).prompt_embeds, atol=1e-5)


def test_without_guidance_negative_prompts_are_not_read() -> None:
    texts: list[Tensor] = []
    sampler = small_sampler(steps=2, guidance=1.0, split=partial(RecordingUNet, texts=texts))
    calibrate_sampler(sampler, PROMPTS, ("", "blurry"))
    assert {len(text) for text in texts} == {8}


def test_images_of_other_captions_come_nearer_to_the_teachers() -> None:
    """The adaptor is fitted and runs in float32 beside a teacher in half precision."""
    teacher = load_teacher("miniature_sd", guidance=3.0, device="cpu", resolution=32, precision="bfloat16")
    sampler = small_sampler(teacher=teacher)
    result = calibrate_sampler(sampler, scene_prompts("train", 16))
    assert teacher.precision == "bfloat16" and result.adaptor.dtype == torch.float32
    prompts = scene_prompts("test", 8)
    captions, noise = [prompt.text for prompt in prompts], teacher.noise([prompt.id for prompt in prompts])
    exact = replace(sampler, schedule=Schedule(), adaptor=None).latents(captions, noise)
    identity, linear = ((one.latents(captions, noise) - exact).square().mean() for one in (sampler, result.sampler))
    assert linear < 0.5 * identity
