"""Progressive distillation: one step of the student replaces two of the teacher (Salimans & Ho 2022, Algorithm 2)."""

import copy
from typing import Any, final

from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.teachers import Condition, Teacher
from clockwork.training.ddim import DDIM
from clockwork.training.latents import NoisyLatents
from clockwork.training.objectives.base import UNetDistillation, frozen, predict

__getattr__ = renamed(__name__)


@final
class ProgressiveDistillation(UNetDistillation):
    """Trains a UNet to take one DDIM step where the teacher takes two: one stage of the method.

    The loss is the squared error of the clean latent, weighted by max(SNR, 1) (Salimans & Ho 2022, equation 9).

    Args:
        teacher: The frozen teacher, which takes one pass per step.
        unet: The UNet to train.
        steps: Number of DDIM steps of the student, half of the teacher's.
        **training: Arguments of `UNetDistillation` and `Objective`.
    """

    step_stride = 2  # each step of the student starts where every second step of the teacher does

    def __init__(self, teacher: Teacher, unet: UNet2DConditionModel, steps: int, **training: Any) -> None:
        super().__init__(teacher, unet, steps, **training)
        self.ddim = DDIM(teacher.noise_schedule)
        self.step_length = teacher.noise_schedule["num_train_timesteps"] // steps  # as in DDIMScheduler

    @classmethod
    def check_teacher(cls, teacher: Teacher) -> Teacher:
        """Gives the teacher "trailing" timesteps and refuses one that takes two passes per step.

        Trailing timesteps start at pure noise, which few steps need, and every second one of 2N is one of N.
        """
        if teacher.unet_calls_per_step(teacher.guidance) != 1:
            raise UserError(
                f"teacher {teacher.name} takes two passes per step: run objective=guidance first, or pass "
                "teacher.guidance=1 to distil it without guidance"
            )
        DDIM(teacher.noise_schedule)
        scheduler = DDIMScheduler.from_config(teacher.noise_schedule, timestep_spacing="trailing", clip_sample=False)
        return teacher.with_components(teacher.name, scheduler=scheduler)

    @classmethod
    def init_student(cls, teacher: Teacher) -> UNet2DConditionModel:
        """Copies the teacher's UNet."""
        return copy.deepcopy(teacher.unet).float()

    @classmethod
    def unet_calls_per_example(cls, teacher: Teacher, guided: bool) -> tuple[int, int]:
        """Returns two calls of the teacher and one of the student."""
        return 2, 1

    def losses(self, batch: NoisyLatents, untrained: bool) -> tuple[Tensor, Tensor | None]:
        """Computes the weighted error of the clean latent, always with that of the untrained UNet."""
        z, t = batch.latents.float(), batch.timestep.long()
        with frozen(z.device):
            condition, _ = self.teacher.conditions(list(batch.captions), batch.guidance, with_text_emb=False)
            target, first = self.target(z, t, condition)
        alpha, sigma = self.ddim.alpha_sigma(t)
        weight = (alpha / sigma).square().clamp(min=1).float()
        clean = self.ddim.clean(predict(self.unet, z, t, condition).float(), z, t)
        loss, initial_loss = ((weight * (x - target).square()).mean() for x in (clean, first))
        return loss, initial_loss  # the untrained UNet is the teacher, which takes one step in place of two

    def target(self, z: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Computes the target of the student with two steps of the teacher.

        Args:
            z: Noisy latents, `batch × channels × height × width`.
            t: Their timesteps, `batch`.
            condition: Condition of the batch.

        Returns:
            The clean latent with which one step ends where two steps of the teacher do, and the clean latent that the
            teacher predicts on the first of them.
        """
        end = t - self.step_length
        middle = t - self.step_length // 2
        first = self.ddim.clean(predict(self.teacher.unet, z, t, condition).float(), z, t)
        z_middle = self.ddim.step(first, z, t, middle)
        second = predict(self.teacher.unet, z_middle, middle, condition).float()
        z_end = self.ddim.step(self.ddim.clean(second, z_middle, middle), z_middle, middle, end)
        return self.ddim.clean_between(z, z_end, t, end), first


def halvings(start: int, end: int) -> list[int]:
    """Computes the numbers of steps of the stages: from 16 to 4 they are [8, 4].

    Args:
        start: Number of steps of the first teacher.
        end: Number of steps of the last student.

    Returns:
        Number of steps of each student.

    Raises:
        UserError: `start` is not `end` times a power of two, or equals it.
    """
    counts = []
    while start > end and start % 2 == 0:
        start //= 2
        counts.append(start)
    if start != end or not counts or end < 1:
        raise UserError("progressive distillation halves the steps: pass a start that is end times 2, 4, 8, …")
    return counts
