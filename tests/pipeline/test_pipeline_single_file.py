"""A pipeline loaded from one file of weights is the teacher that its folder is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from helpers.pipelines import counts, generate, make
from helpers.single_file import save_single_file

import clockwork

PROMPTS = ["a red circle", "a green star", "a blue square", "a small cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder with its weights in one file beside it."""
    path = tmp_path_factory.mktemp("single") / "pipeline"
    pipe, _ = make()
    pipe.save_pretrained(path)
    save_single_file(pipe, path / "original.safetensors")
    save_single_file(pipe.to(torch.float16), path / "half.safetensors")
    return path


def of_file(folder: Path, name: str = "original", **options: Any) -> Any:
    pipe = StableDiffusionPipeline.from_single_file(str(folder / f"{name}.safetensors"), config=str(folder), **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def of_folder(folder: Path) -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("name", ["original", "half"])
def test_a_single_file_is_the_teacher_that_its_folder_is(folder: Path, tmp_path: Path, name: str) -> None:
    """An adaptor calibrated on the folder is accepted by the file and gives the same latents, and the other way."""
    pipe, single = of_folder(folder), of_file(folder, name)
    if name == "original":
        assert torch.equal(generate(pipe), generate(single))
    adaptor = clockwork.calibrate(pipe, PROMPTS, num_inference_steps=4, guidance_scale=5.0)
    clockwork.save_adaptor(tmp_path / "of_folder", adaptor)
    clockwork.enable(single, adaptor=tmp_path / "of_folder")
    clocked = generate(single)
    assert counts(single) == (2, 2)
    report = clockwork.summary(single)
    assert report.ran is not None and report.trained is not None and not report.differences
    assert report.ran.teacher_hash == report.trained.teacher_hash
    if name == "original":
        assert torch.equal(clocked, generate(pipe))
    again = clockwork.calibrate(single, PROMPTS, num_inference_steps=4, guidance_scale=5.0)
    assert again.point is not None and again.point.teacher == "StableDiffusionPipeline"
    clockwork.save_adaptor(tmp_path / "of_file", again)
    clockwork.enable(pipe, adaptor=tmp_path / "of_file")


def test_a_single_file_of_another_architecture_is_refused(folder: Path, tmp_path: Path) -> None:
    adaptor = clockwork.calibrate(of_folder(folder), PROMPTS, num_inference_steps=4)
    clockwork.save_adaptor(tmp_path / "adaptor", adaptor)
    other, _ = make()
    other.unet = type(other.unet).from_config({**other.unet.config, "layers_per_block": 2})
    other.save_pretrained(tmp_path / "other")
    save_single_file(other, tmp_path / "other" / "original.safetensors")
    with pytest.raises(
        ValueError, match=r"this adaptor was trained for teacher pipeline .* not StableDiffusionPipeline"
    ):
        clockwork.enable(of_file(tmp_path / "other"), adaptor=tmp_path / "adaptor")


def test_a_single_file_of_sdxl_is_the_teacher_that_its_folder_is(tmp_path: Path) -> None:
    """Two text encoders, of which OpenCLIP's has a form of its own, and embedded sizes."""
    pipe, _ = make("StableDiffusionXLPipeline")
    pipe.save_pretrained(tmp_path / "sdxl")
    file = save_single_file(pipe, tmp_path / "sdxl.safetensors")
    single = StableDiffusionXLPipeline.from_single_file(str(file), config=str(tmp_path / "sdxl"), add_watermarker=False)
    single.set_progress_bar_config(disable=True)
    assert torch.equal(generate(pipe), generate(single))
    adaptor = clockwork.calibrate(pipe, PROMPTS, num_inference_steps=4, guidance_scale=5.0)
    clockwork.save_adaptor(tmp_path / "adaptor", adaptor)
    clockwork.enable(single, adaptor=tmp_path / "adaptor")
    clocked = generate(single)
    assert counts(single) == (2, 2) and torch.equal(clocked, generate(pipe))
    report = clockwork.summary(single)
    assert report.ran is not None and report.trained is not None and not report.differences
    assert report.ran.teacher_hash == report.trained.teacher_hash
