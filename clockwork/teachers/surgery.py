"""Changes to a loaded UNet: the Efficient UNet (paper, Section 5), and an input for the guidance scale."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from clockwork.errors import UserError


def without_top_attention(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Removes the transformer blocks of the highest resolution; SD v1.5 keeps 846.79M parameters.

    Args:
        unet: A UNet with attention in its first down block and its last up block.

    Returns:
        A UNet that shares its weights with `unet`: copy it before training.

    Raises:
        UserError: `unet` has no such blocks.
    """
    down, up = list(unet.config.down_block_types), list(unet.config.up_block_types)
    if (down[0], up[-1]) != ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"):
        raise UserError(
            f"this UNet has no transformer blocks at its highest resolution to remove ({down[0]}, {up[-1]}): "
            "objective=recover needs a teacher with them, such as teacher=sd15 or teacher=miniature_sd"
        )
    lighter = _shaped(unet, down_block_types=["DownBlock2D", *down[1:]], up_block_types=[*up[:-1], "UpBlock2D"])
    taken = ("down_blocks.0.attentions.", f"up_blocks.{len(up) - 1}.attentions.")
    _assign_weights(lighter, {k: w for k, w in unet.state_dict().items() if not k.startswith(taken)})
    return lighter


def with_guidance_input(unet: UNet2DConditionModel, width: int = 256) -> UNet2DConditionModel:
    """Adds an embedding of the guidance scale to the time embedding (Meng et al. 2023, Section 3.1).

    Args:
        unet: A UNet without such an input.
        width: Size of the embedding that enters it.

    Returns:
        A UNet that shares all other weights with `unet`. The new ones are zero, so it predicts what `unet` does at
        every scale.

    Raises:
        UserError: `unet` has such an input already.
    """
    if unet.config.time_cond_proj_dim is not None:
        raise UserError(
            "this UNet is conditioned on the guidance scale already: use another teacher, or objective=progressive"
        )
    conditioned = _shaped(unet, time_cond_proj_dim=width)
    new = conditioned.time_embedding.cond_proj.weight
    zeros = torch.zeros(new.shape, device=unet.device, dtype=unet.dtype)
    _assign_weights(conditioned, {**unet.state_dict(), "time_embedding.cond_proj.weight": zeros})
    return conditioned


def _shaped(unet: UNet2DConditionModel, **feature_change: Any) -> UNet2DConditionModel:
    config = {name: value for name, value in unet.config.items() if name != "_use_default_values"}
    with torch.device("meta"):
        return type(unet).from_config({**config, **feature_change})


def _assign_weights(unet: UNet2DConditionModel, weights: dict[str, Any]) -> None:
    """Assigns all weights by name; none may be missing, left over or of another shape."""
    wanted = unet.state_dict()
    assert weights.keys() == wanted.keys(), sorted(weights.keys() ^ wanted.keys())
    for name, weight in wanted.items():
        assert weights[name].shape == weight.shape, (name, weights[name].shape, weight.shape)
    unet.load_state_dict({k: nn.Parameter(w, requires_grad=False) for k, w in weights.items()}, assign=True)
    unet.eval()
