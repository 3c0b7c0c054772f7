"""Pipelines with their guidance in local variables of their call: GLIGEN, the upscaler, DeepFloyd IF, ModelScope."""

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLInstructPix2PixPipeline, UNet2DConditionModel
from helpers.editing_pipelines import EDITING
from helpers.pipelines import make, picture, reasons, steps
from helpers.unet_pipelines import PIPELINES, Made, output
from helpers.video_pipelines import VIDEOS
from transformers import T5Config, T5EncoderModel

import clockwork
from clockwork.calibration.options import FitOptions
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.guidance import branches_of_call
from clockwork.unet.conditioning import HALVES

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of pipelines that diffusers deprecates
ALL = {**PIPELINES, **EDITING, **VIDEOS}
IMAGE_AND_TEXT = "StableDiffusionXLInstructPix2PixPipeline"
KINDS = (
    *("StableDiffusionGLIGENPipeline", "StableDiffusionUpscalePipeline", "TextToVideoSDPipeline"),
    *("IFPipeline", "IFSuperResolutionPipeline", IMAGE_AND_TEXT),
)
PROMPTS = ["a red circle", "a green star", "a blue square", "a small cat"]
TERMS = ("r_out_prev", "r_in", "r_in_change")


def with_prompts(kind: str) -> Made:
    """A pipeline and its call with all prompts; DeepFloyd IF has a text encoder."""
    pipe, arguments = edited_by_text() if kind == IMAGE_AND_TEXT else ALL[kind]()
    call = {name: value for name, value in arguments.items() if not name.endswith("prompt_embeds")}
    if kind.startswith("IF"):
        torch.manual_seed(0)
        words = make()[0].tokenizer
        config = T5Config(vocab_size=len(words), d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
        pipe.register_modules(text_encoder=T5EncoderModel(config).eval(), tokenizer=words)
        call["clean_caption"] = False
    if "image" in call:
        call["image"] = call["image"].expand(len(PROMPTS), -1, -1, -1)
    return pipe, {**call, "prompt": PROMPTS}


def edited_by_text() -> Made:
    """InstructPix2Pix around SDXL, whose UNet reads the image beside the latents."""
    parts = {name: part for name, part in make("StableDiffusionXLPipeline")[0].components.items() if part is not None}
    config = {name: value for name, value in parts["unet"].config.items() if not name.startswith("_")}
    torch.manual_seed(0)
    parts["unet"] = UNet2DConditionModel(**{**config, "in_channels": 8}).eval()
    names = signature(StableDiffusionXLInstructPix2PixPipeline).parameters
    pipe = StableDiffusionXLInstructPix2PixPipeline(
        **{name: part for name, part in parts.items() if name in names}, add_watermarker=False
    )
    return pipe, {"image": picture(3), "height": 32, "width": 32, "image_guidance_scale": 1.4}


def calibrated(made: Made, **scale: float) -> Any:
    call = {name: value for name, value in made[1].items() if name not in ("prompt", "output_type")}
    return clockwork.calibrate(made[0], PROMPTS, num_inference_steps=4, options=FitOptions(TERMS), **call, **scale)


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_is_nearer_than_the_identity(kind: str, tmp_path: Path) -> None:
    """With a map per half, at the scale of the call; also when the adaptor is saved and used again."""
    made = with_prompts(kind)
    pipe, adaptor = made[0], calibrated(made, guidance_scale=4.0)
    expected = ("conditional", "image", "unconditional") if kind == IMAGE_AND_TEXT else HALVES
    assert adaptor.branches == expected and adaptor.point.guidance == 4.0
    clockwork.save_adaptor(tmp_path, adaptor)
    clockwork.enable(pipe, adaptor=tmp_path)
    near = output(made, guidance_scale=4.0)
    assert steps(pipe) == "FaFa" and not reasons(pipe) and not enabled_hook(pipe).log.differences
    assert all(step.guided for step in enabled_hook(pipe).log.steps)
    clockwork.enable(pipe, cut="stage1_upsampled")
    identity = output(made, guidance_scale=4.0)
    clockwork.disable(pipe)
    plain = output(made, guidance_scale=4.0)
    assert (near - plain).norm() < 0.95 * (identity - plain).norm()


def test_without_guidance_two_prompts_are_not_two_halves() -> None:
    """Though the latents be equal, the call tells it; the scale that nobody passes is that of the signature."""
    made = with_prompts("StableDiffusionGLIGENPipeline")
    adaptor = calibrated(made)
    assert adaptor.point.guidance == 7.5
    equal = torch.randn(1, 4, 16, 16).expand(4, -1, -1, -1)
    with pytest.warns(UserWarning, match="guidance 1.0, not 7.5"):
        output(made, guidance_scale=1.0, latents=equal)
    log = enabled_hook(made[0]).log.steps
    assert steps(made[0]) == "FaFa" and not any(step.guided for step in log)
    assert calibrated(made, guidance_scale=1.0).branches == ("conditional",)


class Caller:
    """A pipeline that has its guidance in local variables, and two images per prompt."""

    def __call__(self, batch: int, do_classifier_free_guidance: bool, batch_size: int = 2) -> Any:
        num_images_per_prompt = batch_size  # noqa: F841
        return branches_of_call(self, torch.tensor(1), batch, apart=False)


def test_a_batch_of_another_size_is_not_known() -> None:
    """As of pipelines with further branches that they do not tell either."""
    caller = Caller()
    assert caller(8, True) == HALVES and caller(4, False) == HALVES[1:]
    assert caller(12, True) is None and caller(4, True) is None and caller(8, False) is None
    assert branches_of_call(caller, torch.tensor(1), 8, apart=False) == HALVES[1:], "outside of a call"
