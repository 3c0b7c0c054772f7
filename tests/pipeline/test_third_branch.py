"""Guidance with a third branch: InstructPix2Pix's image, and perturbed attention."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.editing_pipelines import edited_by_text, perturbed
from helpers.pipelines import make, reasons, steps
from helpers.unet_pipelines import Made, output
from torch import Tensor

import clockwork
from clockwork.adaptors import Linear
from clockwork.calibration.options import FitOptions
from clockwork.errors import UserError
from clockwork.pipeline.enable import enabled_hook, get_unet
from clockwork.pipeline.guidance import branches, guidance_weights
from clockwork.pipeline.hook import get_hook

PROMPTS = ["a red circle", "a green star", "a blue square", "a small cat"] * 2
IMAGE_AND_TEXT = ("conditional", "image", "unconditional")
PERTURBED = ("unconditional", "conditional", "perturbed")
ALONE = "perturbed attention alone"
CASES: dict[str, tuple[Any, dict[str, float], tuple[str, ...]]] = {
    "InstructPix2Pix": (edited_by_text, {"guidance_scale": 5.0, "image_guidance_scale": 1.7}, IMAGE_AND_TEXT),
    "InstructPix2Pix without guidance": (edited_by_text, {"guidance_scale": 1.0}, ("conditional",)),
    "perturbed attention": (perturbed, {"guidance_scale": 4.0}, PERTURBED),
    "perturbed attention, by timestep": (perturbed, {"pag_adaptive_scale": 0.002}, PERTURBED),
    ALONE: (perturbed, {"guidance_scale": 1.0}, ("conditional", "perturbed")),
    "perturbed attention off": (perturbed, {"pag_scale": 0.0}, ("unconditional", "conditional")),
}
THREE = [name for name, (_, _, names) in CASES.items() if len(names) > 2 and "timestep" not in name]


def calibrated(name: str, **options: Any) -> tuple[Made, Linear]:
    """A pipeline that is calibrated at its own call, and the call with the same prompts."""
    maker, scales, _ = CASES[name]
    pipe, arguments = maker()
    call = {**{key: value for key, value in arguments.items() if key != "prompt"}, **scales}
    given = FitOptions(("r_out_prev", "r_in", "r_in_change"), **options)
    adaptor = clockwork.calibrate(pipe, PROMPTS, num_inference_steps=4, options=given, **call)
    if "image" in call:
        call["image"] = call["image"].expand(len(PROMPTS), -1, -1, -1)
    return (pipe, {**call, "prompt": PROMPTS}), adaptor


@pytest.mark.parametrize("name", CASES)
def test_the_weights_make_the_pipelines_own_guided_prediction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the UNet's predictions, which the solver receives."""
    maker, scales, names = CASES[name]
    made = maker()
    pipe = made[0]
    predictions, step, seen = [], pipe.scheduler.step, []
    pipe.unet.register_forward_hook(lambda _, __, result: predictions.append(result[0]))

    def spy(guided: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
        assert branches(pipe) == names
        parts = predictions.pop().chunk(len(names))
        expected = sum(weight * part for weight, part in zip(guidance_weights(pipe, t), parts, strict=True))
        assert torch.allclose(guided, expected, atol=1e-5)
        seen.append(t)
        return step(guided, t, *args, **kwargs)

    monkeypatch.setattr(pipe.scheduler, "step", spy)
    output(made, **scales)
    assert len(seen) == 4


@pytest.mark.parametrize(("name", "joint"), [*((name, False) for name in (*THREE, ALONE)), (THREE[0], True)])
def test_calibration_is_nearer_than_the_identity(name: str, joint: bool, tmp_path: Path) -> None:
    made, adaptor = calibrated(name, joint=joint)
    pipe, names = made[0], CASES[name][2]
    assert adaptor.branches == names and adaptor.point is not None
    near = output(made)
    assert steps(pipe) == "FaFa" and not reasons(pipe) and not enabled_hook(pipe).log.differences
    clockwork.save_adaptor(tmp_path, adaptor)
    clockwork.enable(pipe, adaptor=tmp_path)
    assert torch.equal(output(made), near)
    clockwork.enable(pipe, cut="stage1_upsampled")
    identity = output(made)
    clockwork.disable(pipe)
    plain = output(made)
    assert (near - plain).norm() < 0.9 * (identity - plain).norm()


def test_other_scales_of_a_third_branch_warn() -> None:
    made, adaptor = calibrated("perturbed attention")
    assert adaptor.point is not None and adaptor.point.more_guidance == {"pag_scale": 3.0}
    with pytest.warns(UserWarning, match="further guidance pag_scale 2, not pag_scale 3"):
        output(made, pag_scale=2.0)
    with pytest.warns(UserWarning, match="further guidance none, not pag_scale 3"):
        output(made, pag_scale=0.0)
    assert steps(made[0]) == "FaFa", "the two halves have their maps"


def test_a_calibration_with_other_branches_is_refused_in_a_sentence() -> None:
    """At the first call of an image, before anything is generated."""
    made, _ = calibrated("perturbed attention off")
    message = "guidance has the branches {}, and the adaptor is for {}: calibrate for this call"
    with pytest.raises(UserError, match=message.format(", ".join(PERTURBED), "unconditional, conditional")):
        output(made, pag_scale=3.0)
    made, _ = calibrated(ALONE)
    with pytest.raises(UserError, match=message.format(", ".join(PERTURBED), "conditional, perturbed")):
        output(made, guidance_scale=5.0)


def test_without_guidance_all_examples_are_conditional() -> None:
    """Maps of three branches that read all of them: an example is taken for each."""
    made, _ = calibrated(THREE[0], joint=True)
    with pytest.warns(UserWarning, match=r"guidance 1.0, not 5.0"):
        output(made, guidance_scale=1.0)
    assert steps(made[0]) == "FaFa" and not reasons(made[0])


def test_one_half_of_three_branches_is_refused() -> None:
    with pytest.raises(UserError, match="positive_only is for images with guidance by the prompt"):
        calibrated("perturbed attention", positive_only=True)
    pipe, _ = make()
    assert get_hook(get_unet(pipe)) is None


@torch.no_grad()
@pytest.mark.parametrize("order", [IMAGE_AND_TEXT, IMAGE_AND_TEXT[::-1]])
def test_a_loop_that_calls_the_unet_once_per_branch_is_the_pipeline(order: tuple[str, ...]) -> None:
    """Two branches have the same negative prompt, so that only `clockwork.branch` tells them apart."""
    (pipe, call), _ = calibrated(THREE[0])
    noise, image = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)), call["image"][:1]
    batched = output((pipe, {**call, "prompt": PROMPTS[0], "image": image}), latents=noise)
    positive, negative, _ = pipe._encode_prompt(PROMPTS[0], "cpu", 1, True).split(1)
    encoded, _, zeros = pipe.prepare_image_latents(2 * image - 1, 1, 1, negative.dtype, negative.device, True).split(1)
    inputs = {"conditional": (positive, encoded), "image": (negative, encoded), "unconditional": (negative, zeros)}
    pipe.scheduler.set_timesteps(4)
    for _ in range(2):
        latents = noise * pipe.scheduler.init_noise_sigma
        for t in pipe.scheduler.timesteps:
            noises = {}
            for name in order:
                text, picture = inputs[name]
                sample = torch.cat([pipe.scheduler.scale_model_input(latents, t), picture], 1)
                with clockwork.branch(pipe, name):
                    noises[name] = pipe.unet(sample, t, text).sample
            text_change = 5.0 * (noises["conditional"] - noises["image"])
            guided = noises["unconditional"] + text_change + 1.7 * (noises["image"] - noises["unconditional"])
            latents = pipe.scheduler.step(guided, t, latents).prev_sample
        assert torch.allclose(latents, batched, atol=1e-3)
        assert steps(pipe) == "FFFaaaFFFaaa" and not reasons(pipe)
