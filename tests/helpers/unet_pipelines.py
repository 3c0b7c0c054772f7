"""Small random pipelines of other UNets than Stable Diffusion's, and the arguments of their calls."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import diffusers
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    ConsistencyModelPipeline,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    IFPipeline,
    IFSuperResolutionPipeline,
    KandinskyV22ControlnetPipeline,
    KandinskyV22Img2ImgPipeline,
    KandinskyV22Pipeline,
    StableDiffusionInpaintPipeline,
    VQModel,
)
from helpers.pipelines import PROMPT, make, picture
from helpers.unets import ADDED_KV, DEEPFLOYD, DOWN_RESNET, IMAGES, TEXT, UP_RESNET, conditional, noise, unconditional
from torch import Tensor

Made = tuple[Any, dict[str, Any]]


def movq() -> VQModel:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    widths = {"block_out_channels": (32, 32), "latent_channels": 4, "vq_embed_dim": 4}
    return VQModel(**blocks, **widths, num_vq_embeddings=8, norm_type="spatial").eval().requires_grad_(False)


def kandinsky(cls: Any, **config: Any) -> Made:
    unet = conditional(**ADDED_KV, **{**IMAGES, **config}, out_channels=8)  # noise and its variance
    arguments: dict[str, Any] = {"image_embeds": noise(1, 10), "negative_image_embeds": noise(1, 10, seed=2)}
    return cls(unet=unet, scheduler=DDPMScheduler(), movq=movq()), {**arguments, "height": 32, "width": 32}


def kandinsky_with_hint() -> Made:
    pipe, arguments = kandinsky(KandinskyV22ControlnetPipeline, addition_embed_type="image_hint", in_channels=8)
    pipe.unet.register_to_config(in_channels=4)  # the pipeline's noise; the hint has the other four
    return pipe, {**arguments, "hint": picture(1, 128), "output_type": "pt"}


def deepfloyd(cls: Any, **config: Any) -> Made:
    unet = conditional(**{**DEEPFLOYD, "out_channels": 6, **config})
    parts = {"tokenizer": None, "text_encoder": None, "safety_checker": None, "feature_extractor": None}
    solvers = {"scheduler": DDPMScheduler(variance_type="learned_range")}
    if "SuperResolution" in cls.__name__:
        solvers["image_noising_scheduler"] = DDPMScheduler()
    pipe = cls(unet=unet, **parts, **solvers, watermarker=None, requires_safety_checker=False)
    text = {"prompt_embeds": noise(1, 7, 12), "negative_prompt_embeds": noise(1, 7, 12, seed=2)}
    return pipe, {**text, "output_type": "pt", "height": 16, "width": 16}


def consistency() -> Made:
    unet = unconditional(
        down_block_types=(DOWN_RESNET, "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", UP_RESNET),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=5,
    )
    arguments = {"class_labels": [1, 3], "batch_size": 2, "output_type": "pt"}
    return ConsistencyModelPipeline(unet=unet, scheduler=CMStochasticIterativeScheduler()), arguments


def unconditional_ldm() -> Made:
    unet = unconditional(in_channels=4, out_channels=4, sample_size=8)
    pipe = diffusers.LDMPipeline(vqvae=movq(), unet=unet, scheduler=DDIMScheduler())
    return pipe, {"batch_size": 1, "output_type": "np"}


def with_unet(cls: Any, unet: Any, **arguments: Any) -> Made:
    """A Stable Diffusion pipeline of another class around a UNet."""
    pipe, _ = make()
    components = {name: part for name, part in pipe.components.items() if name in signature(cls).parameters}
    parts = {"unet": unet, "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    parts = {name: part for name, part in parts.items() if name in signature(cls).parameters}
    return cls(**{**components, **parts}), {"prompt": PROMPT, "output_type": "latent", **arguments}


def inpainting() -> Made:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    unet = conditional(**TEXT, in_channels=9, cross_attention_dim=16)
    image = {"image": picture(3), "mask_image": mask, "height": 32, "width": 32}
    return with_unet(StableDiffusionInpaintPipeline, unet, **image)


def grounded(cls: Any, kind: str) -> Made:
    unet = conditional(**TEXT, attention_type=kind, cross_attention_dim=16)
    for name, weight in unet.named_parameters():
        if "alpha_" in name:
            weight.fill_(0.7)
    boxes = {"gligen_phrases": ["a circle"], "gligen_boxes": [[0.1, 0.1, 0.6, 0.8]]}
    pipe, arguments = with_unet(cls, unet, height=32, width=32, **boxes)
    return pipe, {**arguments, "gligen_scheduled_sampling_beta": 0.6}  # the fusers are switched off on the way


PIPELINES: dict[str, Callable[[], Made]] = {
    "DDPMPipeline": lambda: (DDPMPipeline(unconditional(), DDPMScheduler()), {"batch_size": 2, "output_type": "np"}),
    "DDIMPipeline": lambda: (DDIMPipeline(unconditional(), DDIMScheduler()), {"batch_size": 2, "output_type": "np"}),
    "LDMPipeline": unconditional_ldm,
    "ConsistencyModelPipeline": consistency,
    "KandinskyV22Pipeline": lambda: kandinsky(KandinskyV22Pipeline),
    "KandinskyV22Img2ImgPipeline": lambda: with_image(kandinsky(KandinskyV22Img2ImgPipeline)),
    "KandinskyV22ControlnetPipeline": kandinsky_with_hint,
    "IFPipeline": lambda: deepfloyd(IFPipeline),
    "IFSuperResolutionPipeline": lambda: with_image(
        deepfloyd(IFSuperResolutionPipeline, in_channels=6, class_embed_type="timestep")
    ),
    "StableDiffusionInpaintPipeline, 9 channels": inpainting,
    "StableDiffusionGLIGENPipeline": lambda: grounded(diffusers.StableDiffusionGLIGENPipeline, "gated"),
}


def with_image(made: Made) -> Made:
    pipe, arguments = made
    if isinstance(pipe, KandinskyV22Img2ImgPipeline):
        return pipe, {**arguments, "image": picture(4), "strength": 0.8}
    return pipe, {**arguments, "image": picture(4, 16)}


def output(made: Made, steps: int = 4, seed: int = 0, **more: Any) -> Tensor:
    """What the pipeline generates."""
    pipe, arguments = made
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(0)  # I2VGen-XL encodes its image with noise from elsewhere
    generator = torch.Generator().manual_seed(seed)
    call = {"num_inference_steps": steps, "generator": generator, "output_type": "latent", **arguments, **more}
    result = pipe(**call)
    return torch.as_tensor(result.frames if hasattr(result, "frames") else result.images)
