"""Which steps of editing pipelines stay full, and that `summary` says why."""

import warnings
from typing import Any

import pytest
import torch
from helpers.editing_pipelines import (
    diff_edit,
    ledits,
    panorama,
    self_attention_guided,
)
from helpers.pipelines import PROMPT, generate, make, picture, reasons, steps
from helpers.unet_pipelines import output
from torch import Tensor

import clockwork
from clockwork.pipeline.step_tracking import UNKNOWN_POSITION

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of pipelines that diffusers deprecates
PROMPTS = ["a red circle", "a green star", "a blue square", "a small cat"]


def summary_of(pipe: Any) -> str:
    return str(clockwork.summary(pipe))


@pytest.mark.parametrize("guidance", [7.5, 1.0])
def test_self_attention_guidance_has_full_steps(guidance: float) -> None:
    """It reads attention maps of the middle block after each call, and calls the UNet a second time on each step."""
    made = self_attention_guided()
    plain = output(made, guidance_scale=guidance, sag_scale=0.75)
    clockwork.enable(made[0])
    for _ in range(2):
        assert torch.equal(output(made, guidance_scale=guidance, sag_scale=0.75), plain)
        assert steps(made[0]) == "F" * 8
        assert "CrossAttnStoreProcessor reads attention maps of the low-res path" in summary_of(made[0])


def test_self_attention_guidance_is_not_calibrated() -> None:
    pipe, _ = self_attention_guided()
    with pytest.raises(
        ValueError, match="cannot be calibrated: the pipeline's CrossAttnStoreProcessor reads attention"
    ):
        clockwork.calibrate(pipe, PROMPTS, num_inference_steps=4, height=32, width=32)


def test_a_panorama_has_full_steps() -> None:
    """Each view of it has a copy of the solver, whose timesteps are not the pipeline's."""
    made = panorama()
    plain = output(made)
    clockwork.enable(made[0])
    assert torch.equal(output(made), plain)
    assert set(reasons(made[0])) == {UNKNOWN_POSITION} and UNKNOWN_POSITION in summary_of(made[0])


def test_diff_edit_has_full_steps_until_it_generates() -> None:
    pipe = diff_edit()

    def parts() -> list[Tensor]:
        """The mask, and the latents of the inversion."""
        rng = [torch.Generator().manual_seed(seed) for seed in range(2)]
        texts, count = {"source_prompt": "a cat", "target_prompt": "a dog"}, {"num_inference_steps": 4}
        mask = pipe.generate_mask(image=picture(3), **texts, **count, generator=rng[0], num_maps_per_mask=1)
        latents = pipe.invert(image=picture(3), prompt="a cat", **count, generator=rng[1], inpaint_strength=1.0).latents
        return [torch.as_tensor(mask), latents]

    plain = parts()
    clockwork.enable(pipe)
    assert all(torch.equal(a, b) for a, b in zip(plain, parts(), strict=True))
    assert steps(pipe) == "FFFF" and set(reasons(pipe)) == {UNKNOWN_POSITION}  # the timesteps are the inverse solver's
    generate(pipe, prompt="a dog", mask_image=plain[0].numpy(), image_latents=plain[1], inpaint_strength=1.0)
    assert steps(pipe) == "FaFa" and not reasons(pipe)


def test_ledits_has_full_steps() -> None:
    """Its timesteps are those that it stored when it inverted the image."""
    pipe = ledits()
    edit = {"editing_prompt": ["a dog", "a tree"], "edit_guidance_scale": [5.0, 5.0], "edit_threshold": [0.9, 0.9]}

    def edited() -> Tensor:
        rng = torch.Generator().manual_seed(0)
        pipe.invert(image=picture(3), num_inversion_steps=6, skip=0.0, generator=rng, height=32, width=32)
        latents: Tensor = pipe(**edit, generator=rng, output_type="latent", use_cross_attn_mask=False).images
        return latents

    plain = edited()
    clockwork.enable(pipe)
    assert torch.equal(edited(), plain)
    assert set(reasons(pipe)) == {UNKNOWN_POSITION} and "a" not in steps(pipe)


@pytest.mark.parametrize(("calibrated", "called"), [(1.0, 5.0), (5.0, 1.0)])
def test_a_calibration_with_other_branches_warns(calibrated: float, called: float) -> None:
    pipe, _ = make()
    adaptor = clockwork.calibrate(pipe, PROMPTS, num_inference_steps=4, guidance_scale=calibrated)
    assert len(adaptor.branches) == (2 if calibrated > 1 else 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        generate(pipe, prompt=PROMPT, guidance_scale=called)
    message = f"operating point it was trained for: guidance {called}, not {calibrated}"
    assert any(message in str(warning.message) for warning in caught)
    assert steps(pipe) == "FaFa" and message.split(": ")[1] in summary_of(pipe)
