"""Clockwork on pipelines of other UNets, each against the same pipeline without it: equality is exact."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.editing_pipelines import EDITING
from helpers.pipelines import counts, picture, reasons, steps
from helpers.unet_pipelines import PIPELINES, output
from helpers.unets import noise
from helpers.video_pipelines import VIDEOS
from torch.utils.flop_counter import FlopCounterMode

import clockwork
from clockwork.adaptors import FeatureDims, ResNet, Taylor
from clockwork.calibration.options import FitOptions
from clockwork.flops.cost import on_meta, shapes
from clockwork.pipeline.enable import enabled_hook

UNET_PIPELINES = {**PIPELINES, **EDITING, **VIDEOS}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of pipelines that diffusers deprecates


@pytest.mark.parametrize("kind", UNET_PIPELINES)
def test_unet_pipeline(kind: str) -> None:
    made = UNET_PIPELINES[kind]()
    pipe = made[0]
    plain = output(made)
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(output(made), plain)
    clockwork.enable(pipe, schedule="clock2")
    clocked = output(made)
    full, adaptor = counts(pipe)
    assert adaptor >= 1 and full - adaptor in (0, 1) and not reasons(pipe)
    assert clocked.isfinite().all() and not torch.equal(clocked, plain)
    assert torch.equal(output(made), clocked)
    check_flops(pipe)
    clockwork.disable(pipe)
    assert torch.equal(output(made), plain)


def check_flops(pipe: Any) -> None:
    """The FLOPs that torch counts in the UNet's own forward, of which an adaptor step leaves out the low-res path."""
    report, hook = clockwork.summary(pipe), enabled_hook(pipe)
    split, log = hook.denoiser.split, hook.log.steps
    clockwork.disable(pipe)
    counter = FlopCounterMode(display=False)
    unet = on_meta(split.unet)
    with counter:
        unet(**shapes(log[0].call))
    by_module, full = counter.get_flop_counts(), counter.get_total_flops()
    names = {module: f"{type(unet).__name__}.{name}" for name, module in split.unet.named_modules()}
    chain, cut = split.chain, split.cut
    skipped = [*chain.down[cut.down :], *chain.up[: len(chain.up) - cut.up]]
    modules = [module for layer in skipped for module in (layer.resnet, layer.resampler, *layer.followers)]
    low = sum(sum(by_module[names[module]].values()) for module in [*modules, chain.middle] if module is not None)
    assert full > low > 0
    assert report.flops_without.full == full * len(log)
    assert report.flops.full == full * report.full_steps + (full - low) * report.adaptor_steps


IMAGES = torch.cat([picture(seed) for seed in range(6)])
EMBEDS = {"image_embeds": noise(32, 10), "negative_image_embeds": noise(32, 10, seed=2)}
CALIBRATED: dict[str, tuple[list[str] | None, dict[str, Any]]] = {  # prompts and what the call needs besides
    "DDPMPipeline": (None, {}),
    "DDIMPipeline": (None, {"batch_size": 32}),
    "LDMPipeline": (None, {"batch_size": 32}),
    "ConsistencyModelPipeline": (None, {"class_labels": [1, 3] * 16, "batch_size": 32}),
    "KandinskyV22Pipeline": (None, EMBEDS),
    "KandinskyV22Img2ImgPipeline": (None, {**EMBEDS, "image": IMAGES[:1].expand(32, -1, -1, -1)}),
    "StableVideoDiffusionPipeline": (None, {"image": IMAGES}),
    "AnimateDiffPipeline": (["a circle", "a star", "a square", "a cat"], {}),
}


@pytest.mark.parametrize("kind", CALIBRATED)
def test_calibration_is_nearer_than_the_identity(kind: str) -> None:
    """Pipelines without prompts and of videos: on what they were calibrated for, and beside it."""
    made, (prompts, call) = UNET_PIPELINES[kind](), CALIBRATED[kind]
    pipe, arguments = made
    others = {name: value for name, value in arguments.items() if name not in ("prompt", "output_type", "batch_size")}
    clockwork.calibrate(pipe, prompts, "clock2", num_inference_steps=4, **{**others, **call})
    adaptor = enabled_hook(pipe).denoiser.adaptor
    again = (pipe, {**arguments, **call, **({} if prompts is None else {"prompt": prompts})})
    if kind == "DDPMPipeline":
        assert adaptor.calibration["prompts"] == 64
        again[1]["batch_size"] = 64
    calibrated = output(again)
    assert steps(pipe).startswith("FaF") and not reasons(pipe)
    clockwork.enable(pipe, "clock2", cut="stage1_upsampled")
    identity = output(again)
    clockwork.disable(pipe)
    plain = output(again)
    assert (calibrated - plain).norm() < (identity - plain).norm()


def test_a_calibrated_video(tmp_path: Path) -> None:
    """Chunks of one and of three videos have the same sums, and a saved adaptor gives the same; more frames warn."""
    pipe, arguments = VIDEOS["AnimateDiffPipeline"]()
    call = {name: value for name, value in arguments.items() if name != "prompt"}
    prompts = ["a circle", "a star", "a square"]
    maps = [
        clockwork.calibrate(pipe, prompts, num_inference_steps=4, options=FitOptions(batch=batch), **call)
        for batch in (1, 3)
    ]
    torch.testing.assert_close(maps[0].weight, maps[1].weight, rtol=1e-3, atol=1e-5)
    made = pipe, arguments
    calibrated = output(made)
    clockwork.save_adaptor(tmp_path / "adaptor", maps[1])
    clockwork.enable(pipe, adaptor=tmp_path / "adaptor")
    assert torch.equal(output(made), calibrated)
    with pytest.warns(UserWarning, match="frames 5, not 3"):
        output(made, num_frames=5)


def test_a_pipeline_without_prompts_is_calibrated_without_them() -> None:
    pipe, _ = PIPELINES["DDPMPipeline"]()
    with pytest.raises(ValueError, match="DDPMPipeline takes no prompts: pass None"):
        clockwork.calibrate(pipe, ["a", "b"], num_inference_steps=4)
    assert not hasattr(pipe.unet, "_diffusers_hook") or "clockwork" not in pipe.unet._diffusers_hook.hooks


def test_an_inpainting_unet_is_calibrated() -> None:
    made = PIPELINES["StableDiffusionInpaintPipeline, 9 channels"]()
    pipe, plain = made[0], output(made)
    call = {name: value for name, value in made[1].items() if name not in ("prompt", "output_type")}
    clockwork.enable(pipe, cut="stage1_upsampled")
    identity = output(made)
    clockwork.calibrate(pipe, ["a circle", "a star", "a square", "a cat"], num_inference_steps=4, **call)
    calibrated = output(made)
    assert steps(pipe) == "FaFa"
    assert (calibrated - plain).norm() < (identity - plain).norm()


def test_a_pipeline_without_prompts_has_no_menu() -> None:
    pipe, _ = PIPELINES["DDPMPipeline"]()
    with pytest.raises(ValueError, match="a menu measures other prompts, and DDPMPipeline takes none: use"):
        clockwork.tune(pipe, num_inference_steps=4)
    with pytest.raises(ValueError, match="DDPMPipeline takes no prompts: pass None"):
        clockwork.tune(pipe, ["a"] * 9, num_inference_steps=4)


def test_what_is_for_images_alone() -> None:
    pipe, _ = VIDEOS["AnimateDiffPipeline"]()
    with pytest.raises(ValueError, match="an adaptor that reads the prompt's text is for images"):
        clockwork.enable(pipe, adaptor=ResNet(FeatureDims(8, 8, 32, 12)))
    clockwork.enable(pipe, adaptor=Taylor(), schedule="clock3")


@pytest.mark.parametrize("kind", ["DDIMPipeline", "AnimateDiffPipeline"])
def test_unets_with_other_inputs_are_not_exported(kind: str, tmp_path: Path) -> None:
    pipe, _ = UNET_PIPELINES[kind]()
    clockwork.enable(pipe)
    with pytest.raises(ValueError, match=f"a {type(pipe.unet).__name__} that reads other inputs"):
        clockwork.export(pipe, tmp_path / "exported", num_inference_steps=4, guidance_scale=1.0)


@pytest.mark.parametrize("split_inference", [False, True])
def test_free_noise(split_inference: bool) -> None:
    """Long videos: diffusers exchanges the motion modules' blocks, and wraps layers, which it then calls by keyword."""
    made = VIDEOS["AnimateDiffPipeline"]()
    pipe = made[0]
    pipe.enable_free_noise(context_length=4, context_stride=2)
    if split_inference:
        pipe.enable_free_noise_split_inference(spatial_split_size=64, temporal_split_size=4)
    plain = output(made, num_frames=6)
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(output(made, num_frames=6), plain)
    clockwork.enable(pipe)
    assert not torch.equal(output(made, num_frames=6), plain)
    assert steps(pipe) == "FaFa" and not reasons(pipe)


# One of each class of UNet, and of each way to resample.
COMPILED = (
    "DDPMPipeline",
    "ConsistencyModelPipeline",
    "KandinskyV22Pipeline",
    "IFPipeline",
    "StableVideoDiffusionPipeline",
)
OTHERS = [pytest.param(kind, marks=pytest.mark.full) for kind in VIDEOS if kind not in COMPILED]


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in COMPILED), *OTHERS])
def test_unet_pipeline_compiled(kind: str) -> None:
    """Full steps and adaptor steps are one graph each, with the results of uncompiled ones."""
    torch._dynamo.reset()
    made = UNET_PIPELINES[kind]()
    clockwork.enable(made[0])
    uncompiled = output(made)
    clockwork.enable(made[0], compile={"backend": "eager"})
    assert torch.equal(output(made), uncompiled)
    assert "a" in steps(made[0]) and not reasons(made[0])
