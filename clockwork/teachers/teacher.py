"""The teacher, around a diffusers pipeline that holds its parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from clockwork.openclip import OpenCLIP
from clockwork.weights import weights_hash


@dataclass(frozen=True)
class Condition:
    """What a batch of prompts is turned into."""

    tokens: Tensor  # batch × tokens × width, for the UNet's cross-attention
    pooled: Tensor | None = None  # batch × width, OpenCLIP's, for adaptors that read text
    unet: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the UNet's forward

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def join(first: "Condition", second: "Condition") -> "Condition":
        """One batch of two: negative then positive, as guidance wants them."""
        pooled = None
        if first.pooled is not None and second.pooled is not None:
            pooled = torch.cat([first.pooled, second.pooled])
        return Condition(torch.cat([first.tokens, second.tokens]), pooled, second.unet)


class Teacher:
    """Frozen, in eval mode.

    `guidance` and `resolution` (pixels a side) are where it is at its best; `pooled` is the OpenCLIP model whose
    text embedding adaptors get, loaded when first needed.
    """

    def __init__(
        self,
        name: str,
        pipe: StableDiffusionPipeline,
        guidance: float = 7.5,
        resolution: int | None = None,
        pooled: OpenCLIP | None = None,
    ) -> None:
        self.name, self.pipe, self.guidance, self.pooled = name, pipe, guidance, pooled
        self.resolution = resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
        if self.resolution % pipe.vae_scale_factor:
            raise ValueError(
                f"resolution {self.resolution} is no multiple of {pipe.vae_scale_factor}: choose one that is"
            )
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.eval().requires_grad_(False)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.pipe.unet

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def noise_schedule(self) -> Mapping[str, Any]:
        return self.pipe.scheduler.config

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.resolution // self.pipe.vae_scale_factor
        return (self.unet.config.in_channels, side, side)

    @property
    def text_width(self) -> int:
        """Width of the pooled text that adaptors read; 0 without such a model."""
        return 0 if self.pooled is None else self.pooled.encode_text([""]).shape[-1]

    @cached_property
    def hash(self) -> str:
        """Of the UNet's weights: what an adaptor belongs to."""
        return weights_hash(self.unet)

    @torch.no_grad()
    def encode(self, captions: list[str], pooled: bool = True) -> Condition:
        """`pooled`: whether the adaptor's text embedding is wanted too."""
        tokens, _ = self.pipe.encode_prompt(captions, self.device, 1, do_classifier_free_guidance=False)
        text = None
        if pooled and self.pooled is not None:
            self.pooled.device = self.device
            text = self.pooled.encode_text(captions).to(tokens.dtype)
        return Condition(tokens, text)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """8-bit images `batch × 3 × height × width`, on the CPU."""
        images = self.pipe.vae.decode(latents / self.pipe.vae.config.scaling_factor).sample
        return ((images / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8)

    @torch.no_grad()
    def to_latents(self, images: Tensor) -> Tensor:
        """The latents, `batch × channels × height × width`, of 8-bit images `batch × 3 × height × width`."""
        pixels = images.to(self.device, self.pipe.vae.dtype) / 127.5 - 1
        return self.pipe.vae.encode(pixels).latent_dist.mode() * self.pipe.vae.config.scaling_factor

    def noise(self, ids: list[int], seed: int = 0) -> Tensor:
        """Starting noise, one seed a prompt: the same in any batch, on any device."""
        # torch's CPU generator reads 32 bits of its seed: both numbers are mixed into them
        numbers = [
            torch.Generator().manual_seed(int(np.random.SeedSequence((seed, i)).generate_state(1)[0])) for i in ids
        ]
        return torch.stack([torch.randn(self.latent_shape, generator=g) for g in numbers]).to(
            self.device, self.unet.dtype
        )
