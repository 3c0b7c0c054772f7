"""What makes every step of an image full, whatever the schedule says."""

from typing import Any

from clockwork.adaptors import Adaptor
from clockwork.pipeline.parts import num_branches
from clockwork.pipeline.step_tracking import BOTH_HALVES, UNKNOWN_HALF
from clockwork.sampling.denoisers import ClockworkDenoiser
from clockwork.unet.split import SplitUNet


def reason_for_full_steps(pipe: Any, denoiser: ClockworkDenoiser) -> str | None:
    """Finds out why no step of an image can be an adaptor step.

    Args:
        pipe: The pipeline, in its call.
        denoiser: UNet, adaptor and schedule.

    Returns:
        The reason, for `clockwork.summary`; None if there is none.
    """
    if (reader := attention_reader(denoiser.split)) is not None:
        return f"the pipeline's {reader} reads attention maps of the low-res path on every step"
    branches = num_branches(pipe)
    if branches > 2 and "conditional" in denoiser.adaptor.inputs:
        return f"guidance has {branches} branches per image, and the adaptor knows two"
    return None


def reason_for_full_half(adaptor: Adaptor, branches: tuple[str, ...] | None) -> str | None:
    """Finds out why a step cannot be an adaptor step in an image whose UNet is called once per half of guidance.

    Args:
        adaptor: The adaptor.
        branches: The branches that the call has; None if they are not known.

    Returns:
        The reason, for `clockwork.summary`; None if there is none.
    """
    if "conditional" not in adaptor.inputs:
        return None
    if adaptor.reads_both_halves or adaptor.negative_map is not None:
        return BOTH_HALVES
    return UNKNOWN_HALF if branches is None else None


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
