"""Small random pipelines of every kind: growing channels, latents of 16 × 16."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DPMSolverMultistepScheduler,
    MultiAdapter,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from helpers.shapes import SHAPES
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import clockwork
from clockwork.adaptors import ResNet
from clockwork.miniature import WEIGHTS
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.enable import enabled_hook
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.solvers import make_solver, solver_settings
from clockwork.teachers import Teacher

PROMPT = "a large red circle in the center on a plain blue background"
PIXELS = 32
GIVEN = {"steps": 4, "guidance_scale": 3.0}  # where `random_adaptor` is at home


@cache
def _parts(xl: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    words = CLIPTokenizer.from_pretrained(WEIGHTS / "miniature" / "tokenizer")
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=PIXELS,
        mid_block_add_attention=False,
    )
    parts = {"vae": vae, "tokenizer": words, "text_encoder": CLIPTextModel(_text(words, 16))}
    config = {"norm_num_groups": 4, "sample_size": 16, **SHAPES["sdxl" if xl else "sd15"], "layers_per_block": 1}
    if xl:
        parts |= {"tokenizer_2": words, "text_encoder_2": CLIPTextModelWithProjection(_text(words, 8))}
    parts["unet"] = UNet2DConditionModel(**config, cross_attention_dim=24 if xl else 16)
    for part in parts.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return parts


def _text(words: CLIPTokenizer, width: int) -> CLIPTextConfig:
    ids = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPTextConfig(
        vocab_size=len(words), max_position_embeddings=words.model_max_length, projection_dim=12, **sizes, **ids
    )


def solver(kind: Any = DPMSolverMultistepScheduler, **options: Any) -> Any:
    betas = {"steps_offset": 1, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return kind(num_train_timesteps=1000, **betas, **options)


def control(unet: UNet2DConditionModel, seed: int) -> ControlNetModel:
    """One whose residuals are not zero, as they are before training."""
    torch.manual_seed(seed)
    made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16)).eval().requires_grad_(False)
    for name, weight in made.named_parameters():
        if "controlnet" in name:
            nn.init.normal_(weight, std=0.3)
    return made


def t2i(unet: UNet2DConditionModel, kind: str) -> T2IAdapter:
    torch.manual_seed(3)
    channels = list(unet.config.block_out_channels)
    return T2IAdapter(channels=channels, num_res_blocks=1, downscale_factor=2, adapter_type=kind).eval()


def picture(seed: int = 0, size: int = PIXELS) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


KINDS: dict[str, Any] = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionImg2ImgPipeline": StableDiffusionImg2ImgPipeline,
    "StableDiffusionInpaintPipeline": StableDiffusionInpaintPipeline,
    "StableDiffusionControlNetPipeline": StableDiffusionControlNetPipeline,
    "several ControlNets": StableDiffusionControlNetPipeline,
    "StableDiffusionControlNetImg2ImgPipeline": StableDiffusionControlNetImg2ImgPipeline,
    "StableDiffusionAdapterPipeline": StableDiffusionAdapterPipeline,
    "several T2I-Adapters": StableDiffusionAdapterPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
    "StableDiffusionXLImg2ImgPipeline": StableDiffusionXLImg2ImgPipeline,
    "StableDiffusionXLInpaintPipeline": StableDiffusionXLInpaintPipeline,
    "StableDiffusionXLControlNetPipeline": StableDiffusionXLControlNetPipeline,
}


def make(name: str = "StableDiffusionPipeline", given_solver: Any = None) -> tuple[Any, dict[str, Any]]:
    """A pipeline of its own, and the arguments that its kind wants besides a prompt."""
    cls = KINDS[name]
    xl = "XL" in name
    parts = {key: copy.deepcopy(part) for key, part in _parts(xl).items()}
    parts["scheduler"] = given_solver or solver()
    arguments: dict[str, Any] = {}
    if "ControlNet" in name:
        nets = [control(parts["unet"], seed) for seed in (1, 2)]
        several = name.startswith("several")
        parts["controlnet"] = nets if several else nets[0]
        hint = "control_image" if "Img2Img" in name else "image"
        arguments[hint] = [picture(1), picture(2)] if several else picture(1)
    if "Img2Img" in name or "Inpaint" in name:
        arguments |= {"image": picture(3), "strength": 0.75}
    if "Inpaint" in name:
        mask = torch.zeros(1, 1, PIXELS, PIXELS)
        mask[..., :16] = 1
        arguments |= {"mask_image": mask, "height": PIXELS, "width": PIXELS}
    if name.endswith("Adapters") or name == "StableDiffusionAdapterPipeline":
        several = name.startswith("several")
        made = [t2i(parts["unet"], "full_adapter") for _ in range(1 + several)]
        parts["adapter"] = MultiAdapter(made) if several else made[0]
        arguments["image"] = [picture(1), picture(2)] if several else picture(1)
        arguments["adapter_conditioning_scale"] = [0.9, 0.7] if several else 0.9
    if xl:
        parts |= {"feature_extractor": None, "image_encoder": None, "add_watermarker": False}
        if "ControlNet" in name:
            arguments |= {"height": PIXELS, "width": PIXELS}
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = cls(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe, arguments


def generate(pipe: Any, seed: int = 0, steps: int = 4, **arguments: Any) -> Tensor:
    """Latents: the decoder is not ours."""
    given = {"prompt": PROMPT, "guidance_scale": 5.0, "output_type": "latent", **arguments}
    generator = torch.Generator().manual_seed(seed)
    return pipe(num_inference_steps=steps, generator=generator, **given).images


def miniature_pipeline(teacher: Teacher) -> StableDiffusionPipeline:
    """A copy of the teacher's, with DPM++."""
    pipe = copy.deepcopy(teacher.pipe)
    pipe.scheduler = make_solver("dpm++", teacher.noise_schedule)
    return pipe


def random_adaptor(teacher: Teacher, folder: Path, steps: int = 4) -> Path:
    """A ResNet's folder, with every input, text too, by default for the operating point of `GIVEN`."""
    torch.manual_seed(0)
    adaptor = ResNet(feature_dims(teacher, "stage1"), 16, 1)
    for weight in adaptor.parameters():
        nn.init.normal_(weight, std=0.05)
    cut = str(clockwork.SplitUNet(teacher.unet).cut)
    settings = solver_settings(make_solver("dpm++", teacher.noise_schedule))
    point = OperatingPoint("miniature", teacher.hash, cut, "clock2", "dpm++", steps, 3.0, 32, solver_settings=settings)
    assert teacher.text_embedder is not None
    clockwork.save_adaptor(folder, adaptor, point, openclip=teacher.text_embedder.config)
    return folder


def counts(pipe: Any) -> tuple[int, int]:
    """Full and adaptor steps of the last call."""
    steps = enabled_hook(pipe).log.steps
    return sum(s.full for s in steps), sum(not s.full for s in steps)


def fresh(name: str = "StableDiffusionPipeline", given_solver: Any = None) -> tuple[Any, dict[str, Any]]:
    pipe, arguments = make(name, given_solver)
    clockwork.enable(pipe)
    return pipe, arguments


def steps(pipe: Any) -> str:
    """The last call's steps: F for full, a for adaptor."""
    return "".join("F" if step.full else "a" for step in enabled_hook(pipe).log.steps)


def reasons(pipe: Any) -> list[str]:
    return [step.forced_full_reason for step in enabled_hook(pipe).log.steps if step.forced_full_reason]


class StoppedError(Exception):
    pass


def loop(pipe: Any, seed: int, timesteps: Any, text: Tensor, batch: int = 1, barrier: Any = None) -> Any:
    """A loop of one's own over the UNet, with latents per step; steps wait for those of other threads at `barrier`."""
    latents = torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    for t in timesteps:
        if barrier is not None:
            barrier.wait()
        latents = latents - 0.1 * pipe.unet(latents, t, text, return_dict=False)[0]
        yield latents


def texts(count: int) -> list[Tensor]:
    return [torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(40 + i)) for i in range(count)]
