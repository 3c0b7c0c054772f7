"""State looks after itself: after whatever came before, a picture is that of a pipeline enabled a moment ago."""

import threading
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from pipelines import make, paint, solver
from torch import Tensor

import clockwork
from clockwork.pipeline.enable import enabled
from clockwork.pipeline.run import CHANGED, DISORDER, UNKNOWN, position


def fresh(name: str = "StableDiffusionPipeline", given_solver: Any = None) -> tuple[Any, dict[str, Any]]:
    pipe, arguments = make(name, given_solver)
    clockwork.enable(pipe)
    return pipe, arguments


def steps(pipe: Any) -> str:
    """The last call's steps: F for full, a for adaptor."""
    return "".join("F" if step.full else "a" for step in enabled(pipe).log.steps)


def reasons(pipe: Any) -> list[str]:
    return [step.why for step in enabled(pipe).log.steps if step.why]


class StoppedError(Exception):
    pass


def stop_after(step: int, **arguments: Any) -> Callable[[Any], None]:
    def happen(pipe: Any) -> None:
        def end(_: Any, i: int, __: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            if i + 1 == step:
                raise StoppedError
            return kwargs

        with pytest.raises(StoppedError):
            paint(pipe, seed=5, prompt="a green star", callback_on_step_end=end, **arguments)

    return happen


def interrupted(pipe: Any) -> None:
    def end(at: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        at._interrupt = i == 1
        return kwargs

    paint(pipe, seed=5, callback_on_step_end=end)


def failing_layer(pipe: Any) -> None:
    """An exception inside the UNet, on an adaptor step and on a full one."""

    def fail(*_: Any) -> None:
        if len(enabled(pipe).log.steps) in (2, 3):
            raise StoppedError

    hook = pipe.unet.conv_out.register_forward_hook(fail)
    with pytest.raises(StoppedError):
        paint(pipe, seed=5)
    hook.remove()


def other_solver_and_back(pipe: Any) -> None:
    before = pipe.scheduler
    pipe.scheduler = solver(diffusers.EulerDiscreteScheduler)
    paint(pipe, seed=5)
    pipe.scheduler = before


def half_precision_and_back(pipe: Any) -> None:
    weights = {name: weight.clone() for name, weight in pipe.unet.state_dict().items()}
    paint(pipe.to(torch.bfloat16), seed=5)
    other, _ = make()
    pipe.to(torch.float32)
    for part in ("unet", "text_encoder", "vae"):
        getattr(pipe, part).load_state_dict(getattr(other, part).state_dict())
    assert all(torch.equal(weight, weights[name]) for name, weight in pipe.unet.state_dict().items())


BEFORE: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda pipe: None,
    "another image": lambda pipe: paint(pipe, seed=5),
    "another prompt": lambda pipe: paint(pipe, prompt="a green star"),
    "another batch size": lambda pipe: paint(pipe, num_images_per_prompt=2),
    "another dtype": half_precision_and_back,
    "another resolution": lambda pipe: paint(pipe, height=48, width=40),
    "an odd number of steps": lambda pipe: paint(pipe, seed=5, steps=5),
    "another solver": other_solver_and_back,
    "without guidance": lambda pipe: paint(pipe, guidance_scale=1.0),
    "aborted after a full step": stop_after(1),
    "aborted after an adaptor step": stop_after(2),
    "aborted before the last step": stop_after(3),
    "interrupted": interrupted,
    "an exception inside the UNet": failing_layer,
    "one step": lambda pipe: paint(pipe, steps=1),
}


@pytest.fixture(scope="module")
def expected() -> Tensor:
    return paint(fresh()[0])


@pytest.mark.parametrize("before", BEFORE)
def test_whatever_came_before(before: str, expected: Tensor) -> None:
    pipe, _ = fresh()
    BEFORE[before](pipe)
    assert torch.equal(paint(pipe), expected)
    assert steps(pipe) == "FaFa" and not reasons(pipe)
    clockwork.disable(pipe)
    assert torch.equal(paint(pipe), paint(make()[0]))


def test_no_features_stay_after_the_last_step() -> None:
    pipe, _ = fresh()
    paint(pipe)
    assert enabled(pipe)._thread.run.r_out is None


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8, 1.0])
def test_strength(strength: float) -> None:
    """An image that is changed begins in the middle of the timesteps, with a full step."""
    pipe, arguments = fresh("StableDiffusionImg2ImgPipeline")
    for _ in range(2):
        changed = paint(pipe, steps=10, **{**arguments, "strength": strength})
        assert steps(pipe) == ("Fa" * 5)[: int(10 * strength)]
    other, _ = fresh("StableDiffusionImg2ImgPipeline")
    assert torch.equal(paint(other, steps=10, **{**arguments, "strength": strength}), changed)


TWO_CALLS = {"HeunDiscreteScheduler": 2, "KDPM2DiscreteScheduler": 2, "PNDMScheduler": 1}


@pytest.mark.parametrize("kind", [*TWO_CALLS, "EulerDiscreteScheduler", "DDIMScheduler", "LCMScheduler"])
def test_solvers(kind: str) -> None:
    """The clock counts calls: 2 n − 1 for n steps of a solver with two a step, one more for PNDM."""
    options = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    made = solver(getattr(diffusers, kind), **options)
    pipe, _ = make(given_solver=made)
    plain = paint(pipe)
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(paint(pipe), plain)
    calls = {2: 7, 1: 5}.get(TWO_CALLS.get(kind, 0), 4)
    assert steps(pipe) == "F" * calls and not reasons(pipe)
    clockwork.enable(pipe)
    clocked = paint(pipe)
    assert steps(pipe) == ("Fa" * calls)[:calls] and not reasons(pipe)
    assert torch.equal(paint(pipe), clocked)


def test_guidance_switched_off_half_way() -> None:
    """The batch halves before step 3 of 6: a full step, and then the clock goes on."""

    def off(pipe: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if i == 2:
            pipe._guidance_scale = 0.0
            kwargs["prompt_embeds"] = kwargs["prompt_embeds"].chunk(2)[-1]
        return kwargs

    arguments = {"steps": 6, "callback_on_step_end": off, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    plain = paint(make()[0], **arguments)
    pipe, _ = make()
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(paint(pipe, **arguments), plain)
    clockwork.enable(pipe)
    paint(pipe, **arguments)
    assert steps(pipe) == "FaFFFa" and reasons(pipe) == [CHANGED]


def loop(pipe: Any, seed: int, timesteps: Any, text: Tensor) -> Any:
    """A loop of one's own over the UNet, a picture a yield."""
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    for t in timesteps:
        latents = latents - 0.1 * pipe.unet(latents, t, text, return_dict=False)[0]
        yield latents


def texts(count: int) -> list[Tensor]:
    return [torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(40 + i)) for i in range(count)]


def all_of(loops: list[Any]) -> list[Tensor]:
    """In turns, a step of each."""
    return [list(last) for last in zip(*loops, strict=True)][-1]


@torch.no_grad()
def test_two_loops_in_turn_on_the_same_timesteps() -> None:
    """Whose step is whose cannot be known: full steps, and counted as such."""
    pipe, _ = make()
    pipe.scheduler.set_timesteps(4)
    for given in (texts(2), texts(1) * 2):  # the second pair shares even its prompt
        plain = [list(loop(pipe, seed, pipe.scheduler.timesteps, text))[-1] for seed, text in enumerate(given)]
        clockwork.enable(pipe)
        loops = [loop(pipe, seed, pipe.scheduler.timesteps, text) for seed, text in enumerate(given)]
        assert all(map(torch.equal, all_of(loops), plain))
        assert DISORDER in reasons(pipe)
        clockwork.disable(pipe)


@torch.no_grad()
def test_a_loop_of_ones_own_is_clocked_when_it_is_alone() -> None:
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(4)
    (text,) = texts(1)
    for _ in range(2):  # the second begins where the first ended
        list(loop(pipe, 0, pipe.scheduler.timesteps, text))
        assert steps(pipe) == "FaFa"


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
    assert set(reasons(pipe)) == {UNKNOWN} and "a" not in steps(pipe)
    told = clockwork.summary(pipe)
    assert told.unplanned == {UNKNOWN: len(enabled(pipe).log.steps)}


@torch.no_grad()
def test_a_step_left_out_is_followed_by_a_full_one() -> None:
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(6)
    order = [pipe.scheduler.timesteps[i] for i in (0, 1, 3, 4, 5)]
    list(loop(pipe, 0, order, texts(1)[0]))
    assert steps(pipe) == "FaFFF" and reasons(pipe) == [DISORDER] * 3


def test_threads_in_turn(expected: Tensor) -> None:
    """A picture in one thread, then one in another, then the first again; and one that stands still meanwhile."""
    pipe, _ = fresh()
    painted: list[Tensor] = []

    def work() -> None:
        painted.append(paint(pipe))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        painted.append(paint(pipe))
    assert all(torch.equal(one, expected) for one in painted)


@torch.no_grad()
def test_threads_step_by_step_in_turn() -> None:
    """Two threads, a step each in turn, on the same timesteps: each has features of its own."""
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(4)
    given = texts(1) * 2
    alone = [list(loop(pipe, seed, pipe.scheduler.timesteps, text))[-1] for seed, text in enumerate(given)]
    turn = [threading.Semaphore(1), threading.Semaphore(0)]
    painted: dict[int, Tensor] = {}

    def work(i: int) -> None:
        with torch.no_grad():
            mine = loop(pipe, i, pipe.scheduler.timesteps, given[i])
            for _ in range(4):
                turn[i].acquire()
                painted[i] = next(mine)
                turn[1 - i].release()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(painted[i], alone[i]) for i in range(2))


def test_the_pipeline_called_inside_its_own_call(expected: Tensor) -> None:
    """A callback that paints another picture with the same pipeline resets the solver: what follows is full."""
    pipe, _ = make(given_solver=solver(diffusers.DDIMScheduler))
    inner: list[Tensor] = []

    def nested(at: Any, i: int, _: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if i == 1 and not inner:
            guidance = at._guidance_scale
            inner.append(paint(at, seed=5))
            at._guidance_scale = guidance
        return kwargs

    plain = paint(pipe, callback_on_step_end=nested)
    plain_inner = inner.pop()
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(paint(pipe, callback_on_step_end=nested), plain)
    assert torch.equal(inner.pop(), plain_inner)
    clockwork.enable(pipe)
    paint(pipe, callback_on_step_end=nested)
    alone, _ = make(given_solver=solver(diffusers.DDIMScheduler))
    clockwork.enable(alone)
    assert torch.equal(inner.pop(), paint(alone, seed=5))
    assert reasons(pipe) == [UNKNOWN] * 2  # the outer picture's last two


def test_position_is_of_memory_not_of_value() -> None:
    repeated = torch.tensor([9, 7, 7, 5])
    assert [position(t, repeated) for t in repeated] == [0, 1, 2, 3]
    assert [position(t, repeated) for t in repeated[2:]] == [2, 3]
    assert position(repeated[1].clone(), repeated) is None
    assert position(9, repeated) is None and position(repeated[:2], repeated) is None
    assert [position(t, repeated[::2]) for t in repeated] == [0, None, 1, None]


def test_every_picture_has_its_own_run_when_timesteps_are_freed() -> None:
    """A tensor's memory is taken by the next one: the run keeps its timesteps alive, so that none can pass for it."""
    pipe, _ = fresh()
    stop_after(3)(pipe)
    kept = enabled(pipe)._thread.run.call.timesteps
    for _ in range(3):
        pipe.scheduler.set_timesteps(4)
        assert pipe.scheduler.timesteps.data_ptr() != kept.data_ptr()
