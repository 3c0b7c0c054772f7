"""What makes every step of an image full, whatever the schedule says."""

from clockwork.adaptors import Adaptor
from clockwork.pipeline.guidance import known_branches
from clockwork.pipeline.step_tracking import BOTH_HALVES, UNKNOWN_BRANCHES, UNKNOWN_HALF
from clockwork.sampling.denoisers import ClockworkDenoiser
from clockwork.unet.conditioning import HALVES
from clockwork.unet.split import SplitUNet


def reason_for_full_steps(denoiser: ClockworkDenoiser) -> str | None:
    """Finds out why no step of an image can be an adaptor step.

    Args:
        denoiser: UNet, adaptor and schedule.

    Returns:
        The reason, for `clockwork.summary`; None if there is none.
    """
    if (reader := attention_reader(denoiser.split)) is not None:
        return f"the pipeline's {reader} reads attention maps of the low-res path on every step"
    return None


def reason_of_branches(adaptor: Adaptor, branches: tuple[str, ...] | None, apart: bool) -> str | None:
    """Finds out why a step cannot be an adaptor step because of the branches of guidance in the UNet's batch.

    Args:
        adaptor: The adaptor.
        branches: The branches that the call has, in the order of its batch; None if they are not known.
        apart: Whether the image's UNet is called once per branch.

    Returns:
        The reason, for `clockwork.summary`; None if there is none.
    """
    if "branch" not in adaptor.inputs:
        return None
    needs_all = adaptor.reads_both_halves or adaptor.negative_map is not None
    if apart and needs_all:
        return BOTH_HALVES
    if branches is None:
        return UNKNOWN_HALF if apart else UNKNOWN_BRANCHES
    known = known_branches(adaptor)
    if branches == HALVES[1:] or branches == known or (not needs_all and set(branches) <= set(known)):
        return None
    return f"guidance has the branches {', '.join(branches)}, and the adaptor is for {', '.join(known)}"


def attention_reader(split: SplitUNet) -> str | None:
    """Finds an attention processor of a pipeline's own in the low-res path.

    A pipeline of diffusers that brings its own attention processor (self-attention guidance, Attend-and-Excite,
    Pix2Pix-Zero, LEDITS++) reads attention maps after each call of the UNet. On an adaptor step there are none.

    Args:
        split: The UNet.

    Returns:
        The class name of the processor; None if there is none.
    """
    processors = (type(attention.processor) for attention in split.low_res_attentions)
    return next((cls.__name__ for cls in processors if cls.__module__.startswith("diffusers.pipelines.")), None)
