"""State looks after itself: after whatever came before, a picture is that of a pipeline enabled a moment ago."""

from typing import Any

import diffusers
import pytest
import torch
from helpers.pipeline_states import BEFORE, stop_after
from helpers.pipelines import fresh, generate, make, reasons, solver, steps
from torch import Tensor

import clockwork
from clockwork.adaptors import NO_HISTORY
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.step_tracking import CALL_CHANGED, UNKNOWN_POSITION


@pytest.fixture(scope="module")
def expected() -> Tensor:
    return generate(fresh()[0])


@pytest.mark.parametrize("before", BEFORE)
def test_whatever_came_before(before: str, expected: Tensor) -> None:
    pipe, _ = fresh()
    BEFORE[before](pipe)
    assert torch.equal(generate(pipe), expected)
    assert steps(pipe) == "FaFa" and not reasons(pipe)
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe), generate(make()[0]))


def test_no_features_stay_after_the_last_step() -> None:
    pipe, _ = fresh()
    generate(pipe)
    assert enabled_hook(pipe).thread.states[-1].history == NO_HISTORY


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8, 1.0])
def test_strength(strength: float) -> None:
    """An image that is changed begins in the middle of the timesteps, with a full step."""
    pipe, arguments = fresh("StableDiffusionImg2ImgPipeline")
    for _ in range(2):
        changed = generate(pipe, steps=10, **{**arguments, "strength": strength})
        assert steps(pipe) == ("Fa" * 5)[: int(10 * strength)]
    other, _ = fresh("StableDiffusionImg2ImgPipeline")
    assert torch.equal(generate(other, steps=10, **{**arguments, "strength": strength}), changed)


TWO_CALLS = {"HeunDiscreteScheduler": 2, "KDPM2DiscreteScheduler": 2, "PNDMScheduler": 1}


@pytest.mark.parametrize("kind", [*TWO_CALLS, "EulerDiscreteScheduler", "DDIMScheduler", "LCMScheduler"])
def test_solvers(kind: str) -> None:
    """The clock counts calls: 2 n − 1 for n steps of a solver with two a step, one more for PNDM."""
    options = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    made = solver(getattr(diffusers, kind), **options)
    pipe, _ = make(given_solver=made)
    plain = generate(pipe)
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(generate(pipe), plain)
    calls = {2: 7, 1: 5}.get(TWO_CALLS.get(kind, 0), 4)
    assert steps(pipe) == "F" * calls and not reasons(pipe)
    clockwork.enable(pipe)
    clocked = generate(pipe)
    assert steps(pipe) == ("Fa" * calls)[:calls] and not reasons(pipe)
    assert torch.equal(generate(pipe), clocked)


def test_guidance_switched_off_half_way() -> None:
    """The batch halves before step 3 of 6: a full step, and then the clock goes on."""

    def off(pipe: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if i == 2:
            pipe._guidance_scale = 0.0
            kwargs["prompt_embeds"] = kwargs["prompt_embeds"].chunk(2)[-1]
        return kwargs

    arguments = {"steps": 6, "callback_on_step_end": off, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    plain = generate(make()[0], **arguments)
    pipe, _ = make()
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(generate(pipe, **arguments), plain)
    clockwork.enable(pipe)
    generate(pipe, **arguments)
    assert steps(pipe) == "FaFFFa" and reasons(pipe) == [CALL_CHANGED]


def test_the_pipeline_called_inside_its_own_call(expected: Tensor) -> None:
    """A callback that generates another image with the same pipeline resets the solver: what follows is full."""
    pipe, _ = make(given_solver=solver(diffusers.DDIMScheduler))
    inner: list[Tensor] = []

    def nested(at: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if i == 1 and not inner:
            guidance = at._guidance_scale
            inner.append(generate(at, seed=5))
            at._guidance_scale = guidance
        return kwargs

    plain = generate(pipe, callback_on_step_end=nested)
    plain_inner = inner.pop()
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(generate(pipe, callback_on_step_end=nested), plain)
    assert torch.equal(inner.pop(), plain_inner)
    clockwork.enable(pipe)
    generate(pipe, callback_on_step_end=nested)
    alone, _ = make(given_solver=solver(diffusers.DDIMScheduler))
    clockwork.enable(alone)
    assert torch.equal(inner.pop(), generate(alone, seed=5))
    assert reasons(pipe) == [UNKNOWN_POSITION] * 2  # the outer picture's last two


def test_every_picture_has_its_own_run_when_timesteps_are_freed() -> None:
    """A tensor's memory is taken by the next one: the run keeps its timesteps alive, so that none can pass for it."""
    pipe, _ = fresh()
    stop_after(3)(pipe)
    kept = enabled_hook(pipe).thread.states[-1].call.timesteps
    for _ in range(3):
        pipe.scheduler.set_timesteps(4)
        assert pipe.scheduler.timesteps.data_ptr() != kept.data_ptr()
