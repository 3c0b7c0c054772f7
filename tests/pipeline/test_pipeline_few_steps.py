"""Solvers, timesteps and guidance with which distilled models come: LCM, Turbo, Lightning, Hyper-SD, TCD."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from helpers.pipelines import PROMPT, generate, make, miniature_pipeline, reasons, steps
from torch import Tensor

import clockwork
from clockwork.miniature.prompts import scene_prompts
from clockwork.pipeline.enable import enabled_hook
from clockwork.teachers import Teacher

TRAILING = {"timestep_spacing": "trailing"}
# A solver, its settings, and arguments of the call.
MODELS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "LCM": (LCMScheduler, {}, {"guidance_scale": 1.0}),
    "LCM with its own timesteps": (LCMScheduler, {}, {"guidance_scale": 1.0, "timesteps": [999, 759, 499, 259]}),
    "LCM-LoRA, guided": (LCMScheduler, {}, {"guidance_scale": 1.5}),
    "TCD": (TCDScheduler, {}, {"guidance_scale": 0.0, "eta": 0.3}),
    "Turbo": (EulerAncestralDiscreteScheduler, TRAILING, {"guidance_scale": 0.0}),
    "Lightning": (EulerDiscreteScheduler, TRAILING, {"guidance_scale": 0.0}),
    "Hyper-SD": (DDIMScheduler, {**TRAILING, "clip_sample": False}, {"guidance_scale": 0.0}),
    "DEIS": (DEISMultistepScheduler, {}, {"guidance_scale": 3.0}),
    "UniPC": (UniPCMultistepScheduler, {}, {"guidance_scale": 3.0}),
}


def with_solver(pipe: Any, model: str) -> tuple[Any, dict[str, Any]]:
    solver, settings, call = MODELS[model]
    pipe.scheduler = solver.from_config(pipe.scheduler.config, **settings)
    return pipe, dict(call)


@pytest.mark.parametrize("kind", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
@pytest.mark.parametrize("model", MODELS)
def test_few_steps(model: str, kind: str) -> None:
    """Full steps are bit for bit the pipeline's; every second step of four or two is an adaptor step."""
    pipe, call = with_solver(make(kind)[0], model)
    before = generate(pipe, **call)
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(generate(pipe, **call), before)
    clockwork.enable(pipe)
    clocked = generate(pipe, **call)
    assert steps(pipe) == "FaFa" and not reasons(pipe)
    assert torch.isfinite(clocked).all() and not torch.equal(clocked, before)
    if "timesteps" not in call:
        generate(pipe, steps=2, **call)
        assert steps(pipe) == "Fa"
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe, **call), before)


QUICK = ("TCD", "LCM-LoRA, guided")  # without and with guidance


@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=() if model in QUICK else pytest.mark.slow) for model in MODELS]
)
def test_calibration_at_few_steps_is_nearer_than_the_identity(model: str, teacher: Teacher) -> None:
    """Also of solvers that draw noise at every step, which is the same for the same generator."""
    pipe, call = with_solver(miniature_pipeline(teacher), model)
    prompts = [PROMPT, *(prompt.text for prompt in scene_prompts("test", 7))]

    def error(to: Tensor) -> float:
        return float((generate(pipe, prompt=prompts, **call) - to).norm() / to.norm())

    full = generate(pipe, prompt=prompts, **call)
    clockwork.enable(pipe)
    identity = error(full)
    captions = [prompt.text for prompt in scene_prompts("train", 64)]
    clockwork.calibrate(pipe, captions, num_inference_steps=4, **call)
    calibrated = error(full)
    assert steps(pipe) == "FaFa" and enabled_hook(pipe).log.differences == []
    assert calibrated < 0.75 * identity, (calibrated, identity)
