"""Guidance distillation: one pass with the guidance scale as an input replaces two (Meng et al. 2023, Section 3.1)."""

import copy
from typing import Any, final

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.sampling.guidance import apply_guidance, cfg_batch
from clockwork.teachers import Teacher
from clockwork.teachers.surgery import with_guidance_input
from clockwork.training.latents import NoisyLatents
from clockwork.training.objectives.base import UNetDistillation, frozen, mean_square, predict

__getattr__ = renamed(__name__)


@final
class GuidanceDistillation(UNetDistillation):
    """Trains a UNet with the guidance scale as an input to predict the teacher's guided output in one pass.

    The loss is the mean squared error.

    Args:
        teacher: The frozen teacher, which takes two passes per step.
        unet: The UNet to train.
        steps: Number of steps of the roll-outs.
        **training: Arguments of `UNetDistillation` and `Objective`.
    """

    def __init__(self, teacher: Teacher, unet: UNet2DConditionModel, steps: int, **training: Any) -> None:
        super().__init__(teacher, unet, steps, **training)
        self.student = teacher.with_components(teacher.name, unet=unet)  # for the conditions that `unet` takes
        self.unet.train().requires_grad_(True)

    @classmethod
    def check_teacher(cls, teacher: Teacher) -> Teacher:
        """Refuses a teacher that takes the guidance scale as an input."""
        if teacher.unet.config.time_cond_proj_dim is not None:
            raise UserError(f"teacher {teacher.name} takes one pass per step already: use objective=progressive")
        return teacher

    @classmethod
    def init_student(cls, teacher: Teacher) -> UNet2DConditionModel:
        """Copies the teacher's UNet and adds the input for the guidance scale."""
        return copy.deepcopy(with_guidance_input(teacher.unet)).float()

    @classmethod
    def unet_calls_per_example(cls, teacher: Teacher, guided: bool) -> tuple[int, int]:
        """Returns two calls of the teacher and one of the student."""
        return 2, 1

    def losses(self, batch: NoisyLatents, untrained: bool) -> tuple[Tensor, Tensor | None]:
        """Computes the mean squared error, always with that of the untrained UNet."""
        with frozen(batch.latents.device):
            target, conditional = self.target(batch)
            condition, _ = self.student.conditions(list(batch.captions), batch.guidance, with_text_emb=False)
        loss = mean_square(predict(self.unet, batch.latents, batch.timestep, condition), target)
        return loss, mean_square(conditional, target)  # the untrained UNet predicts as the teacher with the prompt

    def target(self, batch: NoisyLatents) -> tuple[Tensor, Tensor]:
        """Computes the teacher's predictions.

        Args:
            batch: The noisy latents, each with its guidance scale.

        Returns:
            The guided prediction of two passes, and that of the pass with the prompt alone.
        """
        condition = cfg_batch(*self.teacher.conditions(list(batch.captions), batch.guidance, with_text_emb=False))
        latents, t = (torch.cat([x, x]) for x in (batch.latents, batch.timestep))
        output = predict(self.teacher.unet, latents, t, condition)
        return apply_guidance(output, batch.guidance.to(output)[:, None, None, None]), output.chunk(2)[1]
