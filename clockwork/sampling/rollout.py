"""The sampling loop."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from clockwork.sampling.denoisers import Denoised, Denoiser
from clockwork.sampling.guidance import apply_guidance, cfg_batch
from clockwork.teachers import Condition


@dataclass(frozen=True)
class StepRecord:
    """What one step of a roll-out made.

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
    """Samples from noise to latent, with one record per denoiser call.

    Latents, guidance and the solver's state are in the noise's precision, float32 or more, whatever the UNet's.

    Args:
        denoiser: What predicts; it casts to its UNet's precision by itself.
        solver: A diffusers scheduler; its config is used, its state is not touched.
        steps: Solver steps.
        noise: Standard normal, `batch × channels × height × width`.
        condition: The prompts', as `Teacher.conditions` gives it.
        negative: The empty (or negative) prompt's condition, one or as many as `condition`; without it, or at
            guidance 1, the batch is not doubled.
        guidance: Classifier-free guidance scale.
    """
    guided = negative is not None and guidance != 1
    if guided:
        condition = cfg_batch(condition, negative)
    solver = type(solver).from_config(solver.config)  # solvers keep state: every roll-out has its own
    solver.set_timesteps(steps)  # on the host: a solver reads their values, and on a GPU would wait for each
    noise = noise.to(torch.promote_types(noise.dtype, torch.float32))
    latents = noise * solver.init_noise_sigma
    r_out = None
    on_host, on_device = solver.timesteps, solver.timesteps.to(noise.device)
    for step, (t_host, t) in enumerate(zip(on_host, on_device, strict=True), 1):
        sample = solver.scale_model_input(torch.cat([latents, latents]) if guided else latents, t_host)
        denoised = denoiser(sample, t, condition, step, r_out)
        r_out, output = denoised.r_out, denoised.output.to(latents.dtype)
        if guided:
            output = apply_guidance(output, guidance)
        latents = solver.step(output, t_host, latents).prev_sample
        yield StepRecord(step, t_host, latents, denoised)
