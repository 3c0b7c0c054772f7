"""Classifier-free guidance (Ho & Salimans 2022): the doubled batch that the UNet gets, and what is made of its outputs.

The unconditional half, with the negative prompts, is always first.
"""

import torch
from torch import Tensor

from clockwork.unet.conditioning import Condition


def cfg_batch(condition: Condition, negative: Condition | None) -> Condition:
    """The conditions of the batch that the UNet gets.

    Args:
        condition: The prompts' conditions.
        negative: The negative prompts' conditions, one or as many as `condition`; None without guidance.

    Returns:
        Both halves, `2 len(condition)`; `condition` itself without guidance.
    """
    return condition if negative is None else Condition.concat(negative.expand(len(condition)), condition)


def is_conditional(batch: int, num_prompts: int) -> Tensor:
    """Which examples of a UNet's batch have the prompt: int64, `batch`, 0 in the unconditional half and 1 elsewhere.

    Args:
        batch: Size of the batch, `num_prompts` or twice as many.
        num_prompts: How many prompts it was made of.
    """
    return (torch.arange(batch) >= batch - num_prompts).long()


def apply_guidance(output: Tensor, guidance: float | Tensor) -> Tensor:
    """The guided prediction: `unconditional + guidance × (conditional − unconditional)`.

    Args:
        output: Predictions of a doubled batch, `2 batch × …`.
        guidance: One scale, or one per example, `batch × 1 × 1 × 1`.

    Returns:
        The guided prediction, `batch × …`.
    """
    unconditional, conditional = output.chunk(2)
    return unconditional + guidance * (conditional - unconditional)
