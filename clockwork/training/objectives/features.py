"""Recovering from surgery: the Efficient UNet against the teacher's outputs and features (paper, Section 5)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from clockwork.sampling.guidance import cfg_batch
from clockwork.teachers import Teacher
from clockwork.teachers.surgery import without_top_attention
from clockwork.training.latents import NoisyLatents
from clockwork.training.objectives.base import UNetDistillation, frozen, mean_square, predict


@final
class FeatureDistillation(UNetDistillation):
    """Loss: `outputs` × the mean square error of what is predicted, in both halves of guidance, + `features` × that of
    what leaves every block, in units of the teacher's (as BK-SDM, arXiv 2305.15798, distils after surgery)."""

    def __init__(
        self,
        teacher: Teacher,
        unet: UNet2DConditionModel,
        steps: int,
        outputs: float = 1.0,
        features: float = 0.1,
        **training: Any,
    ) -> None:
        super().__init__(teacher, unet, steps, **training)
        self.outputs, self.features = outputs, features
        # Shares the teacher's weights, so costs no memory; in a tuple, so that it is no part of the module.
        self.untrained = (without_top_attention(teacher.unet),)

    @classmethod
    def init_student(cls, teacher: Teacher) -> UNet2DConditionModel:
        return copy.deepcopy(without_top_attention(teacher.unet)).float()

    @classmethod
    def unet_calls_per_example(cls, teacher: Teacher, guided: bool) -> tuple[int, int]:
        passes = 2 if guided and teacher.unet.config.time_cond_proj_dim is None else 1
        return passes, passes

    def losses(self, states: NoisyLatents, untrained: bool) -> tuple[Tensor, Tensor | None]:
        scale = states.guidance if self.guided else 1.0
        with frozen(states.latents.device), leaving_blocks(self.teacher.unet) as theirs:
            condition = cfg_batch(*self.teacher.conditions(list(states.captions), scale, with_text_emb=False))
            latents, t = (torch.cat([x] * (len(condition) // len(states))) for x in (states.latents, states.timestep))
            target = predict(self.teacher.unet, latents, t, condition)

        def loss(unet: UNet2DConditionModel) -> Tensor:
            with leaving_blocks(unet) as ours:
                total = self.outputs * mean_square(predict(unet, latents, t, condition), target)
            if self.features:
                total = total + self.features * sum(map(relative, ours, theirs)) / len(theirs)
            return total

        if not untrained:
            return loss(self.unet), None
        with torch.no_grad():
            before = loss(self.untrained[0])
        return loss(self.unet), before


def relative(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean square error in units of the teacher's mean square."""
    return mean_square(ours, theirs) / theirs.float().square().mean()


@contextmanager
def leaving_blocks(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """While open, what leaves each down block, the middle and each up block, in order."""
    seen: list[Tensor] = []

    def see(_: Any, __: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    blocks = [*unet.down_blocks, *([] if unet.mid_block is None else [unet.mid_block]), *unet.up_blocks]
    hooks = [block.register_forward_hook(see) for block in blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
