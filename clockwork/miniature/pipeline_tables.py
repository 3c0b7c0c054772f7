"""Pipelines that change images or make videos, calibrated at their own call: `make calibration-tables`.

Each figure is the PSNR in dB to the images, or frames, of the same call without Clockwork, of captions and images that
no calibration uses. All have the miniature's weights; the motion modules of videos are random.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    DPMSolverMultistepScheduler,
    MotionAdapter,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from torch import Tensor

import clockwork
from clockwork.metrics.similarity import PSNR
from clockwork.miniature import WEIGHTS
from clockwork.miniature.prompts import scene_images, scene_prompts
from clockwork.pipeline.summary import summarise
from clockwork.reports.formats import markdown

COUNT = 64  # captions that are calibrated on, and as many that are measured
CUT = "stage1_upsampled"
CASES: dict[str, tuple[Any, dict[str, Any]]] = {  # each call has eight steps
    "text-to-image": (StableDiffusionPipeline, {"num_inference_steps": 8}),
    "image-to-image, strength 0.8": (StableDiffusionImg2ImgPipeline, {"num_inference_steps": 10, "strength": 0.8}),
    "image-to-image, strength 0.5": (StableDiffusionImg2ImgPipeline, {"num_inference_steps": 16, "strength": 0.5}),
    "inpainting, the left half": (StableDiffusionInpaintPipeline, {"num_inference_steps": 8, "strength": 1.0}),
    "video of 8 frames": (AnimateDiffPipeline, {"num_inference_steps": 8, "num_frames": 8}),
}


def print_table() -> None:
    """Prints the table as Markdown."""
    rows = []
    for name, (cls, call) in CASES.items():
        rows.append([name, *measure(load(cls), {**call, "guidance_scale": 3.0})])
    print(markdown(["call", "UNet calls", "FLOPs saved", "identity", "calibrated"], rows), flush=True)


def load(cls: Any) -> Any:
    """Loads the miniature as a pipeline.

    Args:
        cls: The pipeline's class.
    """
    is_video = cls is AnimateDiffPipeline
    images = StableDiffusionPipeline if is_video else cls
    pipe = images.from_pretrained(WEIGHTS / "miniature", safety_checker=None, requires_safety_checker=False)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    if is_video:
        parts = {name: pipe.components[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
        pipe = AnimateDiffPipeline(**parts, unet=with_motion(pipe.unet), motion_adapter=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_motion(unet: UNet2DConditionModel) -> UNetMotionModel:
    """Adds random motion modules to a UNet for images, as AnimateDiff adds trained ones.

    Args:
        unet: The UNet.
    """
    torch.manual_seed(0)
    config = unet.config
    adapter = MotionAdapter(
        block_out_channels=config.block_out_channels,
        motion_layers_per_block=config.layers_per_block,
        motion_num_attention_heads=4,
        motion_norm_num_groups=config.norm_num_groups,
    )
    return UNetMotionModel.from_unet2d(unet, adapter).eval()


def measure(pipe: Any, call: Mapping[str, Any]) -> list[str]:
    """Calibrates a pipeline at its own call and compares it with the identity.

    Args:
        pipe: The pipeline.
        call: Arguments of its call, apart from prompts and images.

    Returns:
        Number of UNet calls, the share of FLOPs saved, and the PSNR with either adaptor.
    """
    plain = generate(pipe, call)
    clockwork.enable(pipe, "clock2", cut=CUT)
    identity = generate(pipe, call)
    prompts = [prompt.text for prompt in scene_prompts("train", COUNT)]
    clockwork.calibrate(pipe, prompts, "clock2", CUT, **call, **images_of(pipe, "train"))
    calibrated, report = generate(pipe, call), summarise(pipe)
    saved = 1 - report.flops.full / report.flops_without.full
    ratios = [f"{PSNR().of_pairs(images, plain).mean():.1f}" for images in (identity, calibrated)]
    return [str(report.full_steps + report.adaptor_steps), f"{saved:.0%}", *ratios]


def generate(pipe: Any, call: Mapping[str, Any]) -> Tensor:
    """Generates the images of the test captions, or the frames of all videos, from 0 to 255.

    Args:
        pipe: The pipeline.
        call: Arguments of its call, apart from prompts and images.

    Returns:
        Images, `images × 3 × height × width`.
    """
    prompts = [prompt.text for prompt in scene_prompts("test", COUNT)]
    generator = torch.Generator().manual_seed(1)
    result = pipe(prompts, generator=generator, output_type="pt", **call, **images_of(pipe, "test"))
    images = result.frames.flatten(0, 1) if hasattr(result, "frames") else result.images
    return images.float() * 255


def images_of(pipe: Any, split: str) -> dict[str, Any]:
    """Returns the images that a pipeline's call wants: scenes with other captions than the prompts.

    Args:
        pipe: The pipeline.
        split: Split of the scenes.
    """
    if isinstance(pipe, (StableDiffusionPipeline, AnimateDiffPipeline)):
        return {}
    images = torch.stack([image.read() for image in scene_images(split, 2 * COUNT)[COUNT:]]).float() / 255
    if isinstance(pipe, StableDiffusionImg2ImgPipeline):
        return {"image": images}
    height, width = images.shape[-2:]
    mask = torch.zeros(COUNT, 1, height, width)
    mask[..., : width // 2] = 1
    return {"image": images, "mask_image": mask, "height": height, "width": width}


if __name__ == "__main__":
    print_table()
