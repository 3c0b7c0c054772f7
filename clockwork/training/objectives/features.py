"""Training of the Efficient UNet, a teacher without some layers, on the teacher's features (paper, Section 5)."""

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
    """Trains a UNet without the transformer blocks of the highest resolution (the Efficient UNet).

    The loss is the mean squared error of the predictions in both halves of guidance, and that of the blocks' outputs
    relative to the teacher's, as in BK-SDM (arXiv 2305.15798).

    Args:
        teacher: The frozen teacher, with all of its blocks.
        unet: The UNet to train.
        steps: Number of steps of the roll-outs.
        outputs: Weight of the error of the predictions.
        features: Weight of the relative error of the blocks' outputs.
        **training: Arguments of `UNetDistillation` and `Objective`.
    """

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
        # Shares the teacher's weights, so it needs no memory. A tuple, so that it does not become a submodule.
        self.untrained = (without_top_attention(teacher.unet),)

    @classmethod
    def init_student(cls, teacher: Teacher) -> UNet2DConditionModel:
        """Copies the teacher's UNet without the transformer blocks of its highest resolution."""
        return copy.deepcopy(without_top_attention(teacher.unet)).float()

    @classmethod
    def unet_calls_per_example(cls, teacher: Teacher, guided: bool) -> tuple[int, int]:
        """Returns as many calls of the student as of the teacher: two with guidance."""
        calls = 2 if guided and teacher.unet.config.time_cond_proj_dim is None else 1
        return calls, calls

    def losses(self, batch: NoisyLatents, untrained: bool) -> tuple[Tensor, Tensor | None]:
        """Computes the weighted errors of predictions and blocks' outputs."""
        scale = batch.guidance if self.guided else 1.0
        with frozen(batch.latents.device), block_outputs(self.teacher.unet) as teacher_features:
            condition = cfg_batch(*self.teacher.conditions(list(batch.captions), scale, with_text_emb=False))
            latents, t = (torch.cat([x] * (len(condition) // len(batch))) for x in (batch.latents, batch.timestep))
            target = predict(self.teacher.unet, latents, t, condition)

        def loss(unet: UNet2DConditionModel) -> Tensor:
            with block_outputs(unet) as student_features:
                total = self.outputs * mean_square(predict(unet, latents, t, condition), target)
            if self.features:
                errors = map(relative_error, student_features, teacher_features)
                total = total + self.features * sum(errors) / len(teacher_features)
            return total

        if not untrained:
            return loss(self.unet), None
        with torch.no_grad():
            initial_loss = loss(self.untrained[0])
        return loss(self.unet), initial_loss


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Computes the mean squared error divided by the teacher's mean square.

    Args:
        student: Output of the UNet in training.
        teacher: Output of the teacher, of the same shape.

    Returns:
        A scalar in float32.
    """
    return mean_square(student, teacher) / teacher.float().square().mean()


@contextmanager
def block_outputs(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """Context manager that records the outputs of a UNet's blocks.

    Args:
        unet: The UNet, which is called in the block.

    Yields:
        A list to which every call appends the outputs of the down blocks, the middle block and the up blocks, in order.
    """
    outputs: list[Tensor] = []

    def record(_: Any, __: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    blocks = [*unet.down_blocks, *([] if unet.mid_block is None else [unet.mid_block]), *unet.up_blocks]
    hooks = [block.register_forward_hook(record) for block in blocks]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
