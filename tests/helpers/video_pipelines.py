"""Small random pipelines of video UNets, and the arguments of their calls."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    EulerDiscreteScheduler,
    I2VGenXLUNet,
    MotionAdapter,
    StableVideoDiffusionPipeline,
    UNet3DConditionModel,
)
from helpers.pipelines import make, picture
from helpers.unet_pipelines import Made, with_unet
from helpers.unets import TEXT, conditional, noise, spatio_temporal, with_3d_blocks, with_motion
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

SIZE = {"height": 32, "width": 32, "num_frames": 3}


def image_encoder(width: int) -> dict[str, Any]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPVisionConfig(**sizes, projection_dim=width, image_size=32, patch_size=16)
    processor = CLIPImageProcessor(crop_size=32, size=32)
    return {"image_encoder": CLIPVisionModelWithProjection(config).eval(), "feature_extractor": processor}


def stable_video() -> Made:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "block_out_channels": (32, 32), "latent_channels": 4}
    solver = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        timestep_type="continuous",
        sigma_min=0.002,
        sigma_max=700.0,
    )
    vae = AutoencoderKLTemporalDecoder(**blocks).eval()
    pipe = StableVideoDiffusionPipeline(vae=vae, unet=spatio_temporal(), scheduler=solver, **image_encoder(12))
    return pipe, {**SIZE, "image": picture(3), "output_type": "latent"}


def animated() -> Made:
    unet = with_motion(conditional(**TEXT, cross_attention_dim=16))
    pipe, _ = make()
    names = ("vae", "text_encoder", "tokenizer")
    parts = {name: pipe.components[name] for name in names}
    solver = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    adapter = MotionAdapter(block_out_channels=(8, 16), motion_num_attention_heads=2, motion_norm_num_groups=4)
    motion = AnimateDiffPipeline(**parts, unet=unet, motion_adapter=adapter, scheduler=solver)
    return motion, {**SIZE, "prompt": "a red circle"}


def text_to_video() -> Made:
    pipe, arguments = with_unet(diffusers.TextToVideoSDPipeline, with_3d_blocks(UNet3DConditionModel, 16))
    return pipe, {**arguments, **SIZE}


def image_to_video() -> Made:
    pipe, _ = make()
    parts = {name: pipe.components[name] for name in ("vae", "text_encoder", "tokenizer")}
    solver = DDIMScheduler(clip_sample=False)
    unet = with_3d_blocks(I2VGenXLUNet, 16)
    video = diffusers.I2VGenXLPipeline(**parts, **image_encoder(16), unet=unet, scheduler=solver)
    # It encodes prompts with an attribute of text encoders that newer releases of transformers lack.
    text = {"prompt_embeds": noise(1, 7, 16), "negative_prompt_embeds": noise(1, 7, 16, seed=2)}
    return video, {**SIZE, **text, "image": picture(3), "target_fps": 16}


VIDEOS: dict[str, Callable[[], Made]] = {
    "StableVideoDiffusionPipeline": stable_video,
    "AnimateDiffPipeline": animated,
    "TextToVideoSDPipeline": text_to_video,
    "I2VGenXLPipeline": image_to_video,
}
