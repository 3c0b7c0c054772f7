"""Changes to a loaded UNet: fewer transformer blocks (paper, Section 5), and an input for the guidance scale."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from clockwork.errors import UserError


def without_top_attention(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Removes the transformer blocks of the highest resolution, as in the Efficient UNet (paper, Section 5).

    SD v1.5 keeps 846.79 million parameters.

    Args:
        unet: A UNet with attention in its first down block and its last up block.

    Returns:
        A UNet that shares its weights with `unet`: copy it before training.

    Raises:
        UserError: If `unet` has no such blocks.
    """
    down, up = list(unet.config.down_block_types), list(unet.config.up_block_types)
    if (down[0], up[-1]) != ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"):
        raise UserError(
            f"this UNet has no transformer blocks at its highest resolution to remove ({down[0]}, {up[-1]}): "
            "objective=recover needs a teacher with them, such as teacher=sd15 or teacher=miniature_sd"
        )
    lighter = _shaped(unet, down_block_types=["DownBlock2D", *down[1:]], up_block_types=[*up[:-1], "UpBlock2D"])
    removed = ("down_blocks.0.attentions.", f"up_blocks.{len(up) - 1}.attentions.")
    _assign_weights(lighter, {k: w for k, w in unet.state_dict().items() if not k.startswith(removed)})
    return lighter


def with_guidance_input(unet: UNet2DConditionModel, width: int = 256) -> UNet2DConditionModel:
    """Adds an embedding of the guidance scale to the time embedding (Meng et al. 2023, Section 3.1).

    Args:
        unet: A UNet without such an input.
        width: Width of the guidance scale's embedding.

    Returns:
        A UNet that shares its weights with `unet`, apart from the new ones. These are zero, so its prediction is that
        of `unet` at every scale.

    Raises:
        UserError: If `unet` already has such an input.
    """
    if unet.config.time_cond_proj_dim is not None:
        raise UserError(
            "this UNet is already conditioned on the guidance scale: use another teacher, or objective=progressive"
        )
    conditioned = _shaped(unet, time_cond_proj_dim=width)
    new_shape = conditioned.time_embedding.cond_proj.weight.shape
    zeros = torch.zeros(new_shape, device=unet.device, dtype=unet.dtype)
    _assign_weights(conditioned, {**unet.state_dict(), "time_embedding.cond_proj.weight": zeros})
    return conditioned


def _shaped(unet: UNet2DConditionModel, **changes: Any) -> UNet2DConditionModel:
    """Creates a UNet on the `meta` device from the config of another, with changes."""
    config = {name: value for name, value in unet.config.items() if name != "_use_default_values"}
    with torch.device("meta"):
        return type(unet).from_config({**config, **changes})


def _assign_weights(unet: UNet2DConditionModel, weights: dict[str, Any]) -> None:
    """Assigns all weights by name. None may be missing, unknown or of another shape."""
    current = unet.state_dict()
    assert weights.keys() == current.keys(), sorted(weights.keys() ^ current.keys())
    for name, weight in current.items():
        assert weights[name].shape == weight.shape, (name, weights[name].shape, weight.shape)
    unet.load_state_dict({k: nn.Parameter(w, requires_grad=False) for k, w in weights.items()}, assign=True)
    unet.eval()
