"""Where a UNet is asked while it is trained: on the teacher's roll-outs, or at pictures noised to their timesteps."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clockwork.data.captioned_images import CaptionedImage, pixels
from clockwork.data.prompts import Prompt
from clockwork.sampling.denoisers import Full
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Setup
from clockwork.sampling.solvers import make_solver
from clockwork.training.datamodule import Batch
from clockwork.training.noised import noised


@dataclass(frozen=True)
class States(Batch):
    latents: Tensor  # batch × channels × height × width
    timestep: Tensor  # batch
    guidance: Tensor  # batch: the scale wanted there
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Visits:
    """Which states of a setup: its own guidance or one drawn from `scales` for every batch, its own step count or
    one drawn from `step_counts` (so that timesteps of any solver are seen), and every `every`-th step."""

    setup: Setup
    scales: tuple[float, float] | None = None
    step_counts: tuple[int, int] | None = None
    every: int = 1

    def drawn(self, items: Sequence[Prompt], seed: int) -> Setup:
        rng = random.Random(f"{seed}/{items[0].id}")
        guidance = self.setup.guidance if self.scales is None else round(rng.uniform(*self.scales), 3)
        steps = self.setup.steps if self.step_counts is None else rng.randint(*self.step_counts)
        return replace(self.setup, guidance=guidance, steps=steps)


class UnrolledStates(Visits):
    """`data=trajectories`: the latents that enter the steps of the teacher's roll-outs. No images."""

    def __call__(self, prompts: Sequence[Prompt], seed: int) -> States:
        setup = self.drawn(prompts, seed)
        captions = [p.text for p in prompts]
        condition, negative = setup.teacher.conditions(captions, setup.guidance, pooled=False)
        noise = setup.teacher.noise([p.id for p in prompts], seed)
        solver = make_solver(setup.solver, setup.teacher.noise_schedule)
        latents, states = noise * solver.init_noise_sigma, []
        for record in rollout(Full(setup.split), solver, setup.steps, noise, condition, negative, setup.guidance):
            if (record.step - 1) % self.every == 0:
                states.append(_states(setup, latents, record.timestep, captions))
            latents = record.latents
        return States.join(states)


class NoisedStates(Visits):
    """`data=noised`: pictures with noise of the solver's timesteps."""

    def __call__(self, images: Sequence[CaptionedImage], seed: int) -> States:
        setup = self.drawn(images, seed)
        captions = [image.text for image in images]
        data = setup.teacher.encode_images(pixels(images, setup.teacher.resolution))
        solver = make_solver(setup.solver, setup.teacher.noise_schedule)
        solver.set_timesteps(setup.steps)
        states = []
        for number, t in enumerate(solver.timesteps[:: self.every]):
            noise = setup.teacher.noise([image.id for image in images], seed * 1000 + number)
            states.append(_states(setup, noised(setup, data, noise, t.expand(len(data))), t, captions))
        return States.join(states)


def _states(setup: Setup, latents: Tensor, timestep: Tensor, captions: list[str]) -> States:
    scale = torch.full((len(captions),), float(setup.guidance))
    return States(latents, timestep.expand(len(captions)).to(latents.device), scale, tuple(captions))
