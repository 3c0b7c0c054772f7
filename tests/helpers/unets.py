"""Small UNets of every class and kind of block that can be split, with inputs for them."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    I2VGenXLUNet,
    MotionAdapter,
    UNet2DConditionModel,
    UNet2DModel,
    UNet3DConditionModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)
from helpers.models import small_inputs
from helpers.shapes import CROSS, DOWN, UP, UP_CROSS
from torch import Tensor

DOWN_RESNET, UP_RESNET = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
ADDED_KV = {
    "down_block_types": (DOWN_RESNET, "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", UP_RESNET),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 4,
}
IMAGES: dict[str, Any] = {"addition_embed_type": "image", "encoder_hid_dim_type": "image_proj", "encoder_hid_dim": 10}
DEEPFLOYD: dict[str, Any] = {
    **ADDED_KV,
    "in_channels": 3,
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 2,
    "encoder_hid_dim": 12,
    "encoder_hid_dim_type": "text_proj",
    "act_fn": "gelu",
    "time_embedding_act_fn": "gelu",
    "cross_attention_norm": "group_norm",
    "cross_attention_dim": 32,
}
TEXT = {"down_block_types": (CROSS, DOWN), "up_block_types": (UP, UP_CROSS), "attention_head_dim": 2}


def noise(*sizes: int, seed: int = 1) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def conditional(**config: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    shape = {"block_out_channels": (8, 16), "norm_num_groups": 4, "cross_attention_dim": 12, "sample_size": 16}
    return UNet2DConditionModel(**{**shape, "layers_per_block": 1, **config}).eval().requires_grad_(False)


def unconditional(**config: Any) -> UNet2DModel:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4}
    blocks = {"down_block_types": (DOWN, "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", UP)}
    return UNet2DModel(**{**shape, **blocks, "layers_per_block": 1, "sample_size": 16, **config}).eval()


def inputs(channels: int = 4, text: bool = True, **more: Any) -> dict[str, Any]:
    given = small_inputs("sd15")
    given["sample"] = noise(2, channels, 16, 16)
    return {name: x for name, x in {**given, **more}.items() if text or name != "encoder_hidden_states"}


def boxes(images: bool) -> dict[str, Any]:
    """GLIGEN's grounding: three boxes, each with a phrase, and optionally an image."""
    given = {"boxes": noise(2, 3, 4).sigmoid(), "masks": torch.tensor([[1.0, 1, 0], [1, 0, 0]])}
    if not images:
        return {**given, "positive_embeddings": noise(2, 3, 12)}
    kinds = {"phrases_masks": given["masks"], "image_masks": given["masks"].flip(1)}
    embeddings = {"phrases_embeddings": noise(2, 3, 12), "image_embeddings": noise(2, 3, 12, seed=2)}
    return {**given, **kinds, **embeddings}


def gated(kind: str) -> tuple[Any, dict[str, Any]]:
    unet = conditional(**TEXT, attention_type=kind)
    for name, weight in unet.named_parameters():
        if "alpha_" in name:  # zero before training, which would switch the fusers off
            weight.fill_(0.7)
    return unet, inputs(cross_attention_kwargs={"gligen": boxes("image" in kind)})


def hinted() -> tuple[Any, dict[str, Any]]:
    """Kandinsky 2.2's ControlNet: a hint of eight times the latents' size becomes further channels of the sample."""
    unet = conditional(**ADDED_KV, **{**IMAGES, "addition_embed_type": "image_hint"}, in_channels=8)
    added = {"image_embeds": noise(2, 10), "hint": noise(2, 3, 128, 128)}
    return unet, inputs(encoder_hidden_states=None, added_cond_kwargs=added)


def randomised(unet: Any) -> Any:
    """With weights where training starts from zeros, so that the layers over the frames change something."""
    torch.manual_seed(1)
    for weight in unet.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.3)
    return unet.eval().requires_grad_(False)


def spatio_temporal() -> UNetSpatioTemporalConditionModel:
    """Stable Video Diffusion's; its norms have 32 groups."""
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    }
    shape: dict[str, Any] = {"block_out_channels": (32, 64), "layers_per_block": 1, "num_attention_heads": 2}
    times = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24}
    return randomised(UNetSpatioTemporalConditionModel(**blocks, **shape, **times, cross_attention_dim=12))


def with_motion(unet: UNet2DConditionModel, middle: bool = True) -> UNetMotionModel:
    """AnimateDiff's, around a UNet for images."""
    layers = {"block_out_channels": unet.config.block_out_channels, "motion_layers_per_block": 1}
    heads = {"motion_num_attention_heads": 2, "motion_norm_num_groups": 4, "use_motion_mid_block": middle}
    return randomised(UNetMotionModel.from_unet2d(unet, MotionAdapter(**layers, **heads)))


def with_3d_blocks(cls: Any, cross_attention_dim: int = 12) -> Any:
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    }
    shape: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "attention_head_dim": 4}
    return randomised(cls(**blocks, **shape, norm_num_groups=4, cross_attention_dim=cross_attention_dim))


def video(frames_first: bool = False, channels: int = 4, **more: Any) -> dict[str, Any]:
    """Two videos of three frames."""
    axes = (2, 3, channels) if frames_first else (2, channels, 3)
    return {**inputs(), "sample": noise(*axes, 16, 16), **more}


CLASSES = torch.tensor([1, 3])
UNETS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "DDPM": lambda: (unconditional(), inputs(3, text=False)),
    "class-conditional, resnets that resample": lambda: (
        unconditional(
            down_block_types=(DOWN_RESNET, "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", UP_RESNET),
            block_out_channels=(8, 16, 24),
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            num_class_embeds=5,
        ),
        inputs(3, text=False, class_labels=CLASSES),
    ),
    "classes as timesteps": lambda: (
        unconditional(class_embed_type="timestep", center_input_sample=True),
        inputs(3, text=False, class_labels=CLASSES),
    ),
    "score": lambda: (unconditional(time_embedding_type="fourier"), inputs(3, text=False, timestep=torch.tensor(3.5))),
    "learned timesteps": lambda: (
        unconditional(time_embedding_type="learned", num_train_timesteps=1000),
        inputs(3, text=False),
    ),
    "LDM, without a middle block": lambda: (unconditional(mid_block_type=None), inputs(3, text=False, timestep=7)),
    "SD with classes (upscaler)": lambda: (
        conditional(**TEXT, in_channels=7, num_class_embeds=5),
        inputs(7, class_labels=CLASSES),
    ),
    "SD without text in the middle": lambda: (conditional(**TEXT, mid_block_type="UNetMidBlock2D"), inputs()),
    "Kandinsky 2.1": lambda: (
        conditional(
            **ADDED_KV,
            addition_embed_type="text_image",
            encoder_hid_dim_type="text_image_proj",
            encoder_hid_dim=12,
        ),
        inputs(added_cond_kwargs={"image_embeds": noise(2, 12), "text_embeds": noise(2, 12, seed=2)}),
    ),
    "Kandinsky 2.2": lambda: (
        conditional(**ADDED_KV, **IMAGES),
        inputs(encoder_hidden_states=None, added_cond_kwargs={"image_embeds": noise(2, 10)}),
    ),
    "Kandinsky 2.2 ControlNet": hinted,
    "DeepFloyd IF": lambda: (
        conditional(**DEEPFLOYD),
        inputs(3, encoder_attention_mask=torch.tensor([[1.0, 1, 1, 0, 0, 0, 0], [1.0, 1, 1, 1, 1, 1, 0]])),
    ),
    "DeepFloyd IF super-resolution": lambda: (
        conditional(**DEEPFLOYD | {"in_channels": 6}, class_embed_type="timestep", only_cross_attention=True),
        inputs(6, class_labels=torch.tensor([250, 250])),
    ),
    "GLIGEN": lambda: gated("gated"),
    "GLIGEN with images": lambda: gated("gated-text-image"),
    "SD inpainting": lambda: (conditional(**TEXT, in_channels=9), inputs(9)),
    "Stable Video Diffusion": lambda: (
        spatio_temporal(),
        video(True, 8, encoder_hidden_states=noise(2, 1, 12), added_time_ids=torch.tensor([[6.0, 127, 0.02]] * 2)),
    ),
    "AnimateDiff": lambda: (
        with_motion(conditional(**TEXT)),
        video(encoder_hidden_states=noise(6, 7, 12), cross_attention_kwargs={}),
    ),
    "AnimateDiff of SDXL, without a middle motion module": lambda: (
        with_motion(
            conditional(
                **TEXT,
                addition_embed_type="text_time",
                addition_time_embed_dim=4,
                projection_class_embeddings_input_dim=6 * 4 + 12,
            ),
            middle=False,
        ),
        video(
            encoder_hidden_states=noise(6, 7, 12),
            added_cond_kwargs={"text_embeds": noise(2, 12), "time_ids": noise(2, 6)},
        ),
    ),
    "text to video": lambda: (with_3d_blocks(UNet3DConditionModel), video()),
    "I2VGen-XL": lambda: (
        with_3d_blocks(I2VGenXLUNet),
        video(
            fps=torch.tensor([16, 8]),
            image_latents=noise(2, 4, 3, 16, 16, seed=3),
            image_embeddings=noise(2, 12, seed=4),
        ),
    ),
}
