"""`Teacher`: a frozen diffusers pipeline and what belongs to it."""

from collections.abc import Mapping, Sequence
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
from clockwork.io.fingerprint import digest, weights_hash
from clockwork.teachers.autoencoder import decode_latents, encode_images
from clockwork.teachers.saving import save_pipeline
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.teachers.text_encoding import encode_prompts, num_truncated, with_guidance_scale, with_zero_text
from clockwork.unet.conditioning import Condition
from clockwork.unet.modifications import refuse_uncalled

Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline


class Teacher:
    """A frozen text-to-image pipeline: text encoders, UNet, autoencoder and noise schedule.

    Args:
        name: Name of the teacher in rows and reports.
        pipe: The pipeline, with all parts on one device. They are set to eval mode, without gradients.
        guidance: Default scale of classifier-free guidance.
        resolution: Side of the images in pixels; the one that the UNet was trained for by default.
        text_embedder: The OpenCLIP model whose text embedding adaptors read, loaded when it is first needed.
        flow: Whether the UNet predicts the velocity of a rectified flow.
        compile: Whether roll-outs compile the UNet, or arguments of `torch.compile`.

    Raises:
        UserError: If the UNet is modified, or the resolution is not a multiple of the autoencoder's scale factor.
    """

    def __init__(
        self,
        name: str,
        pipe: Pipeline,
        guidance: float = 7.5,
        resolution: int | None = None,
        text_embedder: OpenCLIP | None = None,
        flow: bool = False,
        compile: bool | Mapping[str, Any] = False,
    ) -> None:
        refuse_uncalled(pipe.unet)
        self.name, self.pipe, self.guidance, self.flow = name, pipe, guidance, flow
        self.text_embedder, self.compile = text_embedder, compile
        self.resolution = resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
        if self.resolution % pipe.vae_scale_factor:
            raise UserError(f"resolution {self.resolution} is not a multiple of {pipe.vae_scale_factor}: change it")
        for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.components.get("text_encoder_2")):
            if part is not None:
                part.eval().requires_grad_(False)

    @property
    def unet(self) -> UNet2DConditionModel:
        """The UNet."""
        return self.pipe.unet

    @property
    def device(self) -> torch.device:
        """Device of the UNet, and of all other parts."""
        return self.unet.device

    @property
    def noise_schedule(self) -> Mapping[str, Any]:
        """Config of the pipeline's scheduler; its prediction type is "flow" for a rectified flow."""
        return {**self.pipe.scheduler.config, "prediction_type": "flow"} if self.flow else self.pipe.scheduler.config

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        side = self.resolution // self.pipe.vae_scale_factor
        return (self.unet.config.in_channels, side, side)

    @property
    def text_width(self) -> int:
        """Width of the text embedding that adaptors read; 0 without a text embedder."""
        return 0 if self.text_embedder is None else self.text_embedder.width

    @property
    def hub_name(self) -> str | None:
        """The pipeline's name on the hub, for model cards; None if it came from a folder."""
        source = str(self.pipe.name_or_path)
        return source if is_hub_name(source) else None

    @cached_property
    def hash(self) -> str:
        """Fingerprint of the UNet's weights, which identifies the teacher of an adaptor."""
        return weights_hash(self.unet)

    @property
    def precision(self) -> str:
        """The UNet's precision: "float32", "bfloat16" or "float16"."""
        return str(self.unet.dtype).removeprefix("torch.")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything about the teacher that changes an image: the precision, and the parts' fingerprints."""
        modules = {name: self.pipe.components.get(name) for name in ("text_encoder", "text_encoder_2", "vae")}
        schedule = {key: value for key, value in self.noise_schedule.items() if not key.startswith("_")}
        return {
            "unet": self.hash,
            **{name: weights_hash(module) for name, module in modules.items() if module is not None},
            "noise_schedule": digest(schedule),
            "precision": self.precision,
        }

    def num_truncated(self, captions: Sequence[str]) -> int:
        """Counts the captions that the text encoder truncates.

        Args:
            captions: The captions.

        Returns:
            How many captions have more tokens than the text encoder reads, start and end tokens included.
        """
        return num_truncated(self.pipe.tokenizer, captions)

    def encode(self, captions: list[str], with_text_emb: bool = True) -> Condition:
        """Encodes prompts.

        Args:
            captions: The prompts, one per example.
            with_text_emb: Whether to compute the text embedding for adaptors as well.

        Returns:
            The prompts' conditions, in the UNet's precision. `text_emb` is in float32, and None without
            `with_text_emb` or without a text embedder.
        """
        condition = encode_prompts(self.pipe, captions, self.resolution)
        if not with_text_emb or self.text_embedder is None:
            return condition
        return replace(condition, text_emb=self.text_embedder.to(self.device).encode_text(captions))

    def empty(self, with_text_emb: bool = True) -> Condition:
        """Encodes the empty prompt for classifier-free guidance.

        Args:
            with_text_emb: Whether to compute the text embedding for adaptors as well.

        Returns:
            The condition, batch 1. For pipelines with `force_zeros_for_empty_prompt` (SDXL), its features are zero.
        """
        condition = self.encode([""], with_text_emb)
        return with_zero_text(condition) if self.pipe.config.get("force_zeros_for_empty_prompt", False) else condition

    def conditions(
        self, captions: list[str], guidance: float | Tensor, with_text_emb: bool = True
    ) -> tuple[Condition, Condition | None]:
        """Encodes prompts for a roll-out.

        Args:
            captions: The prompts, one per example.
            guidance: One guidance scale, or one per caption.
            with_text_emb: Whether to compute the text embedding for adaptors as well.

        Returns:
            The prompts' conditions, and the empty prompt's, batch 1. The latter is None if guidance needs no second
            pass: up to scale 1, or for a UNet that is conditioned on the scale (Meng et al. 2023), whose embedding the
            prompts' conditions then contain.
        """
        condition = self.encode(captions, with_text_emb)
        if self.unet.config.time_cond_proj_dim:
            return with_guidance_scale(self.pipe, condition, guidance), None
        return condition, self.empty(with_text_emb) if self.unet_calls_per_step(guidance) == 2 else None

    def unet_calls_per_step(self, guidance: float | Tensor) -> int:
        """Returns the number of UNet passes per step.

        Args:
            guidance: One guidance scale, or one per prompt.

        Returns:
            Two with guidance, one without it or if the UNet is conditioned on the scale.
        """
        single = self.unet.config.time_cond_proj_dim or (not isinstance(guidance, Tensor) and guidance <= 1)
        return 1 if single else 2

    def decode(self, latents: Tensor) -> Tensor:
        """Decodes latents, a few at a time so that a batch of any size fits in memory.

        Args:
            latents: Latents, `batch × channels × height × width`.

        Returns:
            8-bit images on the CPU, `batch × 3 × resolution × resolution`.

        Raises:
            UserError: If the images have values that are not finite.
        """
        description = f"an image of teacher {self.name} in {self.precision}"
        return decode_latents(self.pipe.vae, latents, int(self.pipe.vae_scale_factor), description)

    def encode_images(self, images: Tensor) -> Tensor:
        """Encodes images, a few at a time so that a batch of any size fits in memory.

        Args:
            images: 8-bit images, `batch × 3 × height × width`.

        Returns:
            Latents in float32, `batch × channels × latent height × latent width`: the mean of the encoder's
            distribution.
        """
        return encode_images(self.pipe.vae, images)

    def noise(self, ids: list[int], seed: int = 0) -> Tensor:
        """Draws the initial noise of prompts. A prompt's noise depends neither on its batch nor on the device.

        Args:
            ids: Ids of the prompts.
            seed: Seed of the run.

        Returns:
            Standard normal noise in float32, `batch × channels × height × width`.
        """
        # torch's CPU generator reads only 32 bits of its seed, so the seed and the id are mixed into 32 bits.
        generators = [
            torch.Generator().manual_seed(int(np.random.SeedSequence((seed, i)).generate_state(1)[0])) for i in ids
        ]
        return torch.stack([torch.randn(self.latent_shape, generator=g) for g in generators]).to(self.device)

    def with_components(self, name: str, **parts: Any) -> "Teacher":
        """Returns a teacher with some parts of the pipeline replaced.

        Args:
            name: Name of the new teacher.
            parts: New components of the pipeline by name, such as `unet` or `scheduler`. All others are shared.
        """
        names = ("requires_safety_checker", "force_zeros_for_empty_prompt")
        options = {key: self.pipe.config[key] for key in names if key in self.pipe.config}
        pipe = type(self.pipe)(**{**self.pipe.components, **parts}, **options)
        pipe.set_progress_bar_config(disable=True)
        return Teacher(name, pipe, self.guidance, self.resolution, self.text_embedder, self.flow)

    def save(self, folder: Path) -> None:
        """Saves the pipeline in diffusers' format, so that `load_teacher` can load it.

        Args:
            folder: The folder.
        """
        save_pipeline(self.pipe, folder)
