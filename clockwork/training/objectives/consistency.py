"""Consistency distillation of a few-step UNet, after Latent Consistency Models (Luo et al. 2023, arXiv 2310.04378)."""

import copy
from typing import Any, final

import torch
from diffusers import DDIMScheduler, LCMScheduler, UNet2DConditionModel
from torch import Tensor

from clockwork.sampling.guidance import apply_guidance, cfg_batch
from clockwork.sampling.sampler import Sampler
from clockwork.teachers import Teacher
from clockwork.teachers.surgery import with_guidance_input
from clockwork.training.ddim import DDIM
from clockwork.training.latents import NoisyLatents
from clockwork.training.objectives.base import UNetDistillation, frozen, predict
from clockwork.training.objectives.clocked import clocked_steps

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0  # both as in diffusers' LCMScheduler, which samples from the result


@final
class ConsistencyDistillation(UNetDistillation):
    """Trains a UNet to predict the end of the teacher's guided roll-out from any of its latents (Algorithm 1).

    The teacher takes one guided DDIM step over `skip` timesteps (Sections 4.2 and 4.3). The student's clean latent
    before it should be that of a moving average of the student after it.

    With `clocked`, a share of each batch is replaced by roll-outs of the student with an adaptor in place, whose
    adaptor steps are trained on the same target: the student and the adaptor learn together.

    Args:
        teacher: The frozen teacher, which takes one pass per step or two.
        unet: The UNet to train.
        steps: Number of steps of the student's roll-outs.
        skip: Timesteps of the teacher's step, k in the paper.
        huber: Width in which the pseudo-Huber loss is quadratic.
        decay: Decay of the target network, the moving average of the student.
        clocked: The student's operating point with the adaptor to train.
        share: Share of each batch whose captions are rolled out at that operating point.
        **training: Arguments of `UNetDistillation` and `Objective`.
    """

    student_solver = "lcm"
    num_unets = 2  # with the target network

    def __init__(
        self,
        teacher: Teacher,
        unet: UNet2DConditionModel,
        steps: int,
        skip: int = 20,
        huber: float = 0.001,
        decay: float = 0.95,
        clocked: Sampler | None = None,
        share: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(teacher, unet, steps, **training)
        self.skip, self.huber, self.decay = skip, huber, decay
        self.ddim = DDIM(teacher.noise_schedule)
        self.target_unet = copy.deepcopy(unet).requires_grad_(False)
        self.student = self.as_teacher(teacher, teacher.name, unet)  # for the conditions that `unet` takes
        self.unet.train().requires_grad_(True)
        self.clocked, self.share = clocked, share
        self.adaptor = None if clocked is None else clocked.adaptor
        self.updates = 0

    @classmethod
    def check_teacher(cls, teacher: Teacher) -> Teacher:
        """Gives the teacher "trailing" timesteps: with as many steps as the LCM's grid has, they are those of it."""
        DDIM(teacher.noise_schedule)
        scheduler = DDIMScheduler.from_config(teacher.noise_schedule, timestep_spacing="trailing", clip_sample=False)
        return teacher.with_components(teacher.name, scheduler=scheduler)

    @classmethod
    def init_student(cls, teacher: Teacher) -> UNet2DConditionModel:
        """Copies the teacher's UNet; if guidance takes two passes, with an input for the guidance scale."""
        guided = teacher.unet_calls_per_step(teacher.guidance) == 2
        return copy.deepcopy(with_guidance_input(teacher.unet) if guided else teacher.unet).float()

    @classmethod
    def as_teacher(cls, teacher: Teacher, name: str, unet: UNet2DConditionModel) -> Teacher:
        """Returns the student as a teacher, whose scheduler is diffusers' LCMScheduler."""
        scheduler = LCMScheduler.from_config(teacher.noise_schedule, clip_sample=False)
        return teacher.with_components(name, unet=unet, scheduler=scheduler)

    @classmethod
    def unet_calls_per_example(cls, teacher: Teacher, guided: bool) -> tuple[int, int]:
        """Returns the teacher's calls with that of the target network, and one of the student."""
        return teacher.unet_calls_per_step(teacher.guidance) + 1, 1

    def losses(self, batch: NoisyLatents, untrained: bool) -> tuple[Tensor, Tensor | None]:
        """Computes the pseudo-Huber distance of the clean latents, always with that of the untrained UNet."""
        num_rolled_out = 0 if self.clocked is None else max(1, min(round(self.share * len(batch)), len(batch) - 1))
        examples = batch.part(num_rolled_out % len(batch), len(batch))
        estimate, count = self.clean(self.unet, examples), len(examples)
        if self.clocked is not None:
            steps = list(clocked_steps(self.clocked, self.student, batch.part(0, num_rolled_out)))
            outputs = [self.consistent(output, latents.latents, latents.timestep) for latents, output in steps]
            examples = NoisyLatents.join([examples, *(latents for latents, _ in steps)])
            estimate = torch.cat([estimate, *outputs])
        with frozen(batch.latents.device):
            target, start = self.target(examples)
        loss = pseudo_huber(estimate, target, self.huber)
        return loss, pseudo_huber(start[:count], target[:count], self.huber)

    def clean(self, unet: UNet2DConditionModel, batch: NoisyLatents) -> Tensor:
        """Computes the clean latents that a UNet predicts, f(z, w, c, t) in the paper.

        Args:
            unet: The student or the target network.
            batch: The noisy latents.

        Returns:
            The clean latents in float32, `batch × channels × height × width`.
        """
        with frozen(batch.latents.device):
            condition, _ = self.student.conditions(list(batch.captions), batch.guidance, with_text_emb=False)
        return self.consistent(predict(unet, batch.latents, batch.timestep, condition), batch.latents, batch.timestep)

    def consistent(self, output: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Computes the clean latents from a UNet's output, so that they are `z` at timestep 0 (Section 4.1).

        `f = c_skip(t) z + c_out(t) x`, where `x` is the clean latent of epsilon or v, and with `s = 10 t`,
        `c_skip = 0.5² / (s² + 0.5²)` and `c_out = s / sqrt(s² + 0.5²)`.

        Args:
            output: The UNet's output, `batch × channels × height × width`.
            z: Noisy latents, of the same shape.
            t: Their timesteps, `batch`.

        Returns:
            The clean latents in float32, of the same shape.
        """
        z, t = z.float(), t.long()
        scaled = (TIMESTEP_SCALING * t.float())[:, None, None, None]
        squared_sum = scaled.square() + SIGMA_DATA**2
        clean = self.ddim.clean(output.float(), z, t)
        return SIGMA_DATA**2 / squared_sum * z + scaled / squared_sum.sqrt() * clean

    def target(self, batch: NoisyLatents) -> tuple[Tensor, Tensor]:
        """Computes the target: one guided step of the teacher, then the target network (Algorithm 1).

        Args:
            batch: The noisy latents, each with its guidance scale.

        Returns:
            The target, and the clean latents that the untrained student predicts, in float32 each.
        """
        z, t = batch.latents.float(), batch.timestep.long()
        guided, conditional = self.teacher_outputs(batch)
        earlier = (t - self.skip).clamp(min=0)
        z_earlier = self.ddim.step(self.ddim.clean(guided, z, t), z, t, earlier)
        after = NoisyLatents(z_earlier, earlier, batch.guidance, batch.captions)
        return self.clean(self.target_unet, after), self.consistent(conditional, z, t)

    def teacher_outputs(self, batch: NoisyLatents) -> tuple[Tensor, Tensor]:
        """Runs the teacher, which follows the augmented probability-flow ODE (Section 4.2).

        Args:
            batch: The noisy latents, each with its guidance scale.

        Returns:
            The teacher's guided output, and that of the pass with the prompt, in float32 each; the same for a teacher
            that takes one pass per step.
        """
        scale = batch.guidance if self.teacher.guidance > 1 else 1.0
        condition = cfg_batch(*self.teacher.conditions(list(batch.captions), scale, with_text_emb=False))
        repeats = len(condition) // len(batch)
        latents, t = (torch.cat([x] * repeats) for x in (batch.latents, batch.timestep))
        output = predict(self.teacher.unet, latents, t, condition).float()
        if repeats == 1:
            return output, output
        return apply_guidance(output, batch.guidance.to(output)[:, None, None, None]), output.chunk(2)[1]

    def on_train_start(self) -> None:
        """Counts optimiser steps from where training begins or goes on."""
        self.updates = self.trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        """Updates the target network after an optimiser step."""
        if self.trainer.global_step == self.updates:  # gradients of several batches may be accumulated
            return
        self.updates = self.trainer.global_step
        for average, weight in zip(self.target_unet.parameters(), self.unet.parameters(), strict=True):
            average.lerp_(weight, 1 - self.decay)


def pseudo_huber(x: Tensor, y: Tensor, width: float) -> Tensor:
    """Computes the mean of `sqrt((x − y)² + width²) − width` in float32.

    Args:
        x: A tensor in any precision.
        y: One of the same shape.
        width: Size of the difference up to which the loss is about quadratic.

    Returns:
        A scalar.
    """
    return ((x.float() - y.float()).square() + width**2).sqrt().mean() - width
