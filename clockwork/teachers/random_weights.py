"""Pipelines with random weights, at real size or small, for tests and timings without trained weights."""

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from clockwork.teachers.architectures import architecture
from clockwork.teachers.teacher import Pipeline
from clockwork.teachers.tokenizer import train_tokenizer

# The published text encoders: OpenAI's ViT-L/14, and OpenCLIP's ViT-H/14 and ViT-bigG/14.
VIT_L: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768}
VIT_H: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu"}
VIT_G: dict[str, Any] = {
    **{"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu"},
    "projection_dim": 1280,
}
TEXTS: dict[str, Sequence[Mapping[str, Any]]] = {"sd21": [VIT_H], "sdxl": [VIT_L, VIT_G]}  # all other UNets have ViT-L
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
WORDS = """
a above an and at background below bird black blue bottom car cat center circle city cross cyan diamond dog dotted
flower gradient green house in large left man mountain of on orange person photo pink plain purple red right ring sky
small square star street striped table the top tree triangle two water white with woman yellow
"""
_BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def random_pipeline(name: str, seed: int = 0) -> Pipeline:
    """Builds a pipeline at real size with random weights.

    Args:
        name: A key of `architectures.ARCHITECTURES`.
        seed: Seeds the weights.

    Returns:
        The pipeline, in float32 on the CPU; its tokenizer has a small vocabulary.
    """
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(**architecture(name))
    scaling = {"sdxl": 0.13025}.get(name, 0.18215)
    return pipeline_around(unet, TEXTS.get(name, [VIT_L]), {**VAE, "scaling_factor": scaling})


def pipeline_around(
    unet: UNet2DConditionModel,
    texts: Sequence[Mapping[str, Any]],
    vae: Mapping[str, Any],
    vocabulary: int = 49408,
    scheduler: SchedulerMixin | None = None,
) -> Pipeline:
    """Builds a pipeline around a UNet, with the other parts at random.

    Args:
        unet: The UNet.
        texts: Arguments of one `CLIPTextConfig` per text encoder; two make a Stable Diffusion XL pipeline.
        vae: Arguments of `AutoencoderKL`.
        vocabulary: Size of the text encoders' vocabulary.
        scheduler: The noise schedule; the published model's by default.

    Returns:
        The pipeline, in float32 on the CPU.
    """
    tokenizer = _tokenizer()
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    configs = [
        CLIPTextConfig(**{"intermediate_size": 4 * text["hidden_size"], **text}, vocab_size=vocabulary, **ids)
        for text in texts
    ]
    autoencoder = AutoencoderKL(**vae)
    if len(configs) == 1:
        parts = (autoencoder, CLIPTextModel(configs[0]), tokenizer, unet, scheduler or _scheduler(unet))
        return StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)
    encoders = CLIPTextModel(configs[0]), CLIPTextModelWithProjection(configs[1])
    euler = scheduler or EulerDiscreteScheduler(**_BETAS)
    return StableDiffusionXLPipeline(autoencoder, *encoders, tokenizer, tokenizer, unet, euler, add_watermarker=False)


@cache
def _tokenizer() -> CLIPTokenizer:
    """Trains a tokenizer that encodes common words of captions as single tokens."""
    with tempfile.TemporaryDirectory() as folder:
        return train_tokenizer(Path(folder), [WORDS, WORDS], length=77)


def _scheduler(unet: UNet2DConditionModel) -> SchedulerMixin:
    """SD v2.1's scheduler, which predicts v, for UNets with its text width; else SD v1.5's."""
    if unet.config.cross_attention_dim == VIT_H["hidden_size"]:
        return DDIMScheduler(**_BETAS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False)
    return PNDMScheduler(**_BETAS, skip_prk_steps=True, set_alpha_to_one=False)
