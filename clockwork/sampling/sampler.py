"""A setup: an operating point with the live parts that run it. What is trained, evaluated and edited with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from clockwork.adaptors import Adaptor, Widths
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint
from clockwork.sampling.denoisers import Clocked, Denoiser, Full
from clockwork.sampling.rollout import StepRecord, rollout
from clockwork.sampling.solvers import make_solver, timesteps
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.chain import Cut
from clockwork.unet.split import SplitUNet


@dataclass(frozen=True)
class Setup:
    """A teacher at an operating point, and the adaptor that stands in for its low-res path."""

    teacher: Teacher
    split: SplitUNet
    schedule: Schedule
    solver: str
    steps: int
    guidance: float
    adaptor: Adaptor | None = None
    adaptor_name: str = "none"
    folder: Path | None = None  # the adaptor's

    def __post_init__(self) -> None:
        self.schedule.adaptor_steps(self.calls)  # refuses a schedule longer than the steps
        if self.adaptor is None and self.schedule != Schedule():
            raise UserError(f"schedule {self.schedule} has adaptor steps: name an adaptor, or say schedule=full")
        _ = self.denoiser  # refuses an adaptor that the schedule is not for

    @property
    def calls(self) -> int:
        """Denoiser calls: the steps, and one more for PNDM."""
        return timesteps(self.solver, self.teacher.noise_schedule, self.steps)

    @property
    def point(self) -> OperatingPoint:
        return OperatingPoint(
            teacher=self.teacher.name,
            teacher_hash=self.teacher.hash,
            cut=str(self.split.cut),
            schedule=str(self.schedule),
            solver=self.solver,
            steps=self.steps,
            guidance=self.guidance,
            resolution=self.teacher.resolution,
        )

    @property
    def denoiser(self) -> Denoiser:
        return Full(self.split) if self.adaptor is None else Clocked(self.split, self.adaptor, self.schedule)

    def rollout(self, captions: list[str], noise: Tensor, denoiser: Denoiser | None = None) -> Iterator[StepRecord]:
        """A record a step; by another denoiser than the setup's own, if one is given."""
        reads_text = self.adaptor is not None and "text_emb" in self.adaptor.inputs
        condition, negative = self.teacher.conditions(captions, self.guidance, reads_text)
        solver = make_solver(self.solver, self.teacher.noise_schedule)
        return rollout(denoiser or self.denoiser, solver, self.steps, noise, condition, negative, self.guidance)

    def latents(self, captions: list[str], noise: Tensor, denoiser: Denoiser | None = None) -> Tensor:
        """The roll-out's last latents, `batch × channels × height × width`."""
        *_, last = self.rollout(captions, noise, denoiser)
        return last.latents


def widths(teacher: Teacher, cut: Cut | str) -> Widths:
    """The channels that an adaptor for this teacher and cut has to fit."""
    with torch.device("meta"):
        unet = type(teacher.unet).from_config(teacher.unet.config)
    return cut_widths(SplitUNet(unet, cut), teacher.latent_shape, teacher.text_width)


def cut_widths(split: SplitUNet, latent_shape: tuple[int, int, int], text_width: int) -> Widths:
    """The same for a UNet on `meta`, and pooled text of that width."""
    e = split.embed(**meta_call(split.unet, latent_shape, tokens=1))
    high = split.high_in(e)
    r_out = split.low(high, e)
    upscale = r_out.shape[-1] // high.r_in.shape[-1]
    return Widths(high.r_in.shape[1], r_out.shape[1], e.t_emb.shape[1], text_width, upscale)


def meta_call(unet: UNet2DConditionModel, latent_shape: tuple[int, int, int], tokens: int = 77) -> dict[str, Any]:
    """What a UNet takes, as empty tensors of batch 1 on `meta`, with the conditions that its config asks for."""
    config = unet.config
    with torch.device("meta"):
        call: dict[str, Any] = {
            "sample": torch.empty(1, *latent_shape),
            "timestep": torch.tensor(1),
            "encoder_hidden_states": torch.empty(1, tokens, config.cross_attention_dim),
        }
        if config.time_cond_proj_dim is not None:  # the guidance scale, embedded
            call["timestep_cond"] = torch.empty(1, config.time_cond_proj_dim)
        if config.addition_embed_type == "text_time":  # SDXL: six sizes and crops, and the pooled text
            pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            added = {"time_ids": torch.empty(1, 6), "text_embeds": torch.empty(1, pooled)}
            call["added_cond_kwargs"] = added
    return call
