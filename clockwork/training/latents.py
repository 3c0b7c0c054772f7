"""Noisy latents on which a UNet is trained: from the teacher's roll-outs, or from noised images."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from clockwork.data.captioned_images import CaptionedImage, pixels
from clockwork.data.prompts import Prompt
from clockwork.deprecated import renamed
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.training.noised import add_noise
from clockwork.training.source import ExampleSource, Work
from clockwork.training.store import Batch

__getattr__ = renamed(__name__)


@dataclass(frozen=True)
class NoisyLatents(Batch):
    """Noisy latents, and what determines the prediction for them.

    Attributes:
        latents: Latents in float32, `batch × channels × height × width`.
        timestep: Timesteps, `batch`.
        guidance: Guidance scales, `batch`.
        captions: Captions, one per latent.
    """

    latents: Tensor
    timestep: Tensor
    guidance: Tensor
    captions: tuple[str, ...]


class LatentSource(ExampleSource):
    """Base class of sources of noisy latents at a sampler's timesteps.

    Args:
        sampler: The operating point of the teacher's roll-outs.
        scales: Smallest and largest guidance scale, between which one is drawn for each generation batch; the sampler's
            by default.
        step_counts: Smallest and largest number of steps, between which one is drawn for each generation batch, so that
            training covers the timesteps of any solver; the sampler's number by default.
        step_stride: Every `step_stride`-th step of a roll-out is used, from the first.
    """

    def __init__(
        self,
        sampler: Sampler,
        scales: tuple[float, float] | None = None,
        step_counts: tuple[int, int] | None = None,
        step_stride: int = 1,
    ) -> None:
        self.sampler, self.scales, self.step_counts, self.step_stride = sampler, scales, step_counts, step_stride

    def sample_point(self, seed: int, batch_id: int) -> Sampler:
        """Draws guidance scale and number of steps of one generation batch; the same in every process.

        Args:
            seed: Seed of the noise.
            batch_id: Id of the generation batch's first item over all processes.

        Returns:
            The sampler with the scale and number of steps.
        """
        rng = random.Random(f"{seed}/{batch_id}")
        guidance = self.sampler.guidance if self.scales is None else round(rng.uniform(*self.scales), 3)
        steps = self.sampler.steps if self.step_counts is None else rng.randint(*self.step_counts)
        return replace(self.sampler, guidance=guidance, steps=steps)

    def example_bytes(self) -> int:
        """Returns the memory of one latent, timestep and guidance scale in bytes."""
        return 4 * prod(self.sampler.teacher.latent_shape) + 8 + 4

    def _num_used_steps(self, sampler: Sampler) -> int:
        """Returns how many steps of a roll-out are used."""
        return -(-sampler.num_unet_calls // self.step_stride)


class UnrolledLatents(LatentSource):
    """Latents that enter the steps of the teacher's roll-outs from captions (`data=trajectories`)."""

    def work(self, seed: int, batch_id: int) -> Work:
        """Returns the number of latents and UNet calls of one caption."""
        sampler = self.sample_point(seed, batch_id)
        unet_calls = sampler.num_unet_calls * sampler.teacher.unet_calls_per_step(sampler.guidance)
        return Work(self._num_used_steps(sampler), unet_calls)

    def parts(self, prompts: Sequence[Prompt], seed: int, batch_id: int) -> Iterator[NoisyLatents]:
        """Runs the teacher from noise to latent, and yields the latents step by step."""
        sampler = self.sample_point(seed, batch_id)
        captions = [p.text for p in prompts]
        condition, negative = sampler.teacher.conditions(captions, sampler.guidance, with_text_emb=False)
        noise = sampler.teacher.noise([p.id for p in prompts], seed)
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        latents = noise * solver.init_noise_sigma
        for record in rollout(
            sampler.full_denoiser, solver, sampler.steps, noise, condition, negative, sampler.guidance
        ):
            if (record.step - 1) % self.step_stride == 0:
                yield _noisy_latents(sampler, latents, record.timestep, captions)
            latents = record.latents


class NoisedLatents(LatentSource):
    """Latents of captioned images, noised to the solver's timesteps (`data=noised`)."""

    def work(self, seed: int, batch_id: int) -> Work:
        """Returns the number of latents of one image; no UNet call is needed."""
        return Work(self._num_used_steps(self.sample_point(seed, batch_id)), 0)

    def parts(self, images: Sequence[CaptionedImage], seed: int, batch_id: int) -> Iterator[NoisyLatents]:
        """Encodes the images, and yields their noised latents timestep by timestep."""
        sampler = self.sample_point(seed, batch_id)
        captions = [image.text for image in images]
        clean = sampler.teacher.encode_images(pixels(images, sampler.teacher.resolution))
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        solver.set_timesteps(sampler.steps)
        for number, t in enumerate(solver.timesteps[:: self.step_stride]):
            noise = sampler.teacher.noise([image.id for image in images], seed * 1000 + number)
            latents = add_noise(sampler, clean, noise, t.expand(len(clean)))
            yield _noisy_latents(sampler, latents, t, captions)


def _noisy_latents(sampler: Sampler, latents: Tensor, timestep: Tensor, captions: list[str]) -> NoisyLatents:
    """Creates a batch of latents at one timestep, with the sampler's guidance scale."""
    scale = torch.full((len(captions),), float(sampler.guidance))
    return NoisyLatents(latents, timestep.expand(len(captions)).to(latents.device), scale, tuple(captions))
