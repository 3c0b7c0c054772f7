"""Shapes of the features at a cut, computed on the `meta` device: without weights, in milliseconds."""

import json
from functools import lru_cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from clockwork.adaptors import FeatureDims
from clockwork.teachers import Teacher
from clockwork.unet.chain import Cut
from clockwork.unet.split import SplitUNet


def feature_dims(teacher: Teacher, cut: Cut | str) -> FeatureDims:
    """Computes the dimensions of the features at a cut, on the `meta` device.

    Args:
        teacher: The teacher.
        cut: The cut or its name.

    Returns:
        The dimensions that an adaptor for this teacher and cut needs.

    Raises:
        UserError: If the cut is unknown or does not fit the UNet.
    """
    return dims_of_features(*feature_shapes(teacher, cut), teacher.text_width)


def pipeline_feature_dims(unet: Any, cut: Cut | str, text_width: int) -> FeatureDims | None:
    """Computes the dimensions of the features at a cut of a pipeline's UNet.

    Args:
        unet: The UNet.
        cut: The cut or its name.
        text_width: Width of the text embedding; 0 without one.

    Returns:
        The dimensions; None for UNets with other conditions than those of Stable Diffusion.
    """
    others = ("encoder_hid_dim_type", "class_embed_type", "num_class_embeds")
    known = type(unet) is UNet2DConditionModel and unet.config.addition_embed_type in (None, "text_time")
    if not known or any(unet.config.get(name) is not None for name in others):
        return None
    latent_shape = (unet.config.in_channels, *[2 ** (len(unet.config.block_out_channels) + 2)] * 2)
    return dims_of_features(*_feature_shapes(unet.to_json_string(), cut, latent_shape), text_width)


def dims_of_features(r_in: torch.Size, r_out: torch.Size, t_emb: torch.Size, text_width: int) -> FeatureDims:
    """Returns the dimensions of features of given shapes.

    Args:
        r_in: Shape of the features that leave the kept down layers, `batch × channels × height × width`.
        r_out: Shape of the features that enter the kept up layers, `batch × channels × height × width`.
        t_emb: Shape of the UNet's time embedding, `batch × width`.
        text_width: Width of the text embedding; 0 without one.
    """
    return FeatureDims(r_in[1], r_out[1], t_emb[1], text_width, r_out[-1] // r_in[-1])


def feature_shapes(teacher: Teacher, cut: Cut | str) -> tuple[torch.Size, torch.Size, torch.Size]:
    """Computes the shapes of the features at a cut, on the `meta` device, once per process, UNet and cut.

    Args:
        teacher: The teacher.
        cut: The cut or its name.

    Returns:
        The shapes of `r_in` and `r_out`, each `1 × channels × height × width`, and of the time embedding, `1 × width`.

    Raises:
        UserError: If the cut is unknown or does not fit the UNet.
    """
    return _feature_shapes(teacher.unet.to_json_string(), cut, teacher.latent_shape)


@lru_cache(maxsize=64)
def _feature_shapes(
    config: str, cut: Cut | str, latent_shape: tuple[int, int, int]
) -> tuple[torch.Size, torch.Size, torch.Size]:
    """Computes the shapes from a UNet's config, as JSON."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(json.loads(config))
    split = SplitUNet(unet, cut)
    embedded = split.embed(**meta_call(unet, latent_shape, tokens=1))
    high = split.high_in(embedded)
    return high.r_in.shape, split.low(high, embedded).shape, embedded.t_emb.shape


def meta_call(unet: UNet2DConditionModel, latent_shape: tuple[int, int, int], tokens: int = 77) -> dict[str, Any]:
    """Creates the arguments of a UNet call as empty tensors on the `meta` device.

    Args:
        unet: The UNet, whose config determines the conditions.
        latent_shape: Channels, height and width of the sample.
        tokens: Number of text tokens.

    Returns:
        Arguments of `unet.forward` by name, batch 1.
    """
    config = unet.config
    with torch.device("meta"):
        call: dict[str, Any] = {
            "sample": torch.empty(1, *latent_shape),
            "timestep": torch.tensor(1),
            "encoder_hidden_states": torch.empty(1, tokens, config.cross_attention_dim),
        }
        if config.time_cond_proj_dim is not None:  # the embedding of the guidance scale
            call["timestep_cond"] = torch.empty(1, config.time_cond_proj_dim)
        if config.addition_embed_type == "text_time":  # SDXL: six sizes and crop coordinates, and pooled text
            pooled_width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            call["added_cond_kwargs"] = {"time_ids": torch.empty(1, 6), "text_embeds": torch.empty(1, pooled_width)}
    return call
