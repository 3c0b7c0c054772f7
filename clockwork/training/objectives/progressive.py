"""Progressive distillation: one step of the student for two of the teacher's (Salimans & Ho 2022, Algorithm 2)."""

import copy
from typing import Any, final

from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from clockwork.errors import UserError
from clockwork.teachers import Condition, Teacher
from clockwork.training.ddim import DDIM
from clockwork.training.latents import NoisyLatents
from clockwork.training.objectives.base import UNetDistillation, frozen, predict


@final
class Progressive(UNetDistillation):
    """One stage, to `steps` DDIM steps. Loss: the error of the clean latent, weighed by max(SNR, 1) (their
    equation 9)."""

    step_stride = 2  # the student predicts where every second of the teacher's steps begins

    def __init__(self, teacher: Teacher, unet: UNet2DConditionModel, steps: int, **training: Any) -> None:
        super().__init__(teacher, unet, steps, **training)
        self.ddim = DDIM(teacher.noise_schedule)
        self.length = teacher.noise_schedule["num_train_timesteps"] // steps  # as DDIMScheduler's own step

    @classmethod
    def check_teacher(cls, teacher: Teacher) -> Teacher:
        """On timesteps that begin at pure noise ("trailing"), as few steps must, and as halving them needs: every
        second one of 2N is one of N."""
        if teacher.unet_calls_per_step(teacher.guidance) != 1:
            raise UserError(
                f"teacher {teacher.name} takes two passes a step: run objective=guidance first, or say "
                "teacher.guidance=1 to distil it without guidance"
            )
        DDIM(teacher.noise_schedule)
        scheduler = DDIMScheduler.from_config(teacher.noise_schedule, timestep_spacing="trailing", clip_sample=False)
        return teacher.with_components(teacher.name, scheduler=scheduler)

    @classmethod
    def init_student(cls, teacher: Teacher) -> UNet2DConditionModel:
        return copy.deepcopy(teacher.unet).float()

    @classmethod
    def unet_calls_per_example(cls, teacher: Teacher, guided: bool) -> tuple[int, int]:
        return 2, 1

    def losses(self, states: NoisyLatents, untrained: bool) -> tuple[Tensor, Tensor | None]:
        z, t = states.latents.float(), states.timestep.long()
        with frozen(z.device):
            condition, _ = self.teacher.conditions(list(states.captions), states.guidance, with_text_emb=False)
            target, first = self.target(z, t, condition)
        alpha, sigma = self.ddim.alpha_sigma(t)
        weight = (alpha / sigma).square().clamp(min=1).float()
        clean = self.ddim.clean(predict(self.unet, z, t, condition).float(), z, t)
        loss, before = ((weight * (x - target).square()).mean() for x in (clean, first))
        return loss, before  # it began as the teacher, taking one step where it takes two

    def target(self, z: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """The clean latent that leads where two of the teacher's steps do, and the teacher's at the first of them."""
        end = t - self.length
        middle = t - self.length // 2
        first = self.ddim.clean(predict(self.teacher.unet, z, t, condition).float(), z, t)
        z_middle = self.ddim.step(first, z, t, middle)
        second = predict(self.teacher.unet, z_middle, middle, condition).float()
        z_end = self.ddim.step(self.ddim.clean(second, z_middle, middle), z_middle, middle, end)
        return self.ddim.clean_between(z, z_end, t, end), first


def halvings(start: int, end: int) -> list[int]:
    """Step counts of the stages: 16 to 4 is [8, 4]."""
    counts = []
    while start > end and start % 2 == 0:
        start //= 2
        counts.append(start)
    if start != end or not counts or end < 1:
        raise UserError("progressive distillation halves: let start be end times 2, 4, 8, …")
    return counts
