"""The sampling loop, which training, evaluation and editing share."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from clockwork.adaptors import NO_HISTORY
from clockwork.deprecated import renamed
from clockwork.sampling.denoisers import Denoised, Denoiser
from clockwork.sampling.guidance import apply_guidance, cfg_batch
from clockwork.sampling.solvers import solver_from_config
from clockwork.sampling.step_noise import step_noise
from clockwork.teachers import Condition

__getattr__ = renamed(__name__)


@dataclass(frozen=True)
class StepRecord:
    """The result of one step of a roll-out.

    Attributes:
        step: Index of the denoiser call, from 1.
        timestep: The solver's timestep, a scalar on the CPU.
        latents: Latents after the step, `batch × channels × height × width`.
        denoised: The denoiser's result; with guidance its batch is twice as large, negative prompts first.
    """

    step: int
    timestep: Tensor
    latents: Tensor
    denoised: Denoised


@torch.no_grad()
def rollout(
    denoiser: Denoiser,
    solver: SchedulerMixin,
    steps: int,
    noise: Tensor,
    condition: Condition,
    negative: Condition | None = None,
    guidance: float = 1.0,
) -> Iterator[StepRecord]:
    """Samples latents from noise.

    Latents, guidance and the solver's state have the precision of the noise, but at least float32.

    Args:
        denoiser: The denoiser, which casts its inputs to the UNet's precision.
        solver: A diffusers scheduler. Its config is used; its state is neither read nor changed.
        steps: Number of solver steps.
        noise: Standard normal noise, `batch × channels × height × width`.
        condition: The prompts' conditions, for example from `Teacher.conditions`.
        negative: Conditions of the negative (or empty) prompts, one or as many as in `condition`. Without them, or at
            guidance 1 or less, the UNet runs once per step without guidance.
        guidance: Scale of classifier-free guidance.

    Yields:
        One record per denoiser call.
    """
    yield from rollout_with_gradients(denoiser, solver, steps, noise, condition, negative, guidance)


def rollout_with_gradients(
    denoiser: Denoiser,
    solver: SchedulerMixin,
    steps: int,
    noise: Tensor,
    condition: Condition,
    negative: Condition | None = None,
    guidance: float = 1.0,
) -> Iterator[StepRecord]:
    """Samples latents from noise like `rollout`, so that gradients pass through all steps where they are enabled.

    Memory grows with the number of steps.

    Args:
        denoiser: As in `rollout`.
        solver: As in `rollout`.
        steps: As in `rollout`.
        noise: As in `rollout`.
        condition: As in `rollout`.
        negative: As in `rollout`.
        guidance: As in `rollout`.

    Yields:
        One record per denoiser call.
    """
    guided = negative is not None and guidance > 1  # as diffusers: no guidance up to a scale of 1
    condition = cfg_batch(condition, negative if guided else None)
    solver = solver_from_config(type(solver), solver.config)  # solvers have state, so every roll-out needs its own
    solver.set_timesteps(steps)  # on the CPU: solvers read their values, and would wait for a GPU each time
    latents = noise.to(torch.promote_types(noise.dtype, torch.float32)) * solver.init_noise_sigma
    history, of_solver = NO_HISTORY, step_noise(solver, noise)
    for step, (cpu_t, t) in enumerate(zip(solver.timesteps, solver.timesteps.to(noise.device), strict=True), 1):
        sample = solver.scale_model_input(torch.cat([latents, latents]) if guided else latents, cpu_t)
        denoised = denoiser(sample, t, condition, step, history)
        history, output = denoised.history, denoised.output.to(latents.dtype)
        if guided:
            output = apply_guidance(output, guidance)
        latents = solver.step(output, cpu_t, latents, **of_solver).prev_sample
        yield StepRecord(step, cpu_t, latents, denoised)
