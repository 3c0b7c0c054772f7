"""A pipeline's weights in one file, with the names of the first publication of Stable Diffusion.

Diffusers reads such files and cannot write them, so its renaming is inverted here.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
}


def save_single_file(pipe: Any, file: Path) -> Path:
    """Saves a Stable Diffusion or SDXL pipeline's UNet, autoencoder and text encoders under their original names."""
    weights = {f"model.diffusion_model.{_unet_name(pipe.unet, k)}": w for k, w in pipe.unet.state_dict().items()}
    blocks = len(pipe.vae.config.block_out_channels)
    weights |= {f"first_stage_model.{_vae_name(k, blocks)}": w for k, w in pipe.vae.state_dict().items()}
    second = getattr(pipe, "text_encoder_2", None)
    first = "cond_stage_model" if second is None else "conditioner.embedders.0"
    for name, weight in pipe.text_encoder.state_dict().items():
        weights[f"{first}.transformer.text_model.{name.removeprefix('text_model.')}"] = weight
    if second is not None:
        weights |= {f"conditioner.embedders.1.model.{k}": w for k, w in _open_clip(second.state_dict()).items()}
    save_file({name: weight.contiguous() for name, weight in weights.items()}, file)
    return file


def _open_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """SDXL's second text encoder as OpenCLIP saves it: the projection transposed, queries, keys and values in one."""
    renamed = {"text_projection": weights["text_projection.weight"].T}
    for name, weight in weights.items():
        original = name.removeprefix("text_model.")
        for ours, theirs in OPEN_CLIP.items():
            original = original.replace(ours, theirs)
        if ".attn.q_proj." in original:
            parts = [weights[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            renamed[original.replace("q_proj.", "in_proj_")] = torch.cat(parts)
        elif not original.startswith("text_projection") and not re.search(r"\.[kv]_proj\.", original):
            renamed[original] = weight
    return renamed


def _unet_name(unet: Any, name: str) -> str:
    """Numbers a UNet's layers from its input to its output."""
    for ours, original in UNET_ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, original, 1)
    per_block = unet.config.layers_per_block + 1
    match = re.fullmatch(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(\w+)\.(\d+)\.(.+)", name)
    assert match is not None, name
    side, block, kind, layer, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    if kind == "resnets":
        part, _, leaf = rest.partition(".")
        rest = f"{RESNET[part]}.{leaf}"
    if side is None:
        return f"middle_block.{2 * layer + (kind == 'attentions')}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{per_block * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        position = 1 + hasattr(unet.up_blocks[block], "attentions")
        return f"output_blocks.{per_block * block + per_block - 1}.{position}.{rest}"
    number, position = per_block * block + layer, int(kind == "attentions")
    place = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
    return f"{place}.{position}.{rest}"


def _vae_name(name: str, blocks: int) -> str:
    """Names a weight of an autoencoder without attention; up blocks are numbered from the output."""
    for ours, original in {"conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut"}.items():
        name = name.replace(ours, original)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.", r"down.\1.", name)
    name = re.sub(r"up_blocks\.(\d)\.", lambda m: f"up.{blocks - 1 - int(m[1])}.", name)
    for ours, original in {"resnets": "block", "downsamplers.0": "downsample", "upsamplers.0": "upsample"}.items():
        name = name.replace(ours, original)
    return name
