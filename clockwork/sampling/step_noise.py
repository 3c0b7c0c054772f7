"""Noise that a solver adds between steps: each example has its own, which its initial noise determines."""

import zlib
from typing import Any

import torch
from diffusers import LCMScheduler, SchedulerMixin
from torch import Tensor


def step_noise(solver: SchedulerMixin, noise: Tensor) -> dict[str, Any]:
    """Returns the arguments of a solver's `step` that determine the noise it adds.

    An image then depends neither on its batch nor on which steps are full: roll-outs from the same initial noise have
    the same noise on every step, with and without Clockwork.

    Args:
        solver: A diffusers scheduler.
        noise: Initial noise of the roll-out, `batch × channels × height × width`.

    Returns:
        A generator per example for LCM's solver (Luo et al. 2023, multistep sampling), nothing for solvers without
        noise.
    """
    return {"generator": example_generators(noise)} if isinstance(solver, LCMScheduler) else {}


def example_generators(latents: Tensor) -> list[torch.Generator]:
    """Creates a random generator per example, on the CPU and seeded by the example's values.

    Args:
        latents: Latents, `batch × channels × height × width`.

    Returns:
        One generator per example, the same for the same latents in float32.
    """
    values = latents.detach().float().cpu()
    return [torch.Generator().manual_seed(zlib.crc32(example.contiguous().numpy().tobytes())) for example in values]
