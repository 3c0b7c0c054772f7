"""State looks after itself: after whatever came before, a picture is that of a pipeline enabled a moment ago."""

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from helpers.pipelines import StoppedError, fresh, generate, make, reasons, solver, steps
from torch import Tensor

import clockwork
from clockwork.adaptors import NO_HISTORY
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.step_tracking import CALL_CHANGED, UNKNOWN_POSITION


def stop_after(step: int, **arguments: Any) -> Callable[[Any], None]:
    def happen(pipe: Any) -> None:
        def end(_: Any, i: int, __: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            if i + 1 == step:
                raise StoppedError
            return kwargs

        with pytest.raises(StoppedError):
            generate(pipe, seed=5, prompt="a green star", callback_on_step_end=end, **arguments)

    return happen


def interrupted(pipe: Any) -> None:
    def end(at: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        at._interrupt = i == 1
        return kwargs

    generate(pipe, seed=5, callback_on_step_end=end)


def failing_layer(pipe: Any) -> None:
    """An exception inside the UNet, on an adaptor step and on a full one."""

    def fail(*_: Any) -> None:
        if len(enabled_hook(pipe).log.steps) in (2, 3):
            raise StoppedError

    hook = pipe.unet.conv_out.register_forward_hook(fail)
    with pytest.raises(StoppedError):
        generate(pipe, seed=5)
    hook.remove()


def other_solver_and_back(pipe: Any) -> None:
    before = pipe.scheduler
    pipe.scheduler = solver(diffusers.EulerDiscreteScheduler)
    generate(pipe, seed=5)
    pipe.scheduler = before


def half_precision_and_back(pipe: Any) -> None:
    weights = {name: weight.clone() for name, weight in pipe.unet.state_dict().items()}
    generate(pipe.to(torch.bfloat16), seed=5)
    other, _ = make()
    pipe.to(torch.float32)
    for part in ("unet", "text_encoder", "vae"):
        getattr(pipe, part).load_state_dict(getattr(other, part).state_dict())
    assert all(torch.equal(weight, weights[name]) for name, weight in pipe.unet.state_dict().items())


BEFORE: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda pipe: None,
    "another image": lambda pipe: generate(pipe, seed=5),
    "another prompt": lambda pipe: generate(pipe, prompt="a green star"),
    "another batch size": lambda pipe: generate(pipe, num_images_per_prompt=2),
    "another dtype": half_precision_and_back,
    "another resolution": lambda pipe: generate(pipe, height=48, width=40),
    "an odd number of steps": lambda pipe: generate(pipe, seed=5, steps=5),
    "another solver": other_solver_and_back,
    "without guidance": lambda pipe: generate(pipe, guidance_scale=1.0),
    "aborted after a full step": stop_after(1),
    "aborted after an adaptor step": stop_after(2),
    "aborted before the last step": stop_after(3),
    "interrupted": interrupted,
    "an exception inside the UNet": failing_layer,
    "one step": lambda pipe: generate(pipe, steps=1),
}


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
    assert enabled_hook(pipe)._thread.loop.history == NO_HISTORY


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
    kept = enabled_hook(pipe)._thread.loop.call.timesteps
    for _ in range(3):
        pipe.scheduler.set_timesteps(4)
        assert pipe.scheduler.timesteps.data_ptr() != kept.data_ptr()
