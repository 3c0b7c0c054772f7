"""The two denoisers: the full UNet, and the UNet with a clock (paper, Section 4.2)."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from clockwork.adaptors import Adaptor
from clockwork.errors import UserError
from clockwork.schedule import Schedule
from clockwork.teachers import Condition
from clockwork.unet.inputs import Embedded
from clockwork.unet.split import SplitUNet


@dataclass(frozen=True)
class Denoised:
    """One denoiser call: its output, and the features at the cut."""

    output: Tensor  # batch × channels × height × width: what the UNet predicts
    r_in: Tensor
    r_out: Tensor  # the low-res path's, or the adaptor's estimate of it
    t_emb: Tensor
    full: bool


class Denoiser(Protocol):
    def __call__(
        self, sample: Tensor, t: Tensor, condition: Condition, step: int, r_out_prev: Tensor | None
    ) -> Denoised:
        """`step` counts calls from 1; `r_out_prev` is the step before's `r_out`, None on the first."""
        ...


@dataclass(frozen=True)
class Full:
    """Every step a full pass."""

    split: SplitUNet

    def __call__(
        self, sample: Tensor, t: Tensor, condition: Condition, step: int, r_out_prev: Tensor | None
    ) -> Denoised:
        e = _embed(self.split, sample, t, condition)
        high = self.split.high_in(e)
        r_out = self.split.low(high, e)
        return Denoised(self.split.high_out(r_out, high, e), high.r_in, r_out, e.t_emb, full=True)


@dataclass(frozen=True)
class Clocked:
    """A full pass where the schedule says so, else the adaptor in the low-res path's place.

    `r_out_hat[t] = phi(r_in[t], r_out[t+1], t_emb, text_emb)`; after an adaptor step its own estimate is fed on.
    """

    split: SplitUNet
    adaptor: Adaptor
    schedule: Schedule

    def __post_init__(self) -> None:
        if "r_out_prev" in self.adaptor.inputs and not self.schedule.is_full(1):
            raise UserError(
                f"schedule {self.schedule} has no full step, and this adaptor reads the step before: use clock2"
            )

    def __call__(
        self, sample: Tensor, t: Tensor, condition: Condition, step: int, r_out_prev: Tensor | None
    ) -> Denoised:
        if self.schedule.is_full(step):
            return Full(self.split)(sample, t, condition, step, r_out_prev)
        e = _embed(self.split, sample, t, condition)
        high = self.split.high_in(e)
        t_emb = e.t_emb.expand(len(sample), -1)
        r_out = estimate(self.adaptor, high.r_in, r_out_prev, t_emb, condition.pooled)
        return Denoised(self.split.high_out(r_out, high, e), high.r_in, r_out, e.t_emb, full=False)


def estimate(
    adaptor: Adaptor, r_in: Tensor, r_out_prev: Tensor | None, t_emb: Tensor, text_emb: Tensor | None
) -> Tensor:
    """The adaptor's `r_out`, computed in the adaptor's precision and returned in that of `r_in`, the UNet's.

    Args:
        adaptor: In any floating precision: usually float32 while it is trained, the UNet's in a pipeline.
        r_in, r_out_prev: Features at the cut, `batch × channels × height × width`; `r_out_prev` is the step before's.
        t_emb, text_emb: Embeddings, `batch × width`.
    """
    dtype = adaptor.dtype or r_in.dtype
    inputs = (None if x is None else x.to(dtype) for x in (r_in, r_out_prev, t_emb, text_emb))
    estimated: Tensor = adaptor(*inputs)
    return estimated.to(r_in.dtype)


def _embed(split: SplitUNet, sample: Tensor, t: Tensor, condition: Condition) -> Embedded:
    """The UNet call's embeddings, in the UNet's own precision whatever the sampling loop's."""
    dtype = split.dtype
    if sample.dtype != dtype:
        sample, condition = sample.to(dtype), condition.to(dtype)
    return split.embed(sample, t, condition.tokens, **condition.unet)
