"""Roll-outs of a student with the adaptor in place, so that both are trained at once."""

from collections.abc import Iterator

import torch
from torch import Tensor

from clockwork.adaptors import History
from clockwork.sampling.denoisers import Denoised
from clockwork.sampling.rollout import rollout_with_gradients
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.sampling.step_noise import example_generators
from clockwork.teachers import Condition, Teacher
from clockwork.training.latents import NoisyLatents
from clockwork.training.objectives.base import frozen


def clocked_steps(clocked: Sampler, student: Teacher, batch: NoisyLatents) -> Iterator[tuple[NoisyLatents, Tensor]]:
    """Rolls captions out with the student and its adaptor.

    No gradient passes through the latents, so each output is trained by itself. It passes through the features of
    earlier steps that the adaptor reads, so a full step is trained for the adaptor steps after it.

    Args:
        clocked: The student's operating point with its adaptor.
        student: The student, for the conditions that its UNet takes.
        batch: Noisy latents. Captions and guidance scales are used, and the latents determine the initial noise, so
            that a resumed training has the same.

    Yields:
        For each adaptor step, the latents that enter it, and the student's output with gradients.
    """
    with frozen(batch.latents.device):
        condition, _ = student.conditions(list(batch.captions), batch.guidance, with_text_emb=clocked.reads_text)
    shape = batch.latents.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=each) for each in example_generators(batch.latents)])
    solver, denoiser = make_solver(clocked.solver, student.noise_schedule), clocked.denoiser

    def detached(sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        return denoiser(sample.detach(), t, condition, step, history)

    latents = noise.to(batch.latents.device)
    for record in rollout_with_gradients(detached, solver, clocked.steps, latents, condition):
        if not record.denoised.full:
            t = record.timestep.expand(len(batch)).to(latents.device)
            yield NoisyLatents(latents, t, batch.guidance, batch.captions), record.denoised.output
        latents = record.latents.detach()
