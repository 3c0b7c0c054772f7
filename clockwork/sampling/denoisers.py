"""The denoisers: one runs the full UNet on every step, the other follows a schedule (paper, Section 4.2)."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from clockwork.adaptors import NO_HISTORY, Adaptor, History, run_adaptor
from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.schedule import Schedule
from clockwork.teachers import Condition
from clockwork.unet.inputs import EmbeddedInputs
from clockwork.unet.split import SplitUNet

__getattr__ = renamed(__name__)


@dataclass(frozen=True)
class Denoised:
    """The result of one denoiser call: the UNet's prediction, and the features at the cut.

    Attributes:
        output: The UNet's prediction, `batch × channels × height × width`.
        r_in: Features that leave the kept down layers, `batch × channels × height × width`.
        r_out: Features that enter the kept up layers: the low-res path's, or the adaptor's estimate of them.
        t_emb: The UNet's time embedding, `batch × width`, or `1 × width` if all examples share one timestep.
        full: Whether the full UNet ran.
        history: What the adaptor of the next step reads of this one and of those before.
    """

    output: Tensor
    r_in: Tensor
    r_out: Tensor
    t_emb: Tensor
    full: bool
    history: History = NO_HISTORY


class Denoiser(Protocol):
    """The interface of denoisers, as the sampling loop calls them."""

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Runs one step.

        Args:
            sample: Scaled latents, `batch × channels × height × width`, in any floating precision.
            t: The timestep, a scalar or one per example.
            condition: The prompts' conditions, of the same batch size.
            step: Index of this call in its roll-out, from 1.
            history: `history` of the previous step's result; empty on the first.

        Returns:
            The prediction and the features at the cut, in the UNet's precision.
        """
        ...


@dataclass(frozen=True)
class FullDenoiser:
    """Runs the full UNet on every step.

    Attributes:
        split: The UNet with its cut.
        adaptor: The adaptor of later steps, for which history is kept; without one none is.
    """

    split: SplitUNet
    adaptor: Adaptor | None = None

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Runs one step; arguments and result are those of `Denoiser`."""
        embedded = embed(self.split, sample, t, condition)
        high = self.split.high_in(embedded)
        r_out = self.split.low(high, embedded)
        after = history.after(self.adaptor, step, high.r_in, r_out, full=True)
        output = self.split.high_out(r_out, high, embedded)
        return Denoised(output, high.r_in, r_out, embedded.t_emb, full=True, history=after)


@dataclass(frozen=True)
class ClockworkDenoiser:
    """Runs the full UNet on the schedule's full steps, and the adaptor in place of the low-res path on the others.

    `r_out_hat[t] = phi(r_in[t], r_out[t+1], t_emb, text_emb)` (paper, equation 2). After an adaptor step, the next one
    receives the estimate.

    Attributes:
        split: The UNet with its cut.
        adaptor: The adaptor, for the features at this cut.
        schedule: Which steps are full.

    Raises:
        UserError: If the adaptor reads `r_out` of earlier steps, and the schedule's first step is not full.
    """

    split: SplitUNet
    adaptor: Adaptor
    schedule: Schedule

    def __post_init__(self) -> None:
        if {"r_out_prev", "full_steps"} & set(self.adaptor.inputs) and not self.schedule.is_full(1):
            raise UserError(
                f"schedule {self.schedule} has no full step, but this adaptor reads r_out of earlier steps: use clock2"
            )

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Runs one step; arguments and result are those of `Denoiser`."""
        if self.schedule.is_full(step):
            return FullDenoiser(self.split, self.adaptor)(sample, t, condition, step, history)
        embedded = embed(self.split, sample, t, condition)
        high = self.split.high_in(embedded)
        t_emb = embedded.t_emb.expand(len(sample), -1)
        r_out = estimate(self.adaptor, high.r_in, t_emb, condition, step, history)
        after = history.after(self.adaptor, step, high.r_in, r_out, full=False)
        output = self.split.high_out(r_out, high, embedded)
        return Denoised(output, high.r_in, r_out, embedded.t_emb, full=False, history=after)


def estimate(
    adaptor: Adaptor, r_in: Tensor, t_emb: Tensor, condition: Condition, step: int, history: History
) -> Tensor:
    """Runs an adaptor in its own precision.

    Args:
        adaptor: The adaptor. Its precision may differ from the UNet's, for example in training.
        r_in: Features that leave the kept down layers, `batch × channels × height × width`.
        t_emb: The UNet's time embedding, `batch × width`.
        condition: Conditions of the batch, whose text embedding the adaptor may read.
        step: The step, from 1.
        history: The features of earlier steps.

    Returns:
        The estimate of `r_out`, in the precision of `r_in`.
    """
    dtype = adaptor.dtype or r_in.dtype
    text_emb = None if condition.text_emb is None else condition.text_emb.to(dtype)
    past = history.map(lambda x: x.to(dtype))
    r_out = run_adaptor(adaptor, r_in.to(dtype), t_emb.to(dtype), text_emb, condition.conditional, step, past)
    return r_out.to(r_in.dtype)


def embed(split: SplitUNet, sample: Tensor, t: Tensor, condition: Condition) -> EmbeddedInputs:
    """Embeds the inputs of a UNet call, cast to the UNet's precision.

    Args:
        split: The UNet.
        sample: Scaled latents, `batch × channels × height × width`, in any floating precision.
        t: The timestep, a scalar or one per example.
        condition: The prompts' conditions.

    Returns:
        The inputs of the chain's layers.
    """
    dtype = split.dtype
    if sample.dtype != dtype:
        sample, condition = sample.to(dtype), condition.to(dtype)
    return split.embed(sample, t, condition.prompt_embeds, **condition.unet_kwargs)
