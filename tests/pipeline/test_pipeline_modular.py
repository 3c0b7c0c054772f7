"""Modular diffusers: its guiders call the UNet once per half of guidance."""

import copy
from typing import Any

import pytest
import torch
from diffusers import ClassifierFreeGuidance
from diffusers.modular_pipelines import StableDiffusionXLAutoBlocks
from helpers.calibration import CAPTIONS
from helpers.pipelines import make, reasons, steps
from torch import Tensor

import clockwork
from clockwork.calibration.options import FitOptions
from clockwork.errors import UserError
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.step_tracking import BOTH_HALVES, UNKNOWN_HALF

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
CALL: dict[str, Any] = {"prompt": "a cat", "negative_prompt": "a dog", "num_inference_steps": 6}


def latents_of(pipe: Any, **more: Any) -> Tensor:
    size = {"height": 32, "width": 32}
    return pipe(**CALL, **size, generator=torch.Generator().manual_seed(0), output_type="latent", **more)


def modular_of(pipe: Any, scale: float) -> Any:
    """A modular pipeline of the same components, with a guider."""
    modular = StableDiffusionXLAutoBlocks().init_pipeline()
    guider = ClassifierFreeGuidance(guidance_scale=scale)
    modular.update_components(guider=guider, **{name: getattr(pipe, name) for name in PARTS})
    return modular


@pytest.mark.parametrize("scale", [5.0, 1.0])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_modular_pipeline_is_clocked_like_the_one_that_batches_both_halves(scale: float) -> None:
    """The same latents up to rounding, which is another for a batch of one."""
    pipe, _ = make("StableDiffusionXLPipeline")
    modular = modular_of(pipe, scale)
    clockwork.enable(pipe, schedule="clock3")
    batched = latents_of(pipe, guidance_scale=scale).images
    clockwork.enable(modular, schedule="clock3")
    for _ in range(2):
        apart = latents_of(modular, output="latents")
        assert torch.allclose(apart, batched, atol=1e-4)
        assert steps(modular) == ("FFaaaaFFaaaa" if scale > 1 else "FaaFaa") and not reasons(modular)
    point = enabled_hook(modular).log.ran
    assert point is not None and (point.steps, point.guidance) == (6, scale)
    clockwork.disable(modular)
    assert not torch.allclose(latents_of(modular, output="latents"), batched, atol=1e-4)


TERMS = ("r_in", "r_in_change")


def calibrated(**options: Any) -> tuple[Any, Any]:
    """A pipeline that batches both halves, with an adaptor that is calibrated on another negative prompt's half."""
    pipe, _ = make("StableDiffusionXLPipeline")
    size = {"height": 32, "width": 32, "num_inference_steps": 6, "guidance_scale": 5.0, "negative_prompt": "a dog"}
    given = FitOptions(TERMS, **options)
    return pipe, clockwork.calibrate(pipe, list(CAPTIONS), "clock3", "stage1", options=given, **size)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_each_half_has_its_own_calibrated_maps() -> None:
    """The guider tells which half a call is; with the maps exchanged the latents are others."""
    pipe, adaptor = calibrated()
    modular = modular_of(pipe, 5.0)
    batched = latents_of(pipe, guidance_scale=5.0).images
    clockwork.enable(modular, adaptor=adaptor)
    for _ in range(2):
        assert torch.allclose(latents_of(modular, output="latents"), batched, atol=1e-4)
        assert steps(modular) == "FFaaaaFFaaaa" and not reasons(modular)
    exchanged = copy.deepcopy(adaptor)
    for name, weight in adaptor.state_dict().items():
        exchanged.state_dict()[name].copy_(weight.flip(1))
    clockwork.enable(modular, adaptor=exchanged)
    assert not torch.allclose(latents_of(modular, output="latents"), batched, atol=1e-2)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_where_the_maps_need_more_than_one_half_steps_are_full() -> None:
    """Maps that read both halves; and guiders with a third prediction, of whose calls two are conditional."""
    pipe, joint = calibrated(joint=True)
    modular = modular_of(pipe, 5.0)
    clockwork.enable(modular, adaptor=joint)
    latents_of(modular, output="latents")
    assert steps(modular) == "F" * 12 and set(reasons(modular)) == {BOTH_HALVES}
    pipe, adaptor = calibrated()
    modular = modular_of(pipe, 5.0)
    modular.guider._input_predictions = ["pred_cond", "pred_uncond", "pred_cond_skip"]
    clockwork.enable(modular, adaptor=adaptor)
    latents_of(modular, output="latents")
    assert steps(modular) == "F" * 12 and set(reasons(modular)) == {UNKNOWN_HALF}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_loop_of_ones_own_on_a_modular_pipelines_unet_does_not_ask_the_guider() -> None:
    """The guider still tells the half of its own last call; the adaptor here knows both."""
    pipe, adaptor = calibrated()
    modular = modular_of(pipe, 5.0)
    clockwork.enable(modular, adaptor=adaptor)
    latents_of(modular, output="latents")
    modular.scheduler.set_timesteps(6)
    shapes = (1, 7, 24), (1, 12), (1, 6)
    halves = [[torch.randn(shape) for shape in shapes] for _ in range(2)]
    for t in modular.scheduler.timesteps:
        for text, pooled, ids in halves:
            added = {"text_embeds": pooled, "time_ids": ids}
            modular.unet(torch.randn(1, 4, 16, 16), t, text, added_cond_kwargs=added)
    assert steps(modular) == "F" * 12 and set(reasons(modular)) == {UNKNOWN_HALF}


def test_a_modular_pipeline_is_calibrated_by_one_that_batches_both_halves() -> None:
    pipe, _ = make("StableDiffusionXLPipeline")
    with pytest.raises(UserError, match="calibrate a pipeline that batches them"):
        clockwork.calibrate(modular_of(pipe, 5.0), num_inference_steps=4)
