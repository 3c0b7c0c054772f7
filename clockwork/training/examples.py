"""Adaptor examples from unrolled trajectories, which are the teacher's roll-outs from captions (Algorithm 1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clockwork.adaptors import Adaptor, History
from clockwork.data.prompts import Prompt
from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.sampling.denoisers import FullDenoiser, estimate
from clockwork.sampling.feature_shapes import feature_shapes
from clockwork.sampling.guidance import cfg_batch, is_conditional
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition
from clockwork.training.source import ExampleSource, Work
from clockwork.training.store import Batch

__getattr__ = renamed(__name__)


@dataclass(frozen=True)
class AdaptorExample(Batch):
    """Inputs and target of an adaptor. Features and `t_emb` are in the teacher's precision.

    Attributes:
        r_in: Features that enter the low-res path, `batch × channels × height × width`.
        r_out_prev: Features that left it on the previous step, `batch × channels × height × width`: the teacher's, or
            the adaptor's estimate of them.
        t_emb: Time embedding, `batch × time width`.
        text_emb: Text embedding, `batch × text width`; the width is 0 for adaptors that do not read text.
        r_out: The teacher's features that leave the low-res path, of the shape of `r_out_prev`: the target.
        step: Step of the roll-out, from 1, `batch`.
        conditional: 0 in guidance's unconditional half and 1 in the prompts' half, `batch`.
    """

    r_in: Tensor
    r_out_prev: Tensor
    t_emb: Tensor
    text_emb: Tensor
    r_out: Tensor
    step: Tensor
    conditional: Tensor


class AdaptorSource(ExampleSource):
    """Base class of sources of adaptor examples at a sampler's operating point.

    Args:
        sampler: The operating point, with the teacher, and the adaptor if its inputs are known.

    Raises:
        UserError: The sampler's schedule has no adaptor steps.
    """

    def __init__(self, sampler: Sampler) -> None:
        if not sampler.schedule.adaptor_steps(sampler.num_unet_calls):
            raise UserError(f"schedule {sampler.schedule} has no adaptor steps to train on: use schedule=clock2")
        self.sampler = sampler
        self.adaptor_steps = sampler.schedule.adaptor_steps(sampler.num_unet_calls)
        self.group_size = sampler.teacher.unet_calls_per_step(sampler.guidance)
        self.reads_text = sampler.adaptor is None or "text_emb" in sampler.adaptor.inputs

    def example_bytes(self) -> int:
        """Returns the memory of one example in bytes."""
        teacher = self.sampler.teacher
        r_in, r_out, t_emb = feature_shapes(teacher, self.sampler.split.cut)
        text = teacher.text_width * 4 if self.reads_text else 0
        size = torch.empty(0, dtype=teacher.unet.dtype).element_size()
        return size * (r_in.numel() + 2 * r_out.numel() + t_emb.numel()) + text + 2 * 8


class TrajectoryExamples(AdaptorSource):
    """Adaptor examples from captions (`data=trajectories`; paper, Section 4.3).

    Args:
        sampler: The operating point, with the adaptor in training.
        features: `r_out_prev` after an adaptor step: the `teacher`'s features, or the adaptor's `own` estimate, as at
            inference. This matters only for consecutive adaptor steps, as with clock 4 but not clock 2.

    Raises:
        UserError: `features` is neither, or the sampler's schedule has no adaptor steps.
    """

    def __init__(self, sampler: Sampler, features: str = "teacher") -> None:
        super().__init__(sampler)
        if features not in ("teacher", "own"):
            raise UserError(f"features={features} is not known: use teacher or own")
        self.adaptor = sampler.adaptor if features == "own" else None

    def work(self, seed: int, batch_id: int) -> Work:
        """Returns the number of examples and UNet calls of one caption."""
        return Work(self.group_size * len(self.adaptor_steps), self.group_size * self.sampler.num_unet_calls)

    def parts(self, items: Sequence[Prompt], seed: int, batch_id: int) -> Iterator[AdaptorExample]:
        """Generates the examples of some captions, step by step."""
        return unroll(self.sampler, items, seed, self.adaptor, self.reads_text)


def unroll(
    sampler: Sampler, prompts: Sequence[Prompt], seed: int, adaptor: Adaptor | None = None, reads_text: bool = True
) -> Iterator[AdaptorExample]:
    """Runs the full teacher from noise to latent, and yields the examples of the adaptor steps.

    Args:
        sampler: The operating point.
        prompts: A batch of prompts.
        seed: Seed of the noise.
        adaptor: Adaptor whose estimate is `r_out_prev` after an adaptor step; by default the teacher's features are.
        reads_text: Whether the adaptor reads the text embedding; otherwise the text embedder is not loaded.

    Yields:
        One batch per adaptor step, with both halves of guidance, the negative half first.
    """
    condition, negative = sampler.teacher.conditions([p.text for p in prompts], sampler.guidance, reads_text)
    noise = sampler.teacher.noise([p.id for p in prompts], seed)
    solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
    both = cfg_batch(condition, negative)
    text, batch = text_emb_or_empty(both), len(both)
    conditional = is_conditional(batch, len(prompts))
    r_out_prev = None
    for record in rollout(
        FullDenoiser(sampler.split), solver, sampler.steps, noise, condition, negative, sampler.guidance
    ):
        denoised, estimated = record.denoised, None
        if not sampler.schedule.is_full(record.step):
            prev = torch.zeros_like(denoised.r_out) if r_out_prev is None else r_out_prev
            t_emb, step = denoised.t_emb.expand(batch, -1), torch.full((batch,), record.step)
            yield AdaptorExample(denoised.r_in, prev, t_emb, text, denoised.r_out, step, conditional)
            if adaptor is not None:
                with torch.no_grad():
                    estimated = estimate(adaptor, denoised.r_in, t_emb, both, record.step, History(prev))
        r_out_prev = denoised.r_out if estimated is None else estimated


def text_emb_or_empty(condition: Condition) -> Tensor:
    """Returns the text embedding that adaptors read.

    Args:
        condition: Condition of the UNet.

    Returns:
        The embedding, `batch × width`; the width is 0 if the condition has none.
    """
    return condition.prompt_embeds.new_zeros(len(condition), 0) if condition.text_emb is None else condition.text_emb
