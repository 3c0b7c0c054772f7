"""Published UNets of every class that can be split, with the size of a call, to count FLOPs without weights.

The configurations are those of the published models; a test compares their numbers of parameters with the printed ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    I2VGenXLUNet,
    ModelMixin,
    UNet2DConditionModel,
    UNet2DModel,
    UNet3DConditionModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)

from clockwork.adaptors import Identity
from clockwork.flops.cost import PartFlops, part_flops, rollout_flops
from clockwork.flops.counter import Flops
from clockwork.schedule import Schedule
from clockwork.teachers.architectures import architecture
from clockwork.unet.chain import Cut
from clockwork.unet.split import SplitUNet

_DOWN, _UP, _ATTENTION_DOWN, _ATTENTION_UP = "DownBlock2D", "UpBlock2D", "AttnDownBlock2D", "AttnUpBlock2D"
_DDPM: dict[str, Any] = {"attention_head_dim": None}
_RESNETS: dict[str, Any] = {"layers_per_block": 3, "attention_head_dim": 64, "resnet_time_scale_shift": "scale_shift"}
_ADDED_KV: dict[str, Any] = {
    **_RESNETS,
    "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
    "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
}


@dataclass(frozen=True)
class PublishedUNet:
    """A published UNet, and the size of a call at batch 1.

    Attributes:
        size: What the model generates, in words.
        sample: Shape of the sample.
        cls: Class of the UNet.
        config: Arguments of the class.
        text: Shape of the text or image features, `batch × tokens × width`; None if there are none.
        inputs: Shapes of further arguments of `forward`, by name; lists and dictionaries of shapes are nested.
        parameters: Published number of parameters in millions.
    """

    size: str
    sample: tuple[int, ...]
    cls: type[ModelMixin]
    config: Mapping[str, Any]
    parameters: float
    text: tuple[int, ...] | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def unet(self) -> ModelMixin:
        """Creates the UNet on the `meta` device, without weights."""
        with torch.device("meta"):
            unet = self.cls(**self.config)
        return unet.to("meta").eval().requires_grad_(False)  # some parameters are created on the CPU all the same

    def call(self) -> dict[str, Any]:
        """Creates the arguments of a call on the `meta` device."""
        values = {"sample": self.sample, **self.inputs}
        if self.text is not None:
            values["encoder_hidden_states"] = self.text
        call = {name: _empty(value) for name, value in values.items()}
        if "class_labels" in call:
            call["class_labels"] = call["class_labels"].long()
        if self.cls is UNet2DConditionModel:
            call = {"encoder_hidden_states": None, **call}
        return {**call, "timestep": torch.tensor(1, device="meta")}

    def parts(self) -> PartFlops:
        """Counts the parts of a pass at the cut of `clockwork.enable`'s identity adaptor."""
        split = SplitUNet(self.unet())
        cut: Cut = split.cut.cheapest_for_identity(split.chain)
        return part_flops(SplitUNet(split.unet, cut), self.call())


def _empty(value: Any) -> Any:
    """Creates empty tensors of the shapes in nested dictionaries."""
    if isinstance(value, Mapping):
        return {name: _empty(item) for name, item in value.items()}
    return torch.empty(value, device="meta")


def rollouts(parts: PartFlops, schedule: str, steps: int) -> tuple[Flops, Flops]:
    """Computes the FLOPs of a roll-out with the identity adaptor, and of one without.

    Args:
        parts: The UNet's parts.
        schedule: The schedule.
        steps: Number of UNet calls.

    Returns:
        Both, of one branch of guidance.
    """
    full, adaptor = parts.full_pass, parts.adaptor_pass(Identity())
    with_clockwork = rollout_flops(full, adaptor, Schedule.parse(schedule), steps, guided=False)
    return with_clockwork, full * steps


_XL = {"added_cond_kwargs": {"text_embeds": (1, 1280), "time_ids": (1, 6)}}
_BOXES = {"boxes": (1, 30, 4), "positive_embeddings": (1, 30, 768), "masks": (1, 30)}

PUBLISHED_UNETS: dict[str, PublishedUNet] = {
    "SD v1.5": PublishedUNet("512²", (1, 4, 64, 64), UNet2DConditionModel, architecture("sd15"), 859.5, (1, 77, 768)),
    "SD v1.5, inpainting": PublishedUNet(
        "512²", (1, 9, 64, 64), UNet2DConditionModel, {**architecture("sd15"), "in_channels": 9}, 859.5, (1, 77, 768)
    ),
    "GLIGEN": PublishedUNet(
        "512², 30 boxes",
        (1, 4, 64, 64),
        UNet2DConditionModel,
        {**architecture("sd15"), "attention_type": "gated"},
        1068.6,
        (1, 77, 768),
        {"cross_attention_kwargs": {"gligen": _BOXES}},
    ),
    "SD v2.1": PublishedUNet("768²", (1, 4, 96, 96), UNet2DConditionModel, architecture("sd21"), 865.9, (1, 77, 1024)),
    "SDXL": PublishedUNet(
        "1024²", (1, 4, 128, 128), UNet2DConditionModel, architecture("sdxl"), 2567.5, (1, 77, 2048), _XL
    ),
    "Kandinsky 2.2": PublishedUNet(
        "512²",
        (1, 4, 64, 64),
        UNet2DConditionModel,
        {
            **_ADDED_KV,
            "block_out_channels": (384, 768, 1152, 1536),
            "cross_attention_dim": 768,
            "addition_embed_type": "image",
            "encoder_hid_dim": 1280,
            "encoder_hid_dim_type": "image_proj",
            "out_channels": 8,
        },
        1253.1,
        inputs={"added_cond_kwargs": {"image_embeds": (1, 1280)}},
    ),
    "DeepFloyd IF-I-XL": PublishedUNet(
        "64² pixels",
        (1, 3, 64, 64),
        UNet2DConditionModel,
        {
            **_ADDED_KV,
            "block_out_channels": (704, 1408, 2112, 2816),
            "cross_attention_dim": 2816,
            "cross_attention_norm": "group_norm",
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 64,
            "encoder_hid_dim": 4096,
            "encoder_hid_dim_type": "text_proj",
            "act_fn": "gelu",
            "time_embedding_act_fn": "gelu",
            "in_channels": 3,
            "out_channels": 6,
        },
        4304.7,
        (1, 77, 4096),
    ),
    "DDPM, CelebA-HQ": PublishedUNet(
        "256² pixels",
        (1, 3, 256, 256),
        UNet2DModel,
        {
            **_DDPM,
            "block_out_channels": (128, 128, 256, 256, 512, 512),
            "down_block_types": (*(_DOWN,) * 4, _ATTENTION_DOWN, _DOWN),
            "up_block_types": (_UP, _ATTENTION_UP, *(_UP,) * 4),
        },
        113.7,
    ),
    "DDPM, CIFAR-10": PublishedUNet(
        "32² pixels",
        (1, 3, 32, 32),
        UNet2DModel,
        {
            **_DDPM,
            "block_out_channels": (128, 256, 256, 256),
            "down_block_types": (_DOWN, _ATTENTION_DOWN, _DOWN, _DOWN),
            "up_block_types": (_UP, _UP, _ATTENTION_UP, _UP),
        },
        35.7,
    ),
    "LDM, CelebA-HQ": PublishedUNet("256²", (1, 3, 64, 64), UNet2DModel, {"attention_head_dim": 32}, 274.1),
    "consistency model, ImageNet": PublishedUNet(
        "64² pixels",
        (1, 3, 64, 64),
        UNet2DModel,
        {
            **_RESNETS,
            "num_class_embeds": 1000,
            "block_out_channels": (192, 384, 576, 768),
            "down_block_types": ("ResnetDownsampleBlock2D", *(_ATTENTION_DOWN,) * 3),
            "up_block_types": (*(_ATTENTION_UP,) * 3, "ResnetUpsampleBlock2D"),
            "downsample_type": "resnet",
            "upsample_type": "resnet",
        },
        295.9,
        inputs={"class_labels": (1,)},
    ),
    "Stable Video Diffusion XT": PublishedUNet(
        "25 frames of 576 × 1024",
        (1, 25, 8, 72, 128),
        UNetSpatioTemporalConditionModel,
        {},
        1524.6,
        (1, 1, 1024),
        {"added_time_ids": (1, 3)},
    ),
    "AnimateDiff on SD v1.5": PublishedUNet(
        "16 frames of 512²",
        (1, 4, 16, 64, 64),
        UNetMotionModel,
        {"cross_attention_dim": 768},
        1312.7,
        (16, 77, 768),
    ),
    "ModelScope text to video": PublishedUNet(
        "16 frames of 256²", (1, 4, 16, 32, 32), UNet3DConditionModel, {}, 1411.2, (1, 77, 1024)
    ),
    "I2VGen-XL": PublishedUNet(
        "16 frames of 704 × 1280",
        (1, 4, 16, 88, 160),
        I2VGenXLUNet,
        {},
        1420.5,
        (1, 77, 1024),
        {"fps": (1,), "image_latents": (1, 4, 16, 88, 160), "image_embeddings": (1, 1024)},
    ),
}
