"""Loops of one's own over an enabled UNet, one or several: whose step is whose, or a full one."""

from typing import Any

import diffusers
import pytest
import torch
from helpers.pipelines import StoppedError, fresh, loop, make, reasons, solver, steps, texts
from torch import Tensor

import clockwork
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.step_tracking import OUT_OF_ORDER, UNKNOWN_POSITION


def all_of(loops: list[Any]) -> list[Tensor]:
    """In turns, a step of each."""
    return [list(last) for last in zip(*loops, strict=True)][-1]


@torch.no_grad()
def test_two_loops_in_turn_on_the_same_timesteps() -> None:
    """With one prompt, whose step is whose cannot be known: full steps, and counted as such."""
    pipe, _ = make()
    pipe.scheduler.set_timesteps(4)
    given = texts(1) * 2
    plain = [list(loop(pipe, seed, pipe.scheduler.timesteps, text))[-1] for seed, text in enumerate(given)]
    clockwork.enable(pipe)
    loops = [loop(pipe, seed, pipe.scheduler.timesteps, text) for seed, text in enumerate(given)]
    assert all(map(torch.equal, all_of(loops), plain))
    assert OUT_OF_ORDER in reasons(pipe)


@torch.no_grad()
@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_two_loops_of_other_prompts_in_turn_are_clocked_as_each_alone(seeds: tuple[int, int]) -> None:
    """The halves of guidance in calls of their own, or two images: each call goes on from those with its prompt."""
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(4)
    pairs = list(zip(seeds, texts(2), strict=True))
    alone = [list(loop(pipe, seed, pipe.scheduler.timesteps, text))[-1] for seed, text in pairs]
    for _ in range(2):  # the second begins where the first ended
        loops = [loop(pipe, seed, pipe.scheduler.timesteps, text) for seed, text in pairs]
        assert all(map(torch.equal, all_of(loops), alone))
        assert steps(pipe) == "FFaaFFaa" and not reasons(pipe)
    halves = clockwork.summary(pipe).flops
    list(loop(pipe, 0, pipe.scheduler.timesteps, pairs[0][1]))
    assert halves.full == 2 * clockwork.summary(pipe).flops.full


@torch.no_grad()
def test_a_loop_of_ones_own_is_clocked_when_it_is_alone() -> None:
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(4)
    (text,) = texts(1)
    for _ in range(2):  # the second begins where the first ended
        list(loop(pipe, 0, pipe.scheduler.timesteps, text))
        assert steps(pipe) == "FaFa"


ABORTED_LOOPS: dict[str, tuple[Any, int]] = {  # a solver, and where the images begin
    "from the start": (None, 0),
    "strength 0.5": (None, 3),
    "Heun": (diffusers.HeunDiscreteScheduler, 0),
    "PNDM": (diffusers.PNDMScheduler, 0),
    "PNDM, strength 0.5": (diffusers.PNDMScheduler, 3),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", ABORTED_LOOPS)
def test_an_image_after_an_aborted_one(kind: str) -> None:
    """Timesteps are set once; an image is aborted after each of its steps: the next one is clocked, but for one step
    that may be the aborted one's, and the one after is that of a pipeline enabled a moment ago."""
    scheduler, first = ABORTED_LOOPS[kind]
    options = {"skip_prk_steps": True} if scheduler is diffusers.PNDMScheduler else {}
    given = solver(scheduler, **options) if scheduler else None
    pipe, _ = fresh(given_solver=given)
    pipe.scheduler.set_timesteps(6)
    timesteps, (text,) = pipe.scheduler.timesteps[first:], texts(1)
    expected = list(loop(pipe, 0, timesteps, text))[-1]
    planned = steps(pipe)
    assert planned == ("Fa" * 6)[: len(timesteps)]
    for count in range(1, len(timesteps)):
        aborted = loop(pipe, 1, timesteps, text)
        for _ in range(count):
            next(aborted)
        aborted.close()
        list(loop(pipe, 0, timesteps, text))
        forced = planned[count] == "a"  # where the aborted image would go on
        assert steps(pipe) == planned[:count] + "F" + planned[count + 1 :]
        assert reasons(pipe) == [OUT_OF_ORDER] * forced
        assert torch.equal(list(loop(pipe, 0, timesteps, text))[-1], expected)
        assert steps(pipe) == planned and not reasons(pipe)


@torch.no_grad()
def test_a_clean_image_after_two_in_turn() -> None:
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(4)
    timesteps, (text,) = pipe.scheduler.timesteps, texts(1)
    expected = list(loop(pipe, 2, timesteps, text))[-1]
    all_of([loop(pipe, seed, timesteps, text) for seed in range(2)])
    assert torch.equal(list(loop(pipe, 2, timesteps, text))[-1], expected)
    assert steps(pipe) == "FaFa" and not reasons(pipe)


@torch.no_grad()
@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_step_that_fails_inside_the_unet_is_repeated(failing: int) -> None:
    """As after running out of memory: the repeated step finds the features of the step before."""
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(4)
    timesteps, (text,) = pipe.scheduler.timesteps, texts(1)
    expected = list(loop(pipe, 0, timesteps, text))[-1]
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for step, t in enumerate(timesteps, 1):
        if step == failing:
            hook = pipe.unet.conv_out.register_forward_hook(fail)
            with pytest.raises(StoppedError):
                pipe.unet(latents, t, text)
            hook.remove()
        latents = latents - 0.1 * pipe.unet(latents, t, text, return_dict=False)[0]
    assert torch.equal(latents, expected)
    assert steps(pipe) == "FaFa" and not reasons(pipe)


def fail(*_: Any) -> None:
    raise StoppedError


@torch.no_grad()
@pytest.mark.parametrize("kind", ["another tensor", "numbers", "several at once"])
def test_timesteps_that_are_not_the_solvers(kind: str) -> None:
    pipe, _ = make()
    pipe.scheduler.set_timesteps(4)
    given: dict[str, Any] = {
        "another tensor": pipe.scheduler.timesteps.clone(),
        "numbers": pipe.scheduler.timesteps.tolist(),
        "several at once": [pipe.scheduler.timesteps[i : i + 2] for i in range(3)],
    }
    (text,) = texts(1)
    batch = text.repeat(2, 1, 1) if kind == "several at once" else text
    plain = list(loop(pipe, 0, given[kind], batch))[-1] if kind != "several at once" else None
    clockwork.enable(pipe)
    if plain is not None:
        assert torch.equal(list(loop(pipe, 0, given[kind], batch))[-1], plain)
    else:
        for t in given[kind]:
            pipe.unet(torch.randn(2, 4, 16, 16), t, batch)
    assert set(reasons(pipe)) == {UNKNOWN_POSITION} and "a" not in steps(pipe)
    report = clockwork.summary(pipe)
    assert report.forced_full_steps == {UNKNOWN_POSITION: len(enabled_hook(pipe).log.steps)}
    for t in given[kind]:  # a second image has a log of its own
        pipe.unet(torch.randn(len(batch), 4, 16, 16), t, batch)
    assert clockwork.summary(pipe) == report


@torch.no_grad()
def test_a_step_left_out_is_followed_by_a_full_one() -> None:
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(6)
    order = [pipe.scheduler.timesteps[i] for i in (0, 1, 3, 4, 5)]
    list(loop(pipe, 0, order, texts(1)[0]))
    assert steps(pipe) == "FaFFa" and reasons(pipe) == [OUT_OF_ORDER]
