"""Modular diffusers: its guiders call the UNet once per half of guidance."""

from typing import Any

import pytest
import torch
from diffusers import ClassifierFreeGuidance
from diffusers.modular_pipelines import StableDiffusionXLAutoBlocks
from helpers.pipelines import make, reasons, steps
from torch import Tensor

import clockwork
from clockwork.pipeline.enable import enabled_hook

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
CALL: dict[str, Any] = {"prompt": "a cat", "negative_prompt": "a dog", "num_inference_steps": 6}


def latents_of(pipe: Any, **more: Any) -> Tensor:
    size = {"height": 32, "width": 32}
    return pipe(**CALL, **size, generator=torch.Generator().manual_seed(0), output_type="latent", **more)


@pytest.mark.parametrize("scale", [5.0, 1.0])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_modular_pipeline_is_clocked_like_the_one_that_batches_both_halves(scale: float) -> None:
    """The same latents up to rounding, which is another for a batch of one."""
    pipe, _ = make("StableDiffusionXLPipeline")
    modular = StableDiffusionXLAutoBlocks().init_pipeline()
    guider = ClassifierFreeGuidance(guidance_scale=scale)
    modular.update_components(guider=guider, **{name: getattr(pipe, name) for name in PARTS})
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
