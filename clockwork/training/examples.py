"""Unrolled trajectories: the teacher's own roll-outs from captions, as an adaptor's examples (Algorithm 1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clockwork.adaptors import Adaptor
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.sampling.denoisers import Full
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Setup
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition
from clockwork.training.datamodule import Batch


@dataclass(frozen=True)
class AdaptorExample(Batch):
    """A batch of what the adaptor sees and should answer."""

    r_in: Tensor  # batch × channels × height × width
    r_out_prev: Tensor  # likewise: of the step before, the teacher's or the adaptor's own
    t_emb: Tensor  # batch × time width
    text_emb: Tensor  # batch × text width; width 0 without pooled text
    r_out: Tensor  # likewise, the teacher's: the answer
    step: Tensor  # batch: which step of the roll-out
    half: Tensor  # batch: 0 guidance's negative half, 1 the prompt's

    def together(self) -> Tensor:
        negative, positive = ((self.half == half).nonzero().flatten() for half in (0, 1))
        return torch.stack([negative, positive] if len(negative) else [positive])


class Unrolled:
    """Examples of captions: `data=trajectories`. With `features="own"`, features after an adaptor step are the trained
    adaptor's estimate, as they will be at inference."""

    def __init__(self, setup: Setup, features: str = "teacher") -> None:
        check_adaptor_steps(setup)
        if features not in ("teacher", "own"):
            raise UserError(f"no features {features!r}: say teacher, or own (the adaptor's after an adaptor step)")
        self.setup, self.own = setup, setup.adaptor if features == "own" else None

    def __call__(self, prompts: Sequence[Prompt], seed: int) -> AdaptorExample:
        return unroll(self.setup, prompts, seed, self.own)


def unroll(setup: Setup, prompts: Sequence[Prompt], seed: int, own: Adaptor | None = None) -> AdaptorExample:
    """Every adaptor step of the full teacher's roll-outs for a batch of prompts, both halves of guidance.

    With `own`, features after an adaptor step are that adaptor's estimate, as they will be at inference, instead
    of the teacher's (matters for consecutive adaptor steps only: clock 4, not clock 2).
    """
    condition, negative = setup.teacher.conditions([p.text for p in prompts], setup.guidance)
    noise = setup.teacher.noise([p.id for p in prompts], seed)
    solver = make_solver(setup.solver, setup.teacher.noise_schedule)
    text = pooled_text(halves(condition, negative))
    batch = len(text)
    half = which_half(batch, len(prompts))
    examples, previous = [], None
    for record in rollout(Full(setup.split), solver, setup.steps, noise, condition, negative, setup.guidance):
        seen, estimate = record.denoised, None
        if not setup.schedule.is_full(record.step):
            prev = torch.zeros_like(seen.r_out) if previous is None else previous
            t_emb, step = seen.t_emb.expand(batch, -1), torch.full((batch,), record.step)
            examples.append(AdaptorExample(seen.r_in, prev, t_emb, text, seen.r_out, step, half))
            if own is not None:
                with torch.no_grad():
                    estimate = own(seen.r_in, prev, t_emb, text)
        previous = seen.r_out if estimate is None else estimate
    return AdaptorExample.join(examples)


def halves(condition: Condition, negative: Condition | None) -> Condition:
    """The batch that the UNet sees: negative then positive with guidance."""
    return condition if negative is None else Condition.join(negative.expand(len(condition)), condition)


def which_half(batch: int, prompts: int) -> Tensor:
    """0 in guidance's negative half, 1 in the prompts'."""
    return (torch.arange(batch) >= batch - prompts).long()


def pooled_text(condition: Condition) -> Tensor:
    return condition.tokens.new_zeros(len(condition), 0) if condition.pooled is None else condition.pooled


def check_adaptor_steps(setup: Setup) -> None:
    if not setup.schedule.adaptor_steps(setup.calls):
        raise UserError(f"schedule {setup.schedule} has no adaptor steps to train on: say schedule=clock2, or another")
