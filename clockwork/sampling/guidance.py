"""Classifier-free guidance (Ho & Salimans 2022): the doubled batch of the UNet, and how its outputs are combined.

The first half of the batch is always the unconditional one, with the negative prompts.
"""

from dataclasses import replace

import torch
from torch import Tensor

from clockwork.unet.conditioning import Condition, select_examples


def cfg_batch(condition: Condition, negative: Condition | None) -> Condition:
    """Builds the conditions of the UNet's batch.

    Args:
        condition: The prompts' conditions.
        negative: The negative prompts' conditions, one or as many as `condition`; None without guidance.

    Returns:
        Both halves, `2 len(condition)`; `condition` itself without guidance.
    """
    if negative is None:
        return condition
    batch = Condition.concat(negative.expand(len(condition)), condition)
    return replace(batch, branch=is_conditional(len(batch), len(condition)).to(batch.prompt_embeds.device))


def is_conditional(batch: int, num_prompts: int) -> Tensor:
    """Tells which examples of a UNet's batch are conditional.

    Args:
        batch: Size of the batch, `num_prompts` or twice as many.
        num_prompts: Number of prompts.

    Returns:
        int64 tensor of length `batch`: 0 in the unconditional half, 1 elsewhere, the indices in `HALVES`.
    """
    return (torch.arange(batch) >= batch - num_prompts).long()


def positive_half(sample: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor, Condition]:
    """Selects the conditional half of a UNet's batch.

    Args:
        sample: Scaled latents of both halves, `2 batch × channels × height × width`.
        t: The timestep, a scalar or one per example.
        condition: The conditions of both halves.

    Returns:
        The three for the conditional half alone; the condition is that of a call without guidance.
    """
    size = len(sample)
    index = torch.arange(size // 2, size, device=sample.device)
    condition = replace(condition.select(index, size), branch=None)
    return sample[size // 2 :], select_examples(t, index, size), condition


def apply_guidance(output: Tensor, guidance: float | Tensor) -> Tensor:
    """Combines the two halves of a prediction: `unconditional + guidance × (conditional − unconditional)`.

    Args:
        output: Predictions of a doubled batch, `2 batch × …`.
        guidance: One scale, or one per example, `batch × 1 × 1 × 1`.

    Returns:
        The guided prediction, `batch × …`.
    """
    unconditional, conditional = output.chunk(2)
    return unconditional + guidance * (conditional - unconditional)
