"""Where a UNet is asked while it is trained: on the teacher's roll-outs, or at images noised to their timesteps."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from clockwork.data.captioned_images import CaptionedImage, pixels
from clockwork.data.prompts import Prompt
from clockwork.sampling.denoisers import FullDenoiser
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.training.noised import noised
from clockwork.training.source import ExampleSource, Work
from clockwork.training.store import Batch


@dataclass(frozen=True)
class NoisyLatents(Batch):
    """Latents in float32, and what is to be predicted at them."""

    latents: Tensor  # batch × channels × height × width
    timestep: Tensor  # batch
    guidance: Tensor  # batch: the scale wanted there
    captions: tuple[str, ...]


class LatentSource(ExampleSource):
    """Which states of a sampler a UNet is trained at.

    Args:
        sampler: The operating point of the teacher's roll-outs.
        scales: Guidance scales from which one is drawn for every generation batch; the sampler's own by default.
        step_counts: Step counts from which one is drawn likewise, so that timesteps of any solver are seen.
        step_stride: Every `step_stride`-th step of a roll-out is used.
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
        """The sampler of one generation batch, the same in every process."""
        rng = random.Random(f"{seed}/{batch_id}")
        guidance = self.sampler.guidance if self.scales is None else round(rng.uniform(*self.scales), 3)
        steps = self.sampler.steps if self.step_counts is None else rng.randint(*self.step_counts)
        return replace(self.sampler, guidance=guidance, steps=steps)

    def example_bytes(self) -> int:
        return 4 * prod(self.sampler.teacher.latent_shape) + 8 + 4

    def _visited(self, sampler: Sampler) -> int:
        return -(-sampler.num_unet_calls // self.step_stride)


class UnrolledLatents(LatentSource):
    """`data=trajectories`: the latents that enter the steps of the teacher's roll-outs. No images."""

    def work(self, seed: int, batch_id: int) -> Work:
        sampler = self.sample_point(seed, batch_id)
        return Work(
            self._visited(sampler), sampler.num_unet_calls * sampler.teacher.unet_calls_per_step(sampler.guidance)
        )

    def parts(self, prompts: Sequence[Prompt], seed: int, batch_id: int) -> Iterator[NoisyLatents]:
        sampler = self.sample_point(seed, batch_id)
        captions = [p.text for p in prompts]
        condition, negative = sampler.teacher.conditions(captions, sampler.guidance, with_text_emb=False)
        noise = sampler.teacher.noise([p.id for p in prompts], seed)
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        latents = noise * solver.init_noise_sigma
        for record in rollout(
            FullDenoiser(sampler.split), solver, sampler.steps, noise, condition, negative, sampler.guidance
        ):
            if (record.step - 1) % self.step_stride == 0:
                yield _noisy_latents(sampler, latents, record.timestep, captions)
            latents = record.latents


class NoisedLatents(LatentSource):
    """`data=noised`: images with noise of the solver's timesteps."""

    def work(self, seed: int, batch_id: int) -> Work:
        return Work(self._visited(self.sample_point(seed, batch_id)), 0)

    def parts(self, images: Sequence[CaptionedImage], seed: int, batch_id: int) -> Iterator[NoisyLatents]:
        sampler = self.sample_point(seed, batch_id)
        captions = [image.text for image in images]
        data = sampler.teacher.encode_images(pixels(images, sampler.teacher.resolution))
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        solver.set_timesteps(sampler.steps)
        for number, t in enumerate(solver.timesteps[:: self.step_stride]):
            noise = sampler.teacher.noise([image.id for image in images], seed * 1000 + number)
            yield _noisy_latents(sampler, noised(sampler, data, noise, t.expand(len(data))), t, captions)


def _noisy_latents(sampler: Sampler, latents: Tensor, timestep: Tensor, captions: list[str]) -> NoisyLatents:
    scale = torch.full((len(captions),), float(sampler.guidance))
    return NoisyLatents(latents, timestep.expand(len(captions)).to(latents.device), scale, tuple(captions))
