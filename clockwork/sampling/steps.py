"""The two kinds of UNet call as functions of tensors alone: on a full step, and on an adaptor step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from clockwork.adaptors import Adaptor, History, run_adaptor
from clockwork.unet.split import SplitUNet

UNetArguments = Mapping[str, Any]  # all arguments of `unet.forward` by name (`SplitUNet.arguments`)


class Features(NamedTuple):
    """The result of one UNet call.

    Attributes:
        output: The UNet's prediction, `batch × channels × height × width`.
        r_in: Features that leave the kept down layers, `batch × channels × height × width`.
        r_out: Features that enter the kept up layers, `batch × channels × height × width`.
        t_emb: The UNet's time embedding, `batch × width`, or `1 × width` if all examples share one timestep.
    """

    output: Tensor
    r_in: Tensor
    r_out: Tensor
    t_emb: Tensor


class AdaptorInputs(NamedTuple):
    """What an adaptor reads besides the features of its own step; see `clockwork.adaptors.Adaptor.forward`.

    Attributes:
        text_emb: The text embedding of the prompts, `batch × width`, if the adaptor reads it.
        branch: Index in `adaptor.branches` of each example's branch of guidance, `batch`; None if all are conditional.
        step: The step, from 1; a tensor in a compiled graph, which is the same for all steps.
        history: The features of earlier steps.
    """

    text_emb: Tensor | None
    branch: Tensor | None
    step: int | Tensor
    history: History


def full_step(split: SplitUNet, call: UNetArguments) -> Features:
    """Runs the full UNet.

    Args:
        split: The UNet.
        call: The arguments of the UNet call.

    Returns:
        The prediction and the features at the cut.
    """
    embedded = split.kind.embed(split.unet, call)
    high = split.high_in(embedded)
    r_out = split.low(high, embedded)
    return Features(split.high_out(r_out, high, embedded), high.r_in, r_out, embedded.t_emb)


def adaptor_step(split: SplitUNet, adaptor: Adaptor, call: UNetArguments, inputs: AdaptorInputs) -> Features:
    """Runs the UNet with an adaptor in place of the low-res path.

    Args:
        split: The UNet.
        adaptor: The adaptor.
        call: The arguments of the UNet call.
        inputs: What the adaptor reads besides.

    Returns:
        The prediction and the features at the cut, in the UNet's precision.
    """
    embedded = split.kind.embed(split.unet, call)
    high = split.high_in(embedded)
    if inputs.branch is not None and embedded.num_frames > 1:
        inputs = inputs._replace(branch=inputs.branch.repeat_interleave(embedded.num_frames))
    r_out = estimate(adaptor, high.r_in, embedded.t_emb, inputs)
    return Features(split.high_out(r_out, high, embedded), high.r_in, r_out, embedded.t_emb)


def estimate(adaptor: Adaptor, r_in: Tensor, t_emb: Tensor, inputs: AdaptorInputs) -> Tensor:
    """Runs an adaptor in its own precision, which may differ from the UNet's, for example in training.

    Args:
        adaptor: The adaptor.
        r_in: Features that leave the kept down layers, `batch × channels × height × width`.
        t_emb: The UNet's time embedding, `batch × width` or `1 × width`.
        inputs: What the adaptor reads besides.

    Returns:
        The estimate of `r_out`, in the precision of `r_in`.
    """
    dtype = adaptor.dtype or r_in.dtype
    text_emb = None if inputs.text_emb is None else inputs.text_emb.to(dtype)
    t_emb = t_emb.expand(r_in.shape[0], -1).to(dtype)
    past = inputs.history.map(lambda x: x.to(dtype))
    return run_adaptor(adaptor, r_in.to(dtype), t_emb, text_emb, inputs.branch, inputs.step, past).to(r_in.dtype)


@dataclass(frozen=True)
class StepFunctions:
    """The functions that denoisers call.

    Attributes:
        full: Runs a full step: `full_step`, or a compiled one.
        adaptor: Runs an adaptor step: `adaptor_step`, or a compiled one.
    """

    full: Callable[[SplitUNet, UNetArguments], Features] = full_step
    adaptor: Callable[[SplitUNet, Adaptor, UNetArguments, AdaptorInputs], Features] = adaptor_step


EAGER = StepFunctions()
