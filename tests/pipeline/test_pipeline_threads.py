"""An enabled UNet in several threads: features and logs are a thread's own."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from helpers.pipelines import fresh, generate, loop, steps, texts
from torch import Tensor

from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.summary import summarise


def test_threads_in_turn() -> None:
    """A picture in one thread, then one in another, then the first again; and one that stands still meanwhile."""
    pipe, _ = fresh()
    alone = generate(fresh()[0])
    images: list[Tensor] = []

    def work() -> None:
        images.append(generate(pipe))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        images.append(generate(pipe))
    assert all(torch.equal(one, alone) for one in images)


@torch.no_grad()
def test_threads_step_by_step_in_turn() -> None:
    """Two threads, a step each in turn, on the same timesteps: each has features of its own."""
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(4)
    given = texts(1) * 2
    alone = [list(loop(pipe, seed, pipe.scheduler.timesteps, text))[-1] for seed, text in enumerate(given)]
    turn = [threading.Semaphore(1), threading.Semaphore(0)]
    images: dict[int, Tensor] = {}

    def work(i: int) -> None:
        with torch.no_grad():
            mine = loop(pipe, i, pipe.scheduler.timesteps, given[i])
            for _ in range(4):
                turn[i].acquire()
                images[i] = next(mine)
                turn[1 - i].release()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(images[i], alone[i]) for i in range(2))


@torch.no_grad()
def test_threads_at_once_have_a_log_each() -> None:
    """Really at once, step by step, on the same timesteps: an image's batch and its abortion are its thread's only."""
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(6)
    timesteps, (text,) = pipe.scheduler.timesteps, texts(1)
    alone = {n: list(loop(pipe, n, timesteps, text.repeat(n, 1, 1), n))[-1] for n in (1, 2)}
    together, found = threading.Barrier(2, timeout=60), {}

    def work(batch: int) -> None:
        own = text.repeat(batch, 1, 1)
        with torch.no_grad():
            aborted = loop(pipe, 7, timesteps, own, batch)
            for step in range(2):
                together.wait()
                if step < batch:
                    next(aborted)
            for _ in range(2):
                together.wait()
                latents = list(loop(pipe, batch, timesteps, own, batch, together))[-1]
                found[batch] = latents, steps(pipe), {len(step.call["sample"]) for step in enabled_hook(pipe).log.steps}

    run_threads(work, [1, 2])
    for batch in (1, 2):
        latents, *logged = found[batch]
        assert torch.equal(latents, alone[batch])
        assert logged == ["FaFaFa", {batch}]


@torch.no_grad()
def test_a_summary_in_a_thread_that_generated_nothing() -> None:
    """That of the last step in all threads, finished or not."""
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(4)
    (text,) = texts(1)
    with ThreadPoolExecutor(1) as worker:
        for count, expected in ((4, "FaFa"), (3, "FaF")):
            worker.submit(generate_here, pipe, text, count).result()
            assert steps(pipe) == expected
        generate_here(pipe, text, 1)
        worker.submit(generate_here, pipe, text, 4).result()
        report = summarise(pipe)
        assert (report.full_steps, report.adaptor_steps) == (1, 0)


@torch.no_grad()
def generate_here(pipe: Any, text: Tensor, count: int) -> None:
    image = loop(pipe, 0, pipe.scheduler.timesteps, text)
    for _ in range(count):
        next(image)


def run_threads(work: Callable[[int], None], numbers: list[int]) -> None:
    with ThreadPoolExecutor(len(numbers)) as threads:
        for done in [threads.submit(work, number) for number in numbers]:
            done.result()
