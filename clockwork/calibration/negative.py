"""Observations for the map that predicts the negative half of guidance where only the positive half runs."""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from clockwork.adaptors import History, Linear
from clockwork.adaptors.negative import KERNEL, NUM_INPUTS, negative_inputs
from clockwork.sampling.denoisers import ClockworkDenoiser, FullDenoiser
from clockwork.sampling.guidance import positive_half
from clockwork.teachers import Condition


def num_negative_inputs(channels: int) -> int:
    """Returns the number of inputs of each output of a negative map, without the constant.

    Args:
        channels: Number of channels of the UNet's prediction.
    """
    return NUM_INPUTS * channels * KERNEL**2


def negative_observations(
    denoiser: ClockworkDenoiser,
    step: int,
    weights: Tensor,
    sample: Tensor,
    t: Tensor,
    condition: Condition,
    history: History,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes inputs and target of a step's negative map, on the latents that the roll-out has reached.

    With the errors `e₋` and `e₊` of the halves' predictions, the map minimises `Σᵢⱼ Kᵢⱼ eᵢ · eⱼ`, as the maps of both
    halves do. The error of the positive half is given, so that this is `K₋₋ |e₋ + K₋₊ / K₋₋ e₊|²` and a constant.

    Args:
        denoiser: The clocked UNet, whose adaptor has the positive half's map of the step, and no negative map.
        step: The step, from 1.
        weights: The matrix `K` of both halves' errors, `2 × 2`.
        sample: Scaled latents of both halves, `2 batch × channels × height × width`.
        t: The timestep.
        condition: The conditions of both halves.
        history: The features of earlier steps of the conditional half, and the last predictions of both.

    Returns:
        The inputs at each position with their neighbourhoods, `batch × inputs × height × width`; the target and the
        UNet's own prediction for the negative half, `batch × channels × height × width`; in float32.
    """
    assert isinstance(denoiser.adaptor, Linear) and history.output_prev is not None
    full = FullDenoiser(denoiser.split)(sample, t, condition, step, history)
    past = replace(history, output_prev=None)
    estimate = denoiser(*positive_half(sample, t, condition), step, past).output.float()
    negative, positive = full.output.float().chunk(2)
    base, inputs = negative_inputs(estimate, history.output_prev.float())
    target = negative + weights[0, 1] / weights[0, 0] * (positive - estimate) - base
    windows = F.unfold(inputs, KERNEL, padding=KERNEL // 2).unflatten(2, inputs.shape[2:])
    return windows, target, negative


def convolution(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the convolution of solutions.

    Args:
        maps: The solutions, `inputs and the constant × channels`.

    Returns:
        Its weight, `channels × inputs' channels × KERNEL × KERNEL`, and its bias, `channels`; in float32 on the CPU.
    """
    weight = maps[:-1].T.unflatten(1, (-1, KERNEL, KERNEL))
    return weight.float().cpu().contiguous(), maps[-1].float().cpu()
