"""`clockwork.branch`: loops of one's own tell which branch of guidance a call of the UNet is."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from helpers.pipelines import miniature_pipeline, reasons, steps
from torch import Tensor

import clockwork
from clockwork.errors import UserError
from clockwork.pipeline.step_tracking import UNKNOWN_HALF
from clockwork.teachers import Teacher
from clockwork.unet.conditioning import HALVES

PROMPTS = ["a red circle", "a green star", "a blue square", "two small rings"] * 16
CALL: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def pipe(teacher: Teacher) -> Any:
    pipe = miniature_pipeline(teacher)
    clockwork.calibrate(pipe, PROMPTS, **CALL)
    return pipe


@torch.no_grad()
def own_loop(pipe: Any, noise: Tensor, calls: list[tuple[str, ...]], tells: bool = True) -> Tensor:
    """Latents of a loop that calls the UNet with these branches in each batch, one batch after another."""
    positive, negative = pipe.encode_prompt("a red star", "cpu", 1, True, negative_prompt="a blue ring")
    texts = {"unconditional": negative, "conditional": positive}
    batches = [(names, torch.cat([texts[name] for name in names])) for names in calls]
    pipe.scheduler.set_timesteps(4)
    latents = noise * pipe.scheduler.init_noise_sigma
    for t in pipe.scheduler.timesteps:
        noises: dict[str, Tensor] = {}
        for names, text in batches:
            sample = pipe.scheduler.scale_model_input(torch.cat([latents] * len(names)), t)
            with clockwork.branch(pipe, *names) if tells else nullcontext():
                noises |= zip(names, pipe.unet(sample, t, text).sample.chunk(len(names)), strict=True)
        guided = torch.lerp(noises["unconditional"], noises["conditional"], 3.0)
        latents = pipe.scheduler.step(guided, t, latents).prev_sample
    return latents


APART = [("unconditional",), ("conditional",)]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [(APART, "FFaaFFaa"), (APART[::-1], "FFaaFFaa"), ([("conditional", "unconditional")], "FaFa")],
    ids=["negative first", "positive first", "one batch, positive first"],
)
def test_a_loop_that_tells_its_branches_is_the_pipeline(pipe: Any, calls: list[tuple[str, ...]], expected: str) -> None:
    """In whatever order; up to rounding, which is another for a batch of another size."""
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    prompts = {"prompt": "a red star", "negative_prompt": "a blue ring"}
    latents = pipe(**prompts, **CALL, latents=noise, output_type="latent").images
    for _ in range(2):
        assert torch.allclose(own_loop(pipe, noise, calls), latents, atol=1e-4)
        assert steps(pipe) == expected and not reasons(pipe)


def test_a_loop_that_does_not_tell_them_has_full_steps(pipe: Any) -> None:
    own_loop(pipe, torch.randn(1, 4, 16, 16), APART, tells=False)
    assert steps(pipe) == "F" * 8 and set(reasons(pipe)) == {UNKNOWN_HALF}


def test_what_is_told_has_to_fit(pipe: Any) -> None:
    for names in [(), ("positive",), ("conditional", "positive")]:
        with (
            pytest.raises(UserError, match="pass one or more of unconditional, conditional, image"),
            clockwork.branch(pipe, *names),
        ):
            pass
    pipe.scheduler.set_timesteps(4)
    with pytest.raises(UserError, match="1 examples are no multiple of"), clockwork.branch(pipe, *HALVES):
        pipe.unet(torch.randn(1, 4, 16, 16), pipe.scheduler.timesteps[0], torch.randn(1, 16, 64))


def test_without_clockwork_it_does_nothing(teacher: Teacher) -> None:
    plain = miniature_pipeline(teacher)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(own_loop(plain, noise, APART), own_loop(plain, noise, APART, tells=False))
