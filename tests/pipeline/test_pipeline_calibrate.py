"""`clockwork.calibrate` on pipelines of every kind: what it fits, what it leaves behind, and what it refuses."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.pipelines import KINDS, StoppedError, generate, make, miniature_pipeline, solver, steps
from torch import Tensor

import clockwork
from clockwork.adaptors import Identity, Linear
from clockwork.calibration.options import FitOptions
from clockwork.errors import UserError
from clockwork.miniature.prompts import scene_prompts
from clockwork.pipeline.calibration_call import CAPTIONS, pipeline_arguments
from clockwork.pipeline.enable import enabled_hook, get_unet
from clockwork.pipeline.hook import get_hook
from clockwork.teachers import Teacher

PROMPTS = ["a red circle", "a green star", "a blue square", "two small rings"] * 2
CALL: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.0}
QUICK = FitOptions(terms=("r_in", "r_in_change"), batch=3)


def latents(pipe: Any, prompts: list[str], **arguments: Any) -> Tensor:
    images: Tensor = pipe(**pipeline_arguments(pipe, prompts, {**CALL, **arguments}, seed=0)).images
    return images


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# One of each family; `make test-slow` takes the others.
QUICK_KINDS = ("StableDiffusionPipeline", "StableDiffusionControlNetImg2ImgPipeline", "several T2I-Adapters")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK_KINDS else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_calibrated_pipeline_comes_nearer_than_the_identity(kind: str) -> None:
    """In one call, with the arguments of the user's calls; on the prompts and noise that it was fitted on."""
    pipe, arguments = make(kind)
    full = latents(pipe, PROMPTS, **arguments)
    clockwork.enable(pipe, cut="stage1")
    identity = distance(latents(pipe, PROMPTS, **arguments), full)
    adaptor = clockwork.calibrate(pipe, PROMPTS, "clock2", "stage1", options=QUICK, **CALL, **arguments)
    assert isinstance(enabled_hook(pipe).denoiser.adaptor, Linear)
    linear = distance(latents(pipe, PROMPTS, **arguments), full)
    assert linear < identity and enabled_hook(pipe).log.differences == []
    assert steps(pipe) == ("FaF" if "Img2Img" in kind or "Inpaint" in kind else "FaFa")
    assert len(adaptor.branches) == 2 and adaptor.calibration is not None
    assert all(fit["error"] < fit["identity_error"] for fit in adaptor.calibration["steps"])


def test_the_adaptor_is_a_folder_for_the_same_operating_point(tmp_path: Path) -> None:
    pipe, _ = make()
    adaptor = clockwork.calibrate(pipe, PROMPTS, options=QUICK, **CALL)
    images = generate(pipe, guidance_scale=3.0)
    clockwork.save_adaptor(tmp_path, adaptor, calibration=adaptor.calibration)
    clockwork.disable(pipe)
    clockwork.enable(pipe, adaptor=tmp_path)
    assert torch.equal(generate(pipe, guidance_scale=3.0), images)
    with pytest.warns(UserWarning, match="steps 6, not 4"):
        generate(pipe, steps=6, guidance_scale=3.0)
    other, _ = make()
    for weight in other.unet.parameters():
        weight.mul_(1.5)
    with pytest.raises(UserError, match="was trained for teacher"):
        clockwork.enable(other, adaptor=adaptor)


@pytest.mark.parametrize("before", ["nothing", "enabled"])
@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_a_call_that_ends_early_leaves_the_pipeline_as_it_was(before: str, error: type[BaseException]) -> None:
    pipe, _ = make()
    if before == "enabled":
        clockwork.enable(pipe, cut="layer1")
    images, hook = generate(pipe), get_hook(get_unet(pipe))

    def stop(*_: Any) -> dict[str, Any]:
        raise error

    with pytest.raises(error):
        clockwork.calibrate(pipe, PROMPTS, options=QUICK, callback_on_step_end=stop, **CALL)
    assert get_hook(get_unet(pipe)) is hook
    assert torch.equal(generate(pipe), images)


def test_without_guidance_there_is_one_map_per_step() -> None:
    pipe, _ = make()
    adaptor = clockwork.calibrate(pipe, PROMPTS, options=QUICK, num_inference_steps=4, guidance_scale=1.0)
    assert len(adaptor.branches) == 1 and adaptor.steps == (2, 4)
    assert adaptor.point is not None and adaptor.point.guidance == 1.0


@pytest.mark.parametrize(("kind", "expected"), [("PNDMScheduler", (2, 4)), ("HeunDiscreteScheduler", (2, 4, 6))])
def test_steps_are_calls_of_the_unet(kind: str, expected: tuple[int, ...]) -> None:
    """PNDM calls the UNet once more than it has steps, and Heun twice a step."""
    options = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    pipe, _ = make(given_solver=solver(getattr(diffusers, kind), **options))
    adaptor = clockwork.calibrate(pipe, PROMPTS, options=QUICK, num_inference_steps=4, guidance_scale=3.0)
    assert adaptor.steps == expected
    generate(pipe, guidance_scale=3.0)
    assert tuple(i for i, kind_of_step in enumerate(steps(pipe), 1) if kind_of_step == "a") == expected


def test_several_images_per_prompt_and_prompts_of_ones_own_number() -> None:
    pipe, _ = make()
    adaptor = clockwork.calibrate(pipe, PROMPTS[:4], options=QUICK, num_images_per_prompt=2, **CALL)
    positions = (16 // 2) ** 2
    assert adaptor.calibration is not None
    assert {fit["observations"] for fit in adaptor.calibration["steps"]} == {8 * adaptor.dims.upscale**2 * positions}


def test_negative_prompts_are_taken_in_turn(teacher: Teacher) -> None:
    """Fitted on two negative prompts, the adaptor is nearer than the identity with each of them."""
    pipe = miniature_pipeline(teacher)
    training, unseen = ([p.text for p in scene_prompts(split, 16)] for split in ("train", "test"))
    given = pipeline_arguments(pipe, training, {"negative_prompt": ["", "a red circle"]}, 0)["negative_prompt"]
    assert given == ["", "a red circle"] * 8
    adaptor = clockwork.calibrate(pipe, training, negative_prompt=["", "a red circle"], **CALL)
    for negative in ("", "a red circle"):
        clockwork.disable(pipe)
        full = latents(pipe, unseen, negative_prompt=negative)
        errors = []
        for candidate in (adaptor, Identity(adaptor.dims)):
            clockwork.enable(pipe, "clock2", candidate, "stage1_upsampled")
            errors.append(distance(latents(pipe, unseen, negative_prompt=negative), full))
        assert errors[0] < 0.75 * errors[1]


def test_captions_of_its_own() -> None:
    captions = CAPTIONS.read_text(encoding="utf-8").splitlines()
    assert len(captions) == len(set(captions)) == 64 and all(caption.endswith(".") for caption in captions)
    pipe, _ = make()
    adaptor = clockwork.calibrate(pipe, options=QUICK, num_inference_steps=2, guidance_scale=3.0)
    assert adaptor.calibration is not None and adaptor.calibration["prompts"] == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": "a red circle"}, "needs a list of prompts"),
        ({"prompts": []}, "needs a list of prompts"),
        ({"prompts": ["a star"], "options": FitOptions(), "cut": "stage2"}, "1 captions are too few: the maps have"),
        ({"schedule": "full"}, "no adaptor steps to calibrate"),
        ({"schedule": "always"}, "no full step before step 1"),
        ({"schedule": "2,9"}, "longer than the 4 steps"),
        ({"cut": "attic"}, "attic"),
        ({"steps": 4}, "has no argument steps"),
        ({"prompt_embeds": torch.zeros(1, 7, 16)}, "passes its prompts as texts"),
        ({"output_type": "pil"}, "cannot be passed on"),
    ],
)
def test_wrong_calls_are_refused_in_a_sentence(changes: dict[str, Any], message: str) -> None:
    pipe, _ = make()
    with pytest.raises(UserError, match=message):
        clockwork.calibrate(pipe, **{"prompts": PROMPTS, "options": QUICK, **CALL, **changes})
    assert get_hook(get_unet(pipe)) is None


def test_a_word_repeated_is_fitted_alike_in_both_halves() -> None:
    """If the prompts equal the negative prompt, both halves have the same inputs and targets, and so the same maps."""
    pipe, _ = make()
    options = FitOptions(QUICK.terms, ridges=(1e-9,))
    adaptor = clockwork.calibrate(pipe, ["star"] * 8, options=options, negative_prompt="star", **CALL)
    unconditional, conditional = adaptor.weight[:, 0], adaptor.weight[:, 1]
    assert conditional.norm() > 0 and torch.allclose(unconditional, conditional, atol=1e-3 * conditional.abs().max())
