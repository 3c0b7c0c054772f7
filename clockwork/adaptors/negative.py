"""What stands for the UNet's negative half on adaptor steps on which only the positive half of guidance runs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clockwork.adaptors.blocks import nearest_index
from clockwork.errors import UserError

if TYPE_CHECKING:
    from clockwork.adaptors.base import Adaptor

KERNEL = 5  # of the convolutions; with 1 × 1 and 3 × 3 the images were less near to the teacher's
NUM_INPUTS = 3  # of `negative_inputs`


class NegativeMap(nn.Module):
    """Estimates the prediction of the unconditional half of guidance: one convolution, 5 × 5, per adaptor step.

    It changes the estimate that the halves differ as on the previous step. On a step that has no convolution, that of
    the nearest step is used.

    Args:
        steps: The adaptor steps, from 1, ascending.
        channels: Number of channels of the UNet's prediction.
    """

    def __init__(self, steps: Sequence[int], channels: int) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.weight = nn.Parameter(torch.zeros(len(steps), channels, NUM_INPUTS * channels, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(len(steps), channels))

    def forward(self, positive: Tensor, previous: Tensor, step: int) -> Tensor:
        """Estimates the prediction.

        Args:
            positive: The UNet's prediction for the conditional half, `batch × channels × height × width`.
            previous: Both halves' predictions on the previous step, the unconditional first, `2 batch × …`.
            step: The step, from 1.

        Returns:
            The estimate for the unconditional half, of the shape of `positive`.
        """
        index = nearest_index(self.steps, step)
        weight, bias = self.weight[index], self.bias[index]
        base, inputs = negative_inputs(positive.to(weight.dtype), previous.to(weight.dtype))
        return (base + F.conv2d(inputs, weight, bias, padding=KERNEL // 2)).to(positive.dtype)


def negative_inputs(positive: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what the maps add to, and what they read.

    Args:
        positive: The UNet's prediction for the conditional half, `batch × channels × height × width`.
        previous: Both halves' predictions on the previous step, the unconditional first, `2 batch × …`.

    Returns:
        The prediction of the unconditional half if the halves differ as on the previous step; and the prediction of the
        conditional half, its change, and that difference, `batch × NUM_INPUTS channels × height × width`.
    """
    negative_before, positive_before = previous.chunk(2)
    difference = negative_before - positive_before
    return positive + difference, torch.cat([positive, positive - positive_before, difference], 1)


def require_both_halves(adaptor: "Adaptor | None", task: str) -> None:
    """Refuses an adaptor with which only the positive half of guidance runs.

    Args:
        adaptor: The adaptor, if any.
        task: What needs both halves, for the message.

    Raises:
        UserError: If only the positive half runs.
    """
    if adaptor is not None and adaptor.negative_map is not None:
        raise UserError(f"{task} needs both halves of guidance on every step: calibrate without positive_only")
