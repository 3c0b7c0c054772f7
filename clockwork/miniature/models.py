"""Untrained parts of the miniature: Stable Diffusion's classes at a small size. `make miniature` trains them."""

import copy
import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clockwork.miniature.scenes import IMAGE_SIZE, sample_scene
from clockwork.teachers.tokenizer import train_tokenizer

WIDTH = 64  # of the text features and the UNet's cross-attention
MAX_TOKENS = 32
LATENT_SIZE = IMAGE_SIZE // 2


def make_tokenizer(folder: Path, captions: int = 5000, length: int = MAX_TOKENS) -> CLIPTokenizer:
    """Trains a CLIP tokenizer in which every word of the scenes' captions is a single token.

    Args:
        folder: Folder for `vocab.json` and `merges.txt`.
        captions: Number of training captions.
        length: Number of tokens to which texts are padded and truncated.

    Returns:
        The tokenizer. It is the same on every call.
    """
    return train_tokenizer(folder, (sample_scene("train", i).caption for i in range(captions)), length)


def make_text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    """Creates the text encoder for a tokenizer, with random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            projection_dim=WIDTH,
        )
    )


def make_autoencoder() -> AutoencoderKL:
    """Creates the autoencoder, with random weights: four latent channels at half the image's resolution."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(32, 64),
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,  # latents are trained to have unit variance
        mid_block_add_attention=False,
    )


def make_unet(top_attention: bool) -> UNet2DConditionModel:
    """Creates a UNet with random weights.

    Args:
        top_attention: Whether the highest resolution has attention, as in Stable Diffusion's UNet. The Efficient UNet
            has none there (paper, Section 5).

    Returns:
        The UNet.
    """
    top = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D") if top_attention else ("DownBlock2D", "UpBlock2D")
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        down_block_types=(top[0], "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", top[1]),
        block_out_channels=(24, 48, 96, 96),
        layers_per_block=1,
        attention_head_dim=2,  # the number of heads, despite diffusers' name
        norm_num_groups=8,
        cross_attention_dim=WIDTH,
    )


def make_noise_schedule() -> DDIMScheduler:
    """Creates Stable Diffusion's noise schedule with v-prediction, which suits sampling in few steps."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def clip_config(words: CLIPTokenizer) -> dict[str, Any]:
    """Returns open_clip's model config of the small CLIP that computes the miniature's metrics."""
    return {
        "embed_dim": 96,
        "vision_cfg": {"image_size": 2 * IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 24, "patch_size": None},
        "text_cfg": {
            "context_length": MAX_TOKENS,
            "vocab_size": len(words),
            "width": 96,
            "heads": 4,
            "layers": 3,
            "hf_tokenizer_name": "the folder's own",
        },
    }


def save_pipeline(
    folder: Path, parts: tuple[UNet2DConditionModel, CLIPTextModel], vae: AutoencoderKL, words: CLIPTokenizer
) -> None:
    """Saves a `StableDiffusionPipeline` folder.

    UNet and autoencoder are stored in half precision, which diffusers loads as float32 by default. The text encoder is
    stored in float32, because transformers loads it in its stored precision.

    Args:
        folder: The folder to write.
        parts: UNet and text encoder.
        vae: Autoencoder.
        words: Tokenizer.
    """
    unet, text = parts
    pipe = StableDiffusionPipeline(
        copy.deepcopy(vae).half(),
        text,
        words,
        copy.deepcopy(unet).half(),
        make_noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)


def save_clip(folder: Path, clip: nn.Module, words: CLIPTokenizer) -> None:
    """Saves an open_clip folder in half precision, which `open_clip.create_model("local-dir:…")` loads.

    Args:
        folder: The folder to write.
        clip: The CLIP model.
        words: Its tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": clip_config(words), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {k: v.half() if v.is_floating_point() else v for k, v in clip.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    words.save_pretrained(folder)
