"""On adaptor steps a ControlNet runs in part: its kept residuals are those of the whole one, bit for bit."""

import copy
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from helpers.pipelines import control, generate, make, reasons, steps
from torch import Tensor, nn

import clockwork
from clockwork.flops.counter import count_flops
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.step_tracking import CALL_CHANGED
from clockwork.unet.controlnet import has_kept_part, kept_part
from clockwork.unet.split import SplitUNet

ONE, SEVERAL = "StableDiffusionControlNetPipeline", "several ControlNets"
IMG2IMG, XL = "StableDiffusionControlNetImg2ImgPipeline", "StableDiffusionXLControlNetPipeline"
POINTS = [(ONE, None), (ONE, "layer1"), (ONE, "stage2"), (SEVERAL, "stage1"), (IMG2IMG, "stage1"), (XL, None)]


@pytest.fixture
def generate_whole(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Generates with ControlNets that run as a whole on every step."""

    def run(pipe: Any, **arguments: Any) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr("clockwork.pipeline.controlnet.has_kept_part", lambda *_: False)
            return generate(pipe, **arguments)

    return run


@pytest.mark.parametrize("guess_mode", [False, True])
@pytest.mark.parametrize("name", [ONE, XL])
def test_each_number_of_kept_residuals(name: str, guess_mode: bool) -> None:
    """Against the whole ControlNet, whose number of residuals also sets the scales of guess mode."""
    net = make(name)[0].controlnet
    width, number = net.config.cross_attention_dim, len(net.controlnet_down_blocks)
    call = {"encoder_hidden_states": torch.randn(2, 5, width), "controlnet_cond": torch.rand(2, 3, 32, 32)}
    if "XL" in name:
        call["added_cond_kwargs"] = {"text_embeds": torch.randn(2, 12), "time_ids": torch.zeros(2, 6)}
    arguments = (torch.randn(2, 4, 16, 16), torch.tensor(5))
    options = {"guess_mode": guess_mode, "conditioning_scale": 0.7, "return_dict": False}
    down, _ = net(*arguments, **call, **options)
    costs = [count_flops(lambda: net(*arguments, **call, **options)).full]
    for kept in range(number, 0, -1):
        part = kept_part(net, kept)
        residuals, middle = part(*arguments, **call, **options)
        assert len(residuals) == number and all(map(torch.equal, residuals[:kept], down[:kept]))
        assert all(residual.shape == (2, 1, 1, 1) for residual in (*residuals[kept:], middle))
        costs.append(count_flops(lambda part=part: part(*arguments, **call, **options)).full)
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == len(costs)


@torch.no_grad()
@pytest.mark.parametrize(("cut", "expected"), [("stage1", 125.0), ("layer1", 15.7)])
def test_what_it_saves_at_real_size(cut: str, expected: float) -> None:
    """GFLOPs of a ControlNet of SD v1.5 at 512 × 512 pixels, of 283.3 as a whole; counted on `meta`."""
    with torch.device("meta"):
        net, unet = ControlNetModel(cross_attention_dim=768), UNet2DConditionModel(cross_attention_dim=768)
        call = (torch.empty(1, 4, 64, 64), torch.tensor(1), torch.empty(1, 77, 768), torch.empty(1, 3, 512, 512))
    split = SplitUNet(unet, cut)
    part = kept_part(net, split.cut.num_kept_skips(split.chain))
    assert count_flops(lambda: net(*call)).full / 1e9 == pytest.approx(283.3, abs=0.05)
    assert count_flops(lambda: part(*call)).full / 1e9 == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(("name", "cut"), POINTS)
def test_images_are_those_of_whole_controlnets(name: str, cut: str | None, generate_whole: Any) -> None:
    pipe, arguments = make(name)
    clockwork.enable(pipe, cut=cut)
    expected, without = generate_whole(pipe, **arguments), clockwork.summary(pipe).flops
    image, flops = generate(pipe, **arguments), clockwork.summary(pipe).flops
    assert torch.equal(image, expected) and "a" in steps(pipe)
    assert flops.full < without.full


@pytest.mark.parametrize(
    "arguments",
    [
        {"guess_mode": True},
        {"guidance_scale": 1.0},
        {"num_images_per_prompt": 2},
        {"control_guidance_start": 0.3, "control_guidance_end": 0.8},
        {"controlnet_conditioning_scale": [0.3, 1.2]},
        {"prompt": ["a red circle", "a star"], "negative_prompt": ["a", "b"]},
    ],
)
def test_arguments_of_the_call(arguments: dict[str, Any], generate_whole: Any) -> None:
    pipe, images = make(SEVERAL)
    if isinstance(arguments.get("prompt"), list):
        images = {"image": [image.repeat(2, 1, 1, 1) for image in images["image"]]}
    clockwork.enable(pipe, "clock3")
    expected = generate_whole(pipe, **images, **arguments)
    assert torch.equal(generate(pipe, **images, **arguments), expected) and steps(pipe) == "FaaF"


def test_a_step_that_has_to_be_full_after_all(generate_whole: Any) -> None:
    """Guidance ends in the middle, in a callback: the UNet's batch is smaller than that of the step before."""
    pipe, arguments = make(ONE)
    clockwork.enable(pipe, "clock4")

    def end_guidance(pipe: Any, step: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step != 0:
            return {}
        pipe._guidance_scale = 0.0
        return {"prompt_embeds": values["prompt_embeds"].chunk(2)[-1], "image": values["image"].chunk(2)[-1]}

    call = {"callback_on_step_end": end_guidance, "callback_on_step_end_tensor_inputs": ["prompt_embeds", "image"]}
    expected = generate_whole(pipe, **arguments, **call)
    assert steps(pipe) == "FFaa" and CALL_CHANGED in reasons(pipe)
    assert torch.equal(generate(pipe, **arguments, **call), expected) and steps(pipe) == "FFaa"


def test_without_clockwork_and_with_hooks_it_is_whole(generate_whole: Any) -> None:
    """After `disable`, in another pipeline, and with a hook that looks at all residuals."""
    pipe, arguments = make(ONE)
    plain, net, seen = generate(pipe, **arguments), pipe.controlnet, []
    clockwork.enable(pipe)
    clocked = generate(pipe, **arguments)
    handle = net.register_forward_hook(lambda _, __, output: seen.extend(output[0][1:]))
    assert torch.equal(generate(pipe, **arguments), clocked) and all(r.shape[-1] > 1 for r in seen)
    handle.remove()
    other, _ = make(ONE)
    other.controlnet = net
    assert torch.equal(generate(other, **arguments), plain)
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe, **arguments), plain)


def test_what_has_no_kept_part() -> None:
    pipe, _ = make(ONE)
    number = len(SplitUNet(pipe.unet).chain.down) + 1
    net = control(pipe.unet, 1)
    assert has_kept_part(net, number) and not has_kept_part(net, number + 1)
    assert not has_kept_part(nn.Linear(1, 1), number)
    net.down_blocks[0].register_forward_hook(lambda *_: None)
    assert not has_kept_part(net, number)


def test_calibration_sees_all_residuals(generate_whole: Any) -> None:
    """Its targets are those of the full UNet, also on adaptor steps."""
    pipe, arguments = make(ONE)
    prompts = ["a red circle", "a star", "a green square", "two cats", "a house", "a tree", "a dog", "a lamp"]
    maps = []
    for enabled in (False, True):
        if enabled:
            clockwork.enable(pipe)
        adaptor = clockwork.calibrate(pipe, prompts, num_inference_steps=4, guidance_scale=5.0, **arguments)
        maps.append(list(adaptor.state_dict().values()))
        clockwork.disable(pipe)
    assert all(map(torch.equal, *maps))
    clockwork.enable(pipe, adaptor=adaptor)
    assert torch.equal(generate(pipe, **arguments), generate_whole(pipe, **arguments)) and steps(pipe) == "FaFa"


def test_a_copy_of_the_pipeline_has_its_own() -> None:
    pipe, arguments = make(ONE)
    clockwork.enable(pipe)
    expected = generate(pipe, **arguments)
    copied = copy.deepcopy(pipe)
    assert torch.equal(generate(copied, **arguments), expected)
    hook = copied.controlnet._diffusers_hook.get_hook("clockwork")
    assert hook.clock is enabled_hook(copied) is not enabled_hook(pipe)
