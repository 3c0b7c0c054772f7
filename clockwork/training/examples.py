"""Adaptor examples from unrolled trajectories, which are roll-outs from captions (Algorithm 1)."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from clockwork.data.prompts import Prompt
from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.sampling.feature_shapes import feature_shapes
from clockwork.sampling.guidance import cfg_batch, is_conditional
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition
from clockwork.training.adaptor_example import AdaptorExample, history_bytes, history_fields
from clockwork.training.on_policy import TrainingDenoiser, WithTarget
from clockwork.training.source import ExampleSource, Work

__getattr__ = renamed(__name__)
ROLLOUTS = ("teacher", "adaptor")


class AdaptorSource(ExampleSource):
    """Base class of sources of adaptor examples at a sampler's operating point.

    Args:
        sampler: The operating point, with the teacher, and the adaptor if its inputs are known.
        with_latents: Whether examples hold latents, timesteps and captions, for a loss that runs the UNet.

    Raises:
        UserError: The sampler's schedule has no adaptor steps.
    """

    def __init__(self, sampler: Sampler, with_latents: bool = False) -> None:
        if not sampler.schedule.adaptor_steps(sampler.num_unet_calls):
            raise UserError(f"schedule {sampler.schedule} has no adaptor steps to train on: use schedule=clock2")
        self.sampler, self.with_latents = sampler, with_latents
        self.adaptor_steps = sampler.schedule.adaptor_steps(sampler.num_unet_calls)
        self.group_size = sampler.teacher.unet_calls_per_step(sampler.guidance)
        self.reads_text = sampler.adaptor is None or "text_emb" in sampler.adaptor.inputs

    def example_bytes(self) -> int:
        """Returns the memory of one example in bytes."""
        teacher = self.sampler.teacher
        size = torch.empty(0, dtype=teacher.unet.dtype).element_size()
        shapes = feature_shapes(teacher, self.sampler.split.cut)
        r_in, r_out, t_emb = (size * shape.numel() for shape in shapes)
        text = teacher.text_width * 4 if self.reads_text else 0
        latents = 4 * prod(teacher.latent_shape) + 8 if self.with_latents else 0
        return r_in + 2 * r_out + t_emb + text + 2 * 8 + history_bytes(self.sampler.adaptor, r_in, r_out) + latents

    def latent_fields(self, sample: Tensor, t: Tensor, captions: Sequence[str]) -> dict[str, Any]:
        """Returns the fields of examples for losses that run the UNet; none without such a loss.

        Args:
            sample: Latents that enter the step, scaled for the UNet, `batch × channels × height × width`.
            t: The solver's timestep, a scalar.
            captions: The captions of one half of guidance, `batch / group_size`.
        """
        if not self.with_latents:
            return {}
        timestep = t.to(sample.device).expand(len(sample))
        return {"latents": sample.float(), "timestep": timestep, "captions": tuple(captions) * self.group_size}


class TrajectoryExamples(AdaptorSource):
    """Adaptor examples from captions (`data=trajectories`; paper, Section 4.3).

    Args:
        sampler: The operating point, with the adaptor in training.
        rollout: Whose roll-out gives latents and features: the `teacher`'s, as in the paper, or the `adaptor`'s, the
            clocked roll-out with the adaptor as it is at this point of its training. The target is what the teacher's
            low-res path makes of the same latents.
        with_latents: Whether examples hold latents, timesteps and captions, for a loss that runs the UNet.

    Raises:
        UserError: `rollout` is neither, or the sampler's schedule has no adaptor steps.
    """

    def __init__(self, sampler: Sampler, rollout: str = "teacher", with_latents: bool = False) -> None:
        super().__init__(sampler, with_latents)
        if rollout not in ROLLOUTS:
            raise UserError(f"rollout={rollout} is not known: use {' or '.join(ROLLOUTS)}")
        self.rollout = rollout

    def work(self, seed: int, batch_id: int) -> Work:
        """Returns the number of examples and UNet calls of one caption."""
        return Work(self.group_size * len(self.adaptor_steps), self.group_size * self.sampler.num_unet_calls)

    def for_validation(self) -> "TrajectoryExamples":
        """Returns the source of the teacher's roll-outs, whose examples do not change during training."""
        return TrajectoryExamples(self.sampler, "teacher", self.with_latents)

    def parts(self, items: Sequence[Prompt], seed: int, batch_id: int) -> Iterator[AdaptorExample]:
        """Generates the examples of some captions, step by step: both halves of guidance, the negative half first."""
        sampler, captions = self.sampler, [prompt.text for prompt in items]
        condition, negative = sampler.teacher.conditions(captions, sampler.guidance, self.reads_text)
        noise = sampler.teacher.noise([prompt.id for prompt in items], seed)
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        denoiser = TrainingDenoiser(
            sampler.split, sampler.adaptor, sampler.schedule, self.rollout == "adaptor", sampler.functions
        )
        both = cfg_batch(condition, negative)
        text, batch = text_emb_or_empty(both), len(both)
        conditional = is_conditional(batch, len(items))
        r_out_prev = None
        for record in rollout(denoiser, solver, sampler.steps, noise, condition, negative, sampler.guidance):
            step, denoised = record.step, record.denoised
            assert isinstance(denoised, WithTarget)
            if not sampler.schedule.is_full(step):
                yield AdaptorExample(
                    denoised.r_in,
                    torch.zeros_like(denoised.r_out) if r_out_prev is None else r_out_prev,
                    denoised.t_emb.expand(batch, -1),
                    text,
                    denoised.target,
                    torch.full((batch,), step),
                    conditional,
                    **history_fields(sampler.adaptor, step, denoised.past, denoised.r_in),
                    **self.latent_fields(denoised.sample, record.timestep, captions),
                )
            r_out_prev = denoised.r_out


def text_emb_or_empty(condition: Condition) -> Tensor:
    """Returns the text embedding that adaptors read.

    Args:
        condition: Condition of the UNet.

    Returns:
        The embedding, `batch × width`; the width is 0 if the condition has none.
    """
    return condition.prompt_embeds.new_zeros(len(condition), 0) if condition.text_emb is None else condition.text_emb
