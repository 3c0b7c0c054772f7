"""Regular distillation, the paper's ablation (Figure 7): images noised to two neighbouring timesteps."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from clockwork.adaptors import NO_HISTORY
from clockwork.data.captioned_images import CaptionedImage, pixels
from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.sampling.denoisers import Denoised
from clockwork.sampling.guidance import cfg_batch, is_conditional
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition
from clockwork.training.adaptor_example import AdaptorExample, history_fields
from clockwork.training.examples import AdaptorSource, text_emb_or_empty
from clockwork.training.source import Work

__getattr__ = renamed(__name__)


class NoisedExamples(AdaptorSource):
    """Adaptor examples from captioned images (`data=noised`).

    Each image yields one example per adaptor step and half of guidance, as many as a roll-out yields, so that both ways
    of training are compared with the same number of examples.

    Args:
        sampler: The operating point.
        with_latents: Whether examples hold latents, timesteps and captions, for a loss that runs the UNet.

    Raises:
        UserError: The sampler's schedule has no adaptor steps, or the adaptor reads features of earlier steps besides
            `r_out_prev`, which single images do not have.
    """

    def __init__(self, sampler: Sampler, with_latents: bool = False) -> None:
        super().__init__(sampler, with_latents)
        inputs = () if sampler.adaptor is None else sampler.adaptor.inputs
        if history := {"r_in_prev", "full_steps"} & set(inputs):
            raise UserError(
                f"data=noised has no roll-outs, from which this adaptor reads {' and '.join(sorted(history))}: use "
                "data=trajectories"
            )
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        solver.set_timesteps(sampler.steps)
        self.timesteps = solver.timesteps

    def work(self, seed: int, batch_id: int) -> Work:
        """Returns the number of examples and UNet calls of one image."""
        calls = sum(2 if step > 1 else 1 for step in self.adaptor_steps)
        return Work(self.group_size * len(self.adaptor_steps), self.group_size * calls)

    def parts(self, images: Sequence[CaptionedImage], seed: int, batch_id: int) -> Iterator[AdaptorExample]:
        """Generates the examples of some images, step by step."""
        teacher = self.sampler.teacher
        clean = teacher.encode_images(pixels(images, teacher.resolution))
        conditions = teacher.conditions([image.text for image in images], self.sampler.guidance, self.reads_text)
        condition, captions = cfg_batch(*conditions), [image.text for image in images]
        for step in self.adaptor_steps:
            noise = teacher.noise([image.id for image in images], seed * 1000 + step)
            previous, current = (
                add_noise(self.sampler, clean, noise, self.timesteps[max(i, 0)].expand(len(clean)))
                for i in (step - 2, step - 1)
            )
            yield self.example(previous, current, step, condition, captions)

    def example(
        self, previous: Tensor, current: Tensor, step: int, condition: Condition, captions: Sequence[str] = ()
    ) -> AdaptorExample:
        """Computes the examples of one step.

        Args:
            previous: Latents that enter the step before, `batch × channels × height × width`.
            current: Latents that enter this step, of the same shape.
            step: The step, from 1.
            condition: Conditions of both halves of guidance.
            captions: Captions of one half; needed for a loss that runs the UNet.

        Returns:
            One example per latent and half.
        """
        denoised = self._denoise(current, step, condition)
        if step > 1:
            r_out_prev = self._denoise(previous, step - 1, condition).r_out
        else:
            r_out_prev = torch.zeros_like(denoised.r_out)
        batch = len(condition)
        return AdaptorExample(
            r_in=denoised.r_in,
            r_out_prev=r_out_prev,
            t_emb=denoised.t_emb.expand(batch, -1),
            text_emb=text_emb_or_empty(condition),
            r_out=denoised.r_out,
            step=torch.full((batch,), step),
            conditional=is_conditional(batch, len(current)),
            **history_fields(self.sampler.adaptor, step, NO_HISTORY, denoised.r_in),
            **self.latent_fields(self._repeated(current, condition), self.timesteps[step - 1], captions),
        )

    @torch.no_grad()
    def _denoise(self, latents: Tensor, step: int, condition: Condition) -> Denoised:
        """Runs the full UNet on the latents of a step, once per half of guidance."""
        t = self.timesteps[step - 1].to(latents.device)
        return self.sampler.full_denoiser(self._repeated(latents, condition), t, condition, step, NO_HISTORY)

    def _repeated(self, latents: Tensor, condition: Condition) -> Tensor:
        """Returns the latents once per half of guidance."""
        return torch.cat([latents] * (len(condition) // len(latents)))


def add_noise(sampler: Sampler, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Adds noise to latents by the teacher's noise schedule.

    Args:
        sampler: Sampler with the teacher.
        clean: Latents of images, `batch × channels × height × width`.
        noise: Noise of the same shape.
        timesteps: Timesteps, `batch`.

    Returns:
        The noisy latents.
    """
    schedule = sampler.teacher.noise_schedule
    solver = make_solver("flow" if sampler.teacher.flow else "ddim", schedule)
    return solver.add_noise(clean, noise, timesteps.to(clean.device))
