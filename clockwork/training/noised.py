"""Regular distillation, the paper's ablation (Figure 7): pictures noised forward to two neighbouring timesteps."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from clockwork.data.captioned_images import CaptionedImage, pixels
from clockwork.sampling.denoisers import Denoised, FullDenoiser
from clockwork.sampling.guidance import cfg_batch, is_conditional
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition
from clockwork.training.examples import AdaptorExample, AdaptorSource, text_emb_or_empty
from clockwork.training.source import Work


class NoisedExamples(AdaptorSource):
    """Examples of images: `data=noised`. One per image and adaptor step, both halves of guidance: as many as a
    roll-out gives, so that the two compare like for like."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__(sampler)
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        solver.set_timesteps(sampler.steps)
        self.times = solver.timesteps

    def work(self, seed: int, batch_id: int) -> Work:
        calls = sum(2 if step > 1 else 1 for step in self.adaptor_steps)
        return Work(self.group_size * len(self.adaptor_steps), self.group_size * calls)

    def parts(self, images: Sequence[CaptionedImage], seed: int, batch_id: int) -> Iterator[AdaptorExample]:
        teacher = self.sampler.teacher
        data = teacher.encode_images(pixels(images, teacher.resolution))
        conditions = teacher.conditions([image.text for image in images], self.sampler.guidance, self.reads_text)
        condition = cfg_batch(*conditions)
        for step in self.adaptor_steps:
            noise = teacher.noise([image.id for image in images], seed * 1000 + step)
            before, now = (
                noised(self.sampler, data, noise, self.times[max(i, 0)].expand(len(data))) for i in (step - 2, step - 1)
            )
            yield self.pair(before, now, step, condition)

    def pair(self, before: Tensor, now: Tensor, step: int, condition: Condition) -> AdaptorExample:
        """The example at a step, from the latents that enter the step before and this one."""
        seen = self._look(now, step, condition)
        prev = self._look(before, step - 1, condition).r_out if step > 1 else torch.zeros_like(seen.r_out)
        batch = len(condition)
        t_emb, number = seen.t_emb.expand(batch, -1), torch.full((batch,), step)
        conditional = is_conditional(batch, len(now))
        return AdaptorExample(seen.r_in, prev, t_emb, text_emb_or_empty(condition), seen.r_out, number, conditional)

    @torch.no_grad()
    def _look(self, latents: Tensor, step: int, condition: Condition) -> Denoised:
        both = torch.cat([latents] * (len(condition) // len(latents)))
        return FullDenoiser(self.sampler.split)(both, self.times[step - 1].to(latents.device), condition, step, None)


def noised(sampler: Sampler, data: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Latents of images, with noise as the teacher's noise schedule has at the timesteps (`batch`)."""
    schedule = sampler.teacher.noise_schedule
    solver = make_solver("flow" if sampler.teacher.flow else "ddim", schedule)
    return solver.add_noise(data, noise, timesteps.to(data.device))
