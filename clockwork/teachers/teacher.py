"""The teacher, around a diffusers pipeline that holds its parts."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from clockwork.adaptors import is_hub_name
from clockwork.errors import UserError
from clockwork.io.atomic import whole
from clockwork.io.fingerprint import weights_hash
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.unet.conditioning import Condition

Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline


class Teacher:
    """Frozen, in eval mode.

    `guidance` and `resolution` (pixels a side) are where it is at its best; `pooled` is the OpenCLIP model whose
    text embedding adaptors get, loaded when first needed.
    """

    def __init__(
        self,
        name: str,
        pipe: Pipeline,
        guidance: float = 7.5,
        resolution: int | None = None,
        pooled: OpenCLIP | None = None,
        flow: bool = False,
    ) -> None:
        self.name, self.pipe, self.guidance, self.pooled, self.flow = name, pipe, guidance, pooled, flow
        self.resolution = resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
        if self.resolution % pipe.vae_scale_factor:
            raise UserError(
                f"resolution {self.resolution} is no multiple of {pipe.vae_scale_factor}: choose one that is"
            )
        for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.components.get("text_encoder_2")):
            if part is not None:
                part.eval().requires_grad_(False)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.pipe.unet

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def noise_schedule(self) -> Mapping[str, Any]:
        """The config of its scheduler; a rectified flow, which no scheduler's config tells of, is marked here."""
        return {**self.pipe.scheduler.config, "prediction_type": "flow"} if self.flow else self.pipe.scheduler.config

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.resolution // self.pipe.vae_scale_factor
        return (self.unet.config.in_channels, side, side)

    @property
    def text_width(self) -> int:
        """Width of the pooled text that adaptors read; 0 without such a model."""
        return 0 if self.pooled is None else self.pooled.encode_text([""]).shape[-1]

    @property
    def hub_name(self) -> str | None:
        """Where it came from the hub: what a model card calls its base model."""
        source = str(self.pipe.name_or_path)
        return source if is_hub_name(source) else None

    @cached_property
    def hash(self) -> str:
        """Of the UNet's weights: what an adaptor belongs to."""
        return weights_hash(self.unet)

    @torch.no_grad()
    def encode(self, captions: list[str], pooled: bool = True) -> Condition:
        """`pooled`: whether the adaptor's text embedding is wanted too."""
        tokens, _, *pooled_text = self.pipe.encode_prompt(
            captions, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        dtype, added = self.unet.dtype, {}
        if pooled_text:  # SDXL: the second encoder's pooled text, and sizes: original, top left corner, target
            size = self.resolution
            sizes = torch.tensor([[size, size, 0, 0, size, size]], device=self.device, dtype=dtype)
            texts = pooled_text[0].to(dtype)
            added = {"added_cond_kwargs": {"text_embeds": texts, "time_ids": sizes.expand(len(captions), -1)}}
        text = None
        if pooled and self.pooled is not None:
            self.pooled.device = self.device
            text = self.pooled.encode_text(captions).to(dtype)
        return Condition(tokens.to(dtype), text, added)

    def empty(self, pooled: bool = True) -> Condition:
        """No prompt, batch 1: guidance's other half. Zeros where the pipeline is trained so (SDXL)."""
        empty = self.encode([""], pooled)
        if not self.pipe.config.get("force_zeros_for_empty_prompt", False):
            return empty
        added = empty.unet["added_cond_kwargs"]
        none = {**added, "text_embeds": torch.zeros_like(added["text_embeds"])}
        return replace(empty, tokens=torch.zeros_like(empty.tokens), unet={"added_cond_kwargs": none})

    def conditions(
        self, captions: list[str], guidance: float | Tensor, pooled: bool = True
    ) -> tuple[Condition, Condition | None]:
        """What a roll-out with guidance is given: the prompts', and what the second pass gets where there is one.

        A UNet conditioned on the scale (Meng et al.) is told it, one number or one a caption, and needs no second.
        """
        condition = self.encode(captions, pooled)
        if width := self.unet.config.time_cond_proj_dim:
            scale = torch.as_tensor(guidance, dtype=torch.float32).cpu().expand(len(captions))
            embedding = self.pipe.get_guidance_scale_embedding(scale - 1, width).to(self.device, self.unet.dtype)
            return replace(condition, unet={**condition.unet, "timestep_cond": embedding}), None
        return condition, self.empty(pooled) if self.passes(guidance) == 2 else None

    def passes(self, guidance: float | Tensor) -> int:
        """UNet passes a step: guidance takes two, unless the UNet is conditioned on its scale."""
        one = self.unet.config.time_cond_proj_dim or (not isinstance(guidance, Tensor) and guidance == 1)
        return 1 if one else 2

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """8-bit images `batch × 3 × height × width`, on the CPU."""
        vae = self.pipe.vae
        images = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
        return ((images / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Latents of 8-bit images `batch × 3 × height × width`: the mean of what the encoder says."""
        vae = self.pipe.vae
        pixels = images.to(self.device, vae.dtype) / 127.5 - 1
        return (vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor).to(self.unet.dtype)

    def noise(self, ids: list[int], seed: int = 0) -> Tensor:
        """Starting noise, one seed a prompt: the same in any batch, on any device."""
        # torch's CPU generator reads 32 bits of its seed: both numbers are mixed into them
        numbers = [
            torch.Generator().manual_seed(int(np.random.SeedSequence((seed, i)).generate_state(1)[0])) for i in ids
        ]
        return torch.stack([torch.randn(self.latent_shape, generator=g) for g in numbers]).to(
            self.device, self.unet.dtype
        )

    def having(self, name: str, **parts: Any) -> "Teacher":
        """The same teacher with another `unet` or `scheduler`; the other parts are shared."""
        options = ("requires_safety_checker", "force_zeros_for_empty_prompt")
        kept = {key: self.pipe.config[key] for key in options if key in self.pipe.config}
        pipe = type(self.pipe)(**{**self.pipe.components, **parts}, **kept)
        pipe.set_progress_bar_config(disable=True)
        return Teacher(name, pipe, self.guidance, self.resolution, self.pooled, self.flow)

    def save(self, folder: Path) -> None:
        """A pipeline folder in diffusers' format, whole or not at all: what `teacher.path=` takes."""
        with whole(folder) as partial:
            self.pipe.save_pretrained(partial)
            # What the scheduler's config left open stays open, so that every solver goes on filling it in by itself:
            # diffusers writes PNDM's default spacing of timesteps down, and DPM++ would follow it.
            file = partial / "scheduler" / "scheduler_config.json"
            left_open = self.pipe.scheduler.config.get("_use_default_values", [])
            said = {key: value for key, value in json.loads(file.read_text()).items() if key not in left_open}
            file.write_text(json.dumps(said, indent=2) + "\n")
