"""Unrolled trajectories: the teacher's own roll-outs from captions, as an adaptor's examples (Algorithm 1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from clockwork.adaptors import Adaptor
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.sampling.denoisers import FullDenoiser, estimate
from clockwork.sampling.guidance import cfg_batch, is_conditional
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Sampler, meta_call
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition
from clockwork.training.source import ExampleSource, Work
from clockwork.training.store import Batch
from clockwork.unet.split import SplitUNet


@dataclass(frozen=True)
class AdaptorExample(Batch):
    """What the adaptor sees and should answer; features and `t_emb` in the teacher's precision."""

    r_in: Tensor  # batch × channels × height × width
    r_out_prev: Tensor  # likewise: of the step before, the teacher's or the adaptor's own
    t_emb: Tensor  # batch × time width
    text_emb: Tensor  # batch × text width; width 0 for adaptors that do not read text
    r_out: Tensor  # like r_out_prev, the teacher's: the answer
    step: Tensor  # batch: which step of the roll-out
    conditional: Tensor  # batch: 0 in guidance's unconditional half, 1 in the prompts'


class AdaptorSource(ExampleSource):
    """What `data=trajectories` and `data=noised` share: examples of an adaptor at a sampler's operating point.

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

    @cached_property
    def _shapes(self) -> tuple[tuple[torch.Size, ...], torch.Size]:
        return feature_shapes(self.sampler)  # builds a UNet, and every epoch asks

    def example_bytes(self) -> int:
        teacher = self.sampler.teacher
        features, e = self._shapes
        text = teacher.text_width * 4 if self.reads_text else 0
        size = torch.empty(0, dtype=teacher.unet.dtype).element_size()
        return size * (sum(shape.numel() for shape in features) + e.numel()) + text + 2 * 8


def feature_shapes(sampler: Sampler) -> tuple[tuple[torch.Size, torch.Size, torch.Size], torch.Size]:
    """Shapes of one example's r_in, r_out_prev and r_out, `channels × height × width`, and of its time embedding."""
    with torch.device("meta"):
        unet = type(sampler.teacher.unet).from_config(sampler.teacher.unet.config)
    split = SplitUNet(unet, sampler.split.cut)
    e = split.embed(**meta_call(unet, sampler.teacher.latent_shape, tokens=1))
    high = split.high_in(e)
    r_out = split.low(high, e).shape[1:]
    return (high.r_in.shape[1:], r_out, r_out), e.t_emb.shape[1:]


class TrajectoryExamples(AdaptorSource):
    """Examples of captions: `data=trajectories`.

    Args:
        sampler: The operating point, with the adaptor in training.
        features: What an example has as `r_out_prev` after an adaptor step: `teacher`'s features, or the adaptor's
            `own` estimate, as it will be at inference (matters for consecutive adaptor steps only: clock 4, not clock
            2).
    """

    def __init__(self, sampler: Sampler, features: str = "teacher") -> None:
        super().__init__(sampler)
        if features not in ("teacher", "own"):
            raise UserError(f"features={features} is not known: use teacher, or own")
        self.own = sampler.adaptor if features == "own" else None

    def work(self, seed: int, batch_id: int) -> Work:
        return Work(self.group_size * len(self.adaptor_steps), self.group_size * self.sampler.num_unet_calls)

    def parts(self, items: Sequence[Prompt], seed: int, batch_id: int) -> Iterator[AdaptorExample]:
        return unroll(self.sampler, items, seed, self.own, self.reads_text)


def unroll(
    sampler: Sampler, prompts: Sequence[Prompt], seed: int, own: Adaptor | None = None, reads_text: bool = True
) -> Iterator[AdaptorExample]:
    """Each adaptor step of the full teacher's roll-outs for a batch of prompts, both halves of guidance.

    Args:
        sampler: The operating point.
        prompts: The batch.
        seed: The noise's.
        own: The adaptor whose estimate replaces the teacher's features after an adaptor step.
        reads_text: Whether the adaptors' text embedding is needed; without it the text embedder is not loaded.
    """
    condition, negative = sampler.teacher.conditions([p.text for p in prompts], sampler.guidance, reads_text)
    noise = sampler.teacher.noise([p.id for p in prompts], seed)
    solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
    text = text_emb_or_empty(cfg_batch(condition, negative))
    batch = len(text)
    conditional = is_conditional(batch, len(prompts))
    previous = None
    for record in rollout(
        FullDenoiser(sampler.split), solver, sampler.steps, noise, condition, negative, sampler.guidance
    ):
        seen, estimated = record.denoised, None
        if not sampler.schedule.is_full(record.step):
            prev = torch.zeros_like(seen.r_out) if previous is None else previous
            t_emb, step = seen.t_emb.expand(batch, -1), torch.full((batch,), record.step)
            yield AdaptorExample(seen.r_in, prev, t_emb, text, seen.r_out, step, conditional)
            if own is not None:
                with torch.no_grad():
                    estimated = estimate(own, seen.r_in, prev, t_emb, text)
        previous = seen.r_out if estimated is None else estimated


def text_emb_or_empty(condition: Condition) -> Tensor:
    """The adaptors' text embedding, `batch × width`; width 0 without one."""
    return condition.prompt_embeds.new_zeros(len(condition), 0) if condition.text_emb is None else condition.text_emb
