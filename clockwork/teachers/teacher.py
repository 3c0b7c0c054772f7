"""The teacher: the parts of a diffusers pipeline, frozen."""

import json
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
from clockwork.io.atomic import atomic_folder
from clockwork.io.fingerprint import digest, weights_hash
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.unet.conditioning import Condition

Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline


class Teacher:
    """A frozen pipeline's parts, in eval mode.

    Args:
        name: What rows call it.
        pipe: Text encoders, UNet, autoencoder and noise schedule, on one device.
        guidance: The guidance scale where it is at its best.
        resolution: Pixels per side where it is at its best; the model's own by default.
        text_embedder: The OpenCLIP model whose text embedding adaptors read, loaded when it is first needed.
        flow: Whether the UNet predicts the velocity of a rectified flow.
    """

    def __init__(
        self,
        name: str,
        pipe: Pipeline,
        guidance: float = 7.5,
        resolution: int | None = None,
        text_embedder: OpenCLIP | None = None,
        flow: bool = False,
    ) -> None:
        self.name, self.pipe, self.guidance, self.flow = name, pipe, guidance, flow
        self.text_embedder = text_embedder
        self.resolution = resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
        if self.resolution % pipe.vae_scale_factor:
            raise UserError(
                f"resolution {self.resolution} is not a multiple of {pipe.vae_scale_factor}: choose one that is"
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
        """The config of the pipeline's scheduler; for a rectified flow with prediction type "flow"."""
        return {**self.pipe.scheduler.config, "prediction_type": "flow"} if self.flow else self.pipe.scheduler.config

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one latent."""
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
        """Fingerprint of the UNet's weights, by which an adaptor knows its teacher."""
        return weights_hash(self.unet)

    @property
    def precision(self) -> str:
        """The UNet's precision: "float32", "bfloat16" or "float16"."""
        return str(self.unet.dtype).removeprefix("torch.")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything about the teacher that changes an image, as plain data: fingerprints of the UNet, the text
        encoders and the autoencoder, the noise schedule, and the precision."""
        parts = ("text_encoder", "text_encoder_2", "vae")
        modules = {name: self.pipe.components.get(name) for name in parts}
        schedule = {key: value for key, value in self.noise_schedule.items() if not key.startswith("_")}
        return {
            "unet": self.hash,
            **{name: weights_hash(module) for name, module in modules.items() if module is not None},
            "noise_schedule": digest(schedule),
            "precision": self.precision,
        }

    def num_truncated(self, captions: Sequence[str]) -> int:
        """How many captions have more tokens than the text encoder reads, with its start and end tokens."""
        if not captions:
            return 0
        ids = self.pipe.tokenizer(list(captions), padding=False, truncation=False, verbose=False)["input_ids"]
        return sum(len(row) > self.pipe.tokenizer.model_max_length for row in ids)

    @torch.no_grad()
    def encode(self, captions: list[str], with_text_emb: bool = True) -> Condition:
        """Encodes prompts.

        Args:
            captions: One text per example.
            with_text_emb: Whether to compute the adaptors' text embedding, too.

        Returns:
            Conditions in the UNet's precision; the adaptors' text embedding in float32.
        """
        prompt_embeds, _, *pooled = self.pipe.encode_prompt(
            captions, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        dtype, added = self.unet.dtype, {}
        if pooled:  # SDXL: the second encoder's pooled text, and sizes: original, top left corner, target
            size = self.resolution
            sizes = torch.tensor([[size, size, 0, 0, size, size]], device=self.device, dtype=dtype)
            texts = pooled[0].to(dtype)
            added = {"added_cond_kwargs": {"text_embeds": texts, "time_ids": sizes.expand(len(captions), -1)}}
        text_emb = None
        if with_text_emb and self.text_embedder is not None:
            text_emb = self.text_embedder.to(self.device).encode_text(captions)
        return Condition(prompt_embeds.to(dtype), text_emb, added)

    def empty(self, with_text_emb: bool = True) -> Condition:
        """Encodes the empty prompt, batch 1; zeros for pipelines that were trained with them (SDXL)."""
        empty = self.encode([""], with_text_emb)
        if not self.pipe.config.get("force_zeros_for_empty_prompt", False):
            return empty
        added = empty.unet_kwargs["added_cond_kwargs"]
        zeros = {"added_cond_kwargs": {**added, "text_embeds": torch.zeros_like(added["text_embeds"])}}
        return replace(empty, prompt_embeds=torch.zeros_like(empty.prompt_embeds), unet_kwargs=zeros)

    def conditions(
        self, captions: list[str], guidance: float | Tensor, with_text_emb: bool = True
    ) -> tuple[Condition, Condition | None]:
        """Encodes prompts for a roll-out.

        Args:
            captions: One text per example.
            guidance: One scale, or one per caption.
            with_text_emb: Whether to compute the adaptors' text embedding, too.

        Returns:
            The prompts' conditions, and those of the empty prompt, batch 1, where guidance needs a second pass. A UNet
            that is conditioned on the guidance scale (Meng et al.) gets its embedding and needs none.
        """
        condition = self.encode(captions, with_text_emb)
        if width := self.unet.config.time_cond_proj_dim:
            scale = torch.as_tensor(guidance, dtype=torch.float32, device=self.device).expand(len(captions))
            with self.device:  # where diffusers' frequencies are made, too
                embedding = self.pipe.get_guidance_scale_embedding(scale - 1, width).to(self.unet.dtype)
            return replace(condition, unet_kwargs={**condition.unet_kwargs, "timestep_cond": embedding}), None
        return condition, self.empty(with_text_emb) if self.unet_calls_per_step(guidance) == 2 else None

    def unet_calls_per_step(self, guidance: float | Tensor) -> int:
        """The number of UNet passes per step: two with guidance, unless the UNet is conditioned on the scale."""
        one = self.unet.config.time_cond_proj_dim or (not isinstance(guidance, Tensor) and guidance == 1)
        return 1 if one else 2

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents.

        Args:
            latents: `batch × channels × height × width`; decoded a few at a time, so that a batch of any size fits.

        Returns:
            8-bit images `batch × 3 × height × width`, on the CPU.

        Raises:
            UserError: The latents or the decoded images hold numbers that are not finite.
        """
        vae = self.pipe.vae
        images = []
        for part in latents.split(self._decoder_batch(latents)):
            pixels = vae.decode(part.to(vae.dtype) / vae.config.scaling_factor).sample
            require_finite(pixels, f"an image of teacher {self.name} in {self.precision}")
            images.append(((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8))
        return torch.cat(images)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Latents in float32, the mean of the encoder's distribution, of 8-bit images `batch × 3 × height × width`."""
        vae = self.pipe.vae
        latents = []
        for part in images.split(self._decoder_batch(images[..., :: self._scale, :: self._scale])):
            pixels = part.to(self.device, vae.dtype) / 127.5 - 1
            latents.append(vae.encode(pixels).latent_dist.mean.float() * vae.config.scaling_factor)
        return torch.cat(latents)

    @property
    def _scale(self) -> int:
        return int(self.pipe.vae_scale_factor)

    def _decoder_batch(self, latents: Tensor) -> int:
        """How many images the autoencoder takes at once: as many pixels as four images of 512 × 512, 2 GiB in half
        precision."""
        height, width = latents.shape[-2:]
        return max(1, 4 * 512**2 // (height * width * self._scale**2))

    def noise(self, ids: list[int], seed: int = 0) -> Tensor:
        """Starting noise in float32, one seed per prompt: the same in any batch, on any device.

        Args:
            ids: The prompts' numbers.
            seed: The run's.
        """
        # torch's CPU generator reads 32 bits of its seed: both numbers are mixed into them
        numbers = [
            torch.Generator().manual_seed(int(np.random.SeedSequence((seed, i)).generate_state(1)[0])) for i in ids
        ]
        return torch.stack([torch.randn(self.latent_shape, generator=g) for g in numbers]).to(self.device)

    def with_components(self, name: str, **parts: Any) -> "Teacher":
        """Returns a teacher with some parts of the pipeline replaced, such as `unet` or `scheduler`.

        Args:
            name: The new teacher's name.
            parts: Components of the pipeline by name; all others are shared.
        """
        options = ("requires_safety_checker", "force_zeros_for_empty_prompt")
        kept = {key: self.pipe.config[key] for key in options if key in self.pipe.config}
        pipe = type(self.pipe)(**{**self.pipe.components, **parts}, **kept)
        pipe.set_progress_bar_config(disable=True)
        return Teacher(name, pipe, self.guidance, self.resolution, self.text_embedder, self.flow)

    def save(self, folder: Path) -> None:
        """Saves the pipeline in diffusers' format, atomically; `teacher.path=` takes the folder."""
        with atomic_folder(folder) as partial:
            self.pipe.save_pretrained(partial)
            # What the scheduler's config left open stays open, so that every solver goes on filling it in by itself:
            # diffusers writes PNDM's default spacing of timesteps down, and DPM++ would follow it.
            file = partial / "scheduler" / "scheduler_config.json"
            left_open = self.pipe.scheduler.config.get("_use_default_values", [])
            said = {key: value for key, value in json.loads(file.read_text()).items() if key not in left_open}
            file.write_text(json.dumps(said, indent=2) + "\n")


def require_finite(numbers: Tensor, what: str) -> None:
    """Raises a UserError where a tensor holds NaN or infinity; `what` names it in the message."""
    if not bool(numbers.isfinite().all()):
        raise UserError(
            f"{what} holds numbers that are not finite: pass precision=float32 or bfloat16, or check the weights"
        )
