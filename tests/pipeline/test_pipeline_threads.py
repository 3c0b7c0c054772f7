"""An enabled UNet in several threads: features and logs are a thread's own."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from helpers.pipelines import fresh, generate, loop, steps, texts
from torch import Tensor

from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.summary import summarise


@torch.no_grad()
def test_images_while_another_thread_stands_still() -> None:
    """One thread stops after its second step; meanwhile two others, one of them new, generate an image each."""
    pipe, _ = fresh()
    pipe.scheduler.set_timesteps(4)
    timesteps, (text,) = pipe.scheduler.timesteps, texts(1)
    alone = [list(loop(pipe, seed, timesteps, text))[-1] for seed in range(3)]
    standing_still, *images = [loop(pipe, seed, timesteps, text) for seed in range(3)]
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as another:
        one.submit(last_of, standing_still, 2).result()
        assert torch.equal(last_of(images[0], 4), alone[1]) and steps(pipe) == "FaFa"
        assert torch.equal(another.submit(last_of, images[1], 4).result(), alone[2])
        assert torch.equal(one.submit(last_of, standing_still, 2).result(), alone[0])
        assert one.submit(steps, pipe).result() == "FaFa"


@torch.no_grad()
def last_of(image: Iterator[Tensor], count: int) -> Tensor:
    """The latents after the next steps."""
    return list(islice(image, count))[-1]


def test_whole_images_in_turn() -> None:
    """By the pipeline itself, whose solver can be in one image at a time."""
    pipe, _ = fresh()
    alone = generate(fresh()[0])
    with ThreadPoolExecutor(1) as worker:
        for _ in range(2):
            assert torch.equal(worker.submit(generate, pipe).result(), alone)
            assert torch.equal(generate(pipe), alone)


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
