"""How a pipeline's call guides: its scales, the branches in the UNet's batch, and what is made of their predictions."""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from clockwork.adaptors import Adaptor
from clockwork.errors import UserError
from clockwork.unet.conditioning import HALVES

BRANCHES = (*HALVES, "image", "perturbed")


def branches_of_call(pipe: Any, t: Any, batch: int, apart: bool) -> tuple[str, ...] | None:
    """Names the branches of guidance that a UNet call of a pipeline has, in the order of its batch.

    Args:
        pipe: The pipeline, in its call.
        t: The timestep that the UNet received.
        batch: The call's batch size.
        apart: Whether the UNet is called once per branch.

    Returns:
        The names: `HALVES`, or more with guidance by others than the prompt; only "conditional" without guidance; None
        if it is not known which branch examples belong to.
    """
    if apart:
        half = guider_half(pipe, t)
        return None if half is None else HALVES[half : half + 1]
    names, images = branches(pipe), _num_images(pipe)
    if images is not None and batch != images * len(names):
        return None
    return HALVES[1:] if batch % len(names) else names


def branches(pipe: Any) -> tuple[str, ...]:
    """Names the branches of guidance in the UNet's batch, in its order.

    Args:
        pipe: The pipeline, in its call. InstructPix2Pix guides by text and image; perturbed-attention guidance adds a
            branch of its own.
    """
    guided = bool(setting(pipe, "do_classifier_free_guidance"))
    if guided and setting(pipe, "image_guidance_scale") is not None:
        return "conditional", "image", "unconditional"
    perturbed = ("perturbed",) if setting(pipe, "do_perturbed_attention_guidance") else ()
    return (HALVES if guided else HALVES[1:]) + perturbed


def known_branches(adaptor: Adaptor) -> tuple[str, ...]:
    """Returns the branches of guidance that an adaptor can run: a map that was fitted without it serves both halves.

    Args:
        adaptor: The adaptor.
    """
    return adaptor.branches if len(adaptor.branches) > 1 else HALVES


def branch_indices(adaptor: Adaptor, names: tuple[str, ...] | None, batch: int, device: torch.device) -> Tensor | None:
    """Returns the branch of each example, for an adaptor that reads it.

    Args:
        adaptor: The adaptor.
        names: The branches that the call has, in the order of its batch; None if they are not known.
        batch: The call's batch size.
        device: Where the result is.

    Returns:
        Indices in `adaptor.branches`, int64, `batch`; None if all examples are conditional, or no adaptor can run.

    Raises:
        UserError: If the batch is no multiple of the branches.
    """
    known = known_branches(adaptor)
    if "branch" not in adaptor.inputs or names is None or names == HALVES[1:] or set(names) - set(known):
        return None
    if batch % len(names):
        raise UserError(
            f"{batch} examples are no multiple of the branches {', '.join(names)}: correct clockwork.branch"
        )
    indices = torch.tensor([known.index(name) for name in names], device=device)
    return indices.repeat_interleave(batch // len(names))


def guidance_weights(pipe: Any, t: Tensor) -> tuple[float, ...]:
    """Returns the weights with which a pipeline adds up the predictions of the branches, in the batch's order.

    Args:
        pipe: The pipeline, in its call.
        t: The timestep, on which the scale of perturbed-attention guidance may depend.

    Returns:
        `(1 − g, g)` with classifier-free guidance of scale `g` (Ho & Salimans 2022); `(g, s − g, 1 − s)` with that of
        text and image, of scale `s` (Brooks et al. 2023, equation 3); `(1 − g, g + p, −p)` with perturbed attention of
        scale `p` (Ahn et al. 2024), and `(1 + p, −p)` with it alone.
    """
    names, g = branches(pipe), guidance_scale(pipe)
    if "image" in names:
        s = float(setting(pipe, "image_guidance_scale"))
        return g, s - g, 1 - s
    p = float(pipe._get_pag_scale(t)) if "perturbed" in names else 0.0
    weights = {"unconditional": 1 - g, "conditional": (g if "unconditional" in names else 1.0) + p, "perturbed": -p}
    return tuple(weights[name] for name in names)


def guidance_scale(pipe: Any) -> float:
    """Returns the scale of classifier-free guidance of a pipeline's last call, or of its guider; 1 without either.

    Args:
        pipe: The pipeline; a modular one has a guider. Of a scale per frame of a video, the largest is returned.
    """
    scale = setting(pipe, "guidance_scale")
    if scale is None:
        scale = getattr(getattr(pipe, "guider", None), "guidance_scale", 1.0)
    return float(scale.max() if isinstance(scale, Tensor) else scale)


def more_guidance(pipe: Any) -> dict[str, float] | None:
    """Returns the scales of guidance by others than the prompt of a pipeline's last call; None without any.

    Args:
        pipe: The pipeline.
    """
    names = ("image_guidance_scale", "pag_scale", "pag_adaptive_scale")
    return {name: float(scale) for name in names if (scale := setting(pipe, name))} or None


def setting(pipe: Any, name: str) -> Any:
    """Returns a setting of guidance of a pipeline's call, or of its last; None if it has none.

    Args:
        pipe: The pipeline.
        name: Name of the property or of the argument.
    """
    value = getattr(pipe, name, None)
    return _call_locals(pipe).get(name) if value is None else value


def guider_half(pipe: Any, t: Any) -> bool | None:
    """Tells which half of guidance the UNet's call is, where a guider of Modular Diffusers calls it once per half.

    Args:
        pipe: The pipeline, in its call.
        t: The timestep that the UNet received.

    Returns:
        True for the conditional half, False for the unconditional one; None if there is no guider, or one that also
        has other predictions than these two, or other code than the guider's loop calls the UNet.
    """
    guider = getattr(pipe, "guider", None)
    if guider is None or getattr(guider, "_input_predictions", None) != ["pred_cond", "pred_uncond"]:
        return None
    if getattr(guider, "_timestep", None) is not t:  # it is then not the step for which the guider was prepared
        return None
    return bool(guider.is_conditional)


def _num_images(pipe: Any) -> int | None:
    """Returns how many images the call generates, if the pipeline tells it in its local variables alone."""
    variables = _call_locals(pipe)
    if "batch_size" not in variables:
        return None
    return int(variables["batch_size"]) * int(variables.get("num_images_per_prompt") or 1)


def _call_locals(pipe: Any) -> Mapping[str, Any]:
    """Returns the local variables of the pipeline's call that runs, if the pipeline has no properties for guidance.

    Older pipelines of diffusers (GLIGEN, the upscaler, DeepFloyd IF, ModelScope) have `do_classifier_free_guidance` as
    a local variable of `__call__`, and the UNet's batch alone does not tell two prompts from two halves.
    """
    if hasattr(pipe, "do_classifier_free_guidance"):
        return {}
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        names = frame.f_code.co_varnames + frame.f_code.co_cellvars
        if "do_classifier_free_guidance" in names and frame.f_locals.get("self") is pipe:
            return frame.f_locals
        frame = frame.f_back
    return {}
