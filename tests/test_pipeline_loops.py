"""Loops of one's own over an enabled UNet, one or several, in threads too: whose step is whose, or a full one."""

import threading
from typing import Any

import pytest
import torch
from pipelines import make, paint
from test_pipeline_state import fresh, reasons, steps
from torch import Tensor

import clockwork
from clockwork.pipeline.enable import enabled
from clockwork.pipeline.step_tracking import DISORDER, UNKNOWN, position


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


def test_threads_in_turn() -> None:
    """A picture in one thread, then one in another, then the first again; and one that stands still meanwhile."""
    pipe, _ = fresh()
    alone = paint(fresh()[0])
    painted: list[Tensor] = []

    def work() -> None:
        painted.append(paint(pipe))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        painted.append(paint(pipe))
    assert all(torch.equal(one, alone) for one in painted)


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


def test_position_is_of_memory_not_of_value() -> None:
    repeated = torch.tensor([9, 7, 7, 5])
    assert [position(t, repeated) for t in repeated] == [0, 1, 2, 3]
    assert [position(t, repeated) for t in repeated[2:]] == [2, 3]
    assert position(repeated[1].clone(), repeated) is None
    assert position(9, repeated) is None and position(repeated[:2], repeated) is None
    assert [position(t, repeated[::2]) for t in repeated] == [0, None, 1, None]
