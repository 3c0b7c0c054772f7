"""Guidance distillation: two passes into one that is told the scale (Meng et al. 2023, Section 3.1)."""

import copy
from typing import Any, final

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from clockwork.errors import UserError
from clockwork.sampling.guidance import apply_guidance, cfg_batch
from clockwork.teachers import Teacher
from clockwork.teachers.surgery import with_guidance_input
from clockwork.training.latents import NoisyLatents
from clockwork.training.objectives.base import UNetDistillation, frozen, mean_square, predict


@final
class Guidance(UNetDistillation):
    """Loss: the mean square error of one pass that is told the scale against the guided output of two."""

    def __init__(self, teacher: Teacher, unet: UNet2DConditionModel, steps: int, **training: Any) -> None:
        super().__init__(teacher, unet, steps, **training)
        self.student = teacher.with_components(teacher.name, unet=unet)  # says what a pass is given
        self.unet.train().requires_grad_(True)

    @classmethod
    def check_teacher(cls, teacher: Teacher) -> Teacher:
        if teacher.unet.config.time_cond_proj_dim is not None:
            raise UserError(f"teacher {teacher.name} takes one pass a step already: objective=progressive goes on")
        return teacher

    @classmethod
    def init_student(cls, teacher: Teacher) -> UNet2DConditionModel:
        return copy.deepcopy(with_guidance_input(teacher.unet)).float()

    @classmethod
    def unet_calls_per_example(cls, teacher: Teacher, guided: bool) -> tuple[int, int]:
        return 2, 1

    def losses(self, states: NoisyLatents, untrained: bool) -> tuple[Tensor, Tensor | None]:
        with frozen(states.latents.device):
            target, without = self.target(states)
            condition, _ = self.student.conditions(list(states.captions), states.guidance, with_text_emb=False)
        loss = mean_square(predict(self.unet, states.latents, states.timestep, condition), target)
        return loss, mean_square(without, target)  # it began as the teacher's one pass with the prompt

    def target(self, states: NoisyLatents) -> tuple[Tensor, Tensor]:
        """The roll-out's own guidance of two passes, each with its scale; and the pass with the prompt alone."""
        both = cfg_batch(*self.teacher.conditions(list(states.captions), states.guidance, with_text_emb=False))
        latents, t = (torch.cat([x, x]) for x in (states.latents, states.timestep))
        output = predict(self.teacher.unet, latents, t, both)
        return apply_guidance(output, states.guidance.to(output)[:, None, None, None]), output.chunk(2)[1]
