"""The denoisers: one runs the full UNet on every step, the other follows a schedule (paper, Section 4.2)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from clockwork.adaptors import NO_HISTORY, Adaptor, History
from clockwork.deprecated import renamed
from clockwork.errors import UserError
from clockwork.rivals.base import Rival, shared_copy
from clockwork.sampling.guidance import positive_half
from clockwork.sampling.steps import EAGER, AdaptorInputs, StepFunctions
from clockwork.schedule import Schedule
from clockwork.teachers import Condition
from clockwork.unet.split import SplitUNet

__getattr__ = renamed(__name__)


@dataclass(frozen=True)
class Denoised:
    """The result of one denoiser call: the UNet's prediction, and the features at the cut.

    On adaptor steps on which only the positive half of guidance runs, the features are those of that half.

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
        functions: What runs the UNet.
    """

    split: SplitUNet
    adaptor: Adaptor | None = None
    functions: StepFunctions = EAGER

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Runs one step; arguments and result are those of `Denoiser`."""
        features = self.functions.full(self.split, arguments(self.split, sample, t, condition))
        r_in, r_out = features.r_in, features.r_out
        if condition.branch is not None and self.adaptor is not None and self.adaptor.negative_map is not None:
            r_in, r_out = (x[len(x) // 2 :] for x in (r_in, r_out))  # adaptor steps run the positive half only
        after = history.after(self.adaptor, step, r_in, r_out, features.output, full=True)
        return Denoised(*features, True, after)


@dataclass(frozen=True)
class ClockworkDenoiser:
    """Runs the full UNet on the schedule's full steps, and the adaptor in place of the low-res path on the others.

    `r_out_hat[t] = phi(r_in[t], r_out[t+1], t_emb, text_emb)` (paper, equation 2). After an adaptor step, the next one
    receives the estimate.

    Attributes:
        split: The UNet with its cut.
        adaptor: The adaptor, for the features at this cut.
        schedule: Which steps are full.
        functions: What runs the UNet.

    Raises:
        UserError: If the adaptor reads `r_out` of earlier steps, and the schedule's first step is not full.
    """

    split: SplitUNet
    adaptor: Adaptor
    schedule: Schedule
    functions: StepFunctions = EAGER

    @property
    def full(self) -> FullDenoiser:
        """The denoiser of the full steps."""
        return FullDenoiser(self.split, self.adaptor, self.functions)

    def __post_init__(self) -> None:
        if {"r_out_prev", "full_steps"} & set(self.adaptor.inputs) and not self.schedule.is_full(1):
            raise UserError(
                f"schedule {self.schedule} has no full step, but this adaptor reads r_out of earlier steps: use clock2"
            )

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Runs one step; arguments and result are those of `Denoiser`."""
        if self.schedule.is_full(step):
            return self.full(sample, t, condition, step, history)
        if self.adaptor.negative_map is not None and condition.branch is not None:
            return self._positive_step(sample, t, condition, step, history)
        inputs = AdaptorInputs(condition.text_emb, condition.branch, step, history)
        call = arguments(self.split, sample, t, condition)
        features = self.functions.adaptor(self.split, self.adaptor, call, inputs)
        after = history.after(self.adaptor, step, features.r_in, features.r_out, features.output, full=False)
        return Denoised(*features, False, after)

    def _positive_step(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Runs an adaptor step for the positive half of guidance only, and estimates the negative one's prediction."""
        negative_map, before = self.adaptor.negative_map, history.output_prev
        assert negative_map is not None and before is not None
        positive = self(*positive_half(sample, t, condition), step, replace(history, output_prev=None))
        output = torch.cat([negative_map(positive.output, before, step), positive.output])
        return replace(positive, output=output, history=replace(positive.history, output_prev=output))


@dataclass(frozen=True)
class RivalDenoiser:
    """Runs a copy of the UNet that a rival has changed, in one roll-out at a time.

    Attributes:
        unet: The copy.
        dtype: The precision in which it computes.
        start: Discards what the rival keeps of earlier roll-outs; called on the first step of each.
    """

    unet: UNet2DConditionModel
    dtype: torch.dtype
    start: Callable[[], None]

    @classmethod
    def attach(cls, rival: Rival, split: SplitUNet, timesteps: Tensor, guided: bool) -> "RivalDenoiser":
        """Attaches a rival to a copy of a UNet.

        Args:
            rival: The rival.
            split: The UNet, which is not changed. Its cut is not used.
            timesteps: The solver's timesteps, one per step.
            guided: Whether the UNet's batch holds both halves of guidance.

        Raises:
            UserError: If the rival does not fit the UNet or the roll-out.
        """
        rival.check_guidance(guided)
        unet = shared_copy(split.unet)
        return cls(unet, split.dtype, rival.attach(unet, timesteps))

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Runs one step; arguments are those of `Denoiser`. The features of the result, at a cut, are empty."""
        if step == 1:
            self.start()
        sample, condition = sample.to(self.dtype), condition.to(self.dtype)
        text = condition.prompt_embeds
        (output,) = self.unet(sample, t, encoder_hidden_states=text, **condition.unet_kwargs, return_dict=False)
        empty = output.new_empty(0)
        return Denoised(output, empty, empty, empty, full=True)


def arguments(split: SplitUNet, sample: Tensor, t: Tensor, condition: Condition) -> dict[str, Any]:
    """Names the arguments of a UNet call, cast to the UNet's precision.

    Args:
        split: The UNet.
        sample: Scaled latents, `batch × channels × height × width`, in any floating precision.
        t: The timestep, a scalar or one per example.
        condition: The prompts' conditions.

    Returns:
        All arguments of `unet.forward` by name.
    """
    dtype = split.dtype
    if sample.dtype != dtype:
        sample, condition = sample.to(dtype), condition.to(dtype)
    text = {"encoder_hidden_states": condition.prompt_embeds} if split.reads_text else {}
    return split.arguments(sample, t, **text, **condition.unet_kwargs)
