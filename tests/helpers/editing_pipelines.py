"""Small random pipelines that edit images, or call their UNet in a way of their own."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import diffusers
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    LEditsPPPipelineStableDiffusion,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionUpscalePipeline,
)
from helpers.pipelines import PROMPT, make, picture
from helpers.unet_pipelines import Made
from helpers.unets import TEXT, conditional


def around(cls: Any, unet: Any = None, solver: Any = None, **parts: Any) -> Any:
    """A pipeline of a class with the parts of a Stable Diffusion pipeline."""
    pipe, _ = make()
    components = {**pipe.components, "scheduler": solver or DDIMScheduler(clip_sample=False), **parts}
    components |= {} if unet is None else {"unet": unet}
    known = signature(cls).parameters
    options = {"requires_safety_checker": False} if "requires_safety_checker" in known else {}
    pipe = cls(**{name: part for name, part in components.items() if name in known}, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def edited_by_text() -> Made:
    unet = conditional(**TEXT, in_channels=8, cross_attention_dim=16)
    return around(StableDiffusionInstructPix2PixPipeline, unet), {"prompt": PROMPT, "image": picture(3)}


def upscaled() -> Made:
    unet = conditional(**TEXT, in_channels=7, num_class_embeds=1000, cross_attention_dim=16)
    pipe = around(StableDiffusionUpscalePipeline, unet, low_res_scheduler=DDPMScheduler())
    return pipe, {"prompt": PROMPT, "image": picture(3, 16)}


def perturbed() -> Made:
    pipe = around(StableDiffusionPAGPipeline, pag_applied_layers=["mid"])
    return pipe, {"prompt": PROMPT, "height": 32, "width": 32, "pag_scale": 3.0}


EDITING: dict[str, Callable[[], Made]] = {
    "StableDiffusionInstructPix2PixPipeline": edited_by_text,
    "StableDiffusionUpscalePipeline": upscaled,
    "StableDiffusionPAGPipeline": perturbed,
}


def self_attention_guided() -> Made:
    """Its UNet has as many heads as its config's `attention_head_dim`, which the pipeline reads."""
    pipe = around(diffusers.StableDiffusionSAGPipeline, conditional(**TEXT, cross_attention_dim=16))
    return pipe, {"prompt": PROMPT, "height": 32, "width": 32}


def panorama() -> Made:
    return around(diffusers.StableDiffusionPanoramaPipeline), {"prompt": PROMPT, "height": 32, "width": 160}


def diff_edit() -> Any:
    inverse = DDIMInverseScheduler(clip_sample=False)
    return around(diffusers.StableDiffusionDiffEditPipeline, inverse_scheduler=inverse)


def ledits() -> Any:
    solver = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=2)
    return around(LEditsPPPipelineStableDiffusion, solver=solver)
