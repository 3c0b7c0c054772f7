"""A forecaster on a pipeline: it reads several full steps, and never those of another image."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from helpers.pipeline_states import BEFORE, stop_after
from helpers.pipelines import PROMPT, generate, loop, make, reasons, solver, steps, texts
from torch import Tensor

import clockwork
from clockwork.adaptors import NO_HISTORY, Taylor
from clockwork.pipeline.enable import enabled_hook
from clockwork.sampling.rollout import rollout
from clockwork.teachers import Condition

STEPS = 6  # with clock2, the last forecast reads three full steps


def forecasting(name: str = "StableDiffusionPipeline", given_solver: Any = None) -> tuple[Any, dict[str, Any]]:
    """A pipeline with a forecaster of order 2, and the arguments of its kind."""
    pipe, arguments = make(name, given_solver)
    clockwork.enable(pipe, adaptor=Taylor(order=2))
    return pipe, arguments


@pytest.fixture(scope="module")
def expected() -> Tensor:
    return generate(forecasting()[0], steps=STEPS)


LEAVING_FEATURES = [
    *("another image", "another prompt", "another batch size", "another dtype", "another resolution"),
    *("aborted after an adaptor step", "aborted before the last step", "an exception inside the UNet"),
]


@pytest.mark.parametrize("before", LEAVING_FEATURES)
def test_whatever_came_before(before: str, expected: Tensor) -> None:
    pipe, _ = forecasting()
    BEFORE[before](pipe)
    assert torch.equal(generate(pipe, steps=STEPS), expected)
    assert steps(pipe) == "FaFaFa" and not reasons(pipe)
    assert enabled_hook(pipe).thread.states[-1].history == NO_HISTORY, "nothing stays after the last step"


def test_the_rollout_is_a_second_way(expected: Tensor) -> None:
    """The loop of evaluation gives what the enabled pipeline gives, and neither is the identity's image."""
    pipe, _ = make()
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    positive, negative = pipe.encode_prompt(PROMPT, torch.device("cpu"), 1, True)
    split, schedule = clockwork.SplitUNet(pipe.unet), clockwork.Schedule.parse("clock2")
    denoiser = clockwork.ClockworkDenoiser(split, Taylor(order=2), schedule)
    *_, last = rollout(denoiser, pipe.scheduler, STEPS, noise, Condition(positive), Condition(negative), 5.0)
    assert torch.equal(last.latents, expected)
    clockwork.enable(pipe)
    assert not torch.equal(generate(pipe, steps=STEPS), expected)


def test_strength() -> None:
    """An image that is changed begins in the middle of the timesteps, after another that was aborted there."""
    kind = "StableDiffusionImg2ImgPipeline"
    (pipe, arguments), (other, _) = forecasting(kind), forecasting(kind)
    arguments |= {"strength": 0.8, "steps": 10}
    plain = generate(other, **arguments)
    stop_after(3, **arguments)(pipe)
    for _ in range(2):
        assert torch.equal(generate(pipe, **arguments), plain)
        assert steps(pipe) == "FaFaFaFa" and not reasons(pipe)


TWO_CALLS: dict[str, tuple[type[Any], int]] = {  # solvers that repeat timesteps, with their UNet calls of six steps
    "Heun": (diffusers.HeunDiscreteScheduler, 11),
    "PNDM": (diffusers.PNDMScheduler, 7),
}


@pytest.mark.parametrize("kind", TWO_CALLS)
def test_solvers_that_repeat_timesteps(kind: str) -> None:
    """The step counts UNet calls, so two full steps at one timestep are at different steps."""
    scheduler, calls = TWO_CALLS[kind]
    options = {"skip_prk_steps": True} if kind == "PNDM" else {}
    (pipe, _), (other, _) = (forecasting(given_solver=solver(scheduler, **options)) for _ in range(2))
    plain = generate(other, steps=STEPS)
    assert plain.isfinite().all()
    for _ in range(2):
        assert torch.equal(generate(pipe, steps=STEPS), plain)
        assert steps(pipe) == ("Fa" * calls)[:calls] and not reasons(pipe)


class Images:
    """Images that are generated step by step on one timesteps tensor, in any order. After each step the owners of the
    features are checked that the next step of the image may read."""

    def __init__(self, pipe: Any, prompts: Sequence[Tensor]) -> None:
        self.hook, self.owners = enabled_hook(pipe), dict[int, int]()
        self.features: list[Tensor] = []  # kept, so that no other features get their memory
        timesteps = pipe.scheduler.timesteps
        self.loops = [loop(pipe, seed, timesteps, text) for seed, text in enumerate(prompts)]

    def step(self, image: int) -> Tensor:
        """Runs the next step of an image and returns its latents."""
        latents: Tensor = next(self.loops[image])
        history = self.hook.thread.states[-1].history
        numbers = [full.step for full in history.full_steps]
        assert all(later > earlier for later, earlier in pairwise(numbers)) and len(numbers) <= 3
        for full in history.full_steps:
            self.features.append(full.r_out)
            assert self.owners.setdefault(full.r_out.data_ptr(), image) == image
        return latents


ORDERS = ["010101010101", "001100110011", "0111111", "0011111100", "00000111111", "000001111110", "01210210"]


@torch.no_grad()
@pytest.mark.parametrize("order", ORDERS)
def test_no_image_reads_full_steps_of_another(order: str) -> None:
    """Images with one prompt in turn, or aborted, on one timesteps tensor; then one as on a new pipeline."""
    pipe, _ = forecasting()
    pipe.scheduler.set_timesteps(STEPS)
    (text,) = texts(1)
    last = list(loop(pipe, 9, pipe.scheduler.timesteps, text))[-1]
    images = Images(pipe, [text] * 3)
    for image in order:
        images.step(int(image))
    list(loop(pipe, 8, pipe.scheduler.timesteps, text))  # with a full step where another image may go on
    assert torch.equal(list(loop(pipe, 9, pipe.scheduler.timesteps, text))[-1], last)
    assert steps(pipe) == "FaFaFa" and not reasons(pipe)


def test_threads_in_turn() -> None:
    """Two threads, a step each in turn, on the same timesteps and with the same prompt."""
    pipe, _ = forecasting()
    pipe.scheduler.set_timesteps(STEPS)
    timesteps, (text,) = pipe.scheduler.timesteps, texts(1)
    with torch.no_grad():
        alone = [list(loop(pipe, seed, timesteps, text))[-1] for seed in range(2)]
    turn = [threading.Semaphore(1), threading.Semaphore(0)]

    def work(image: int) -> Tensor:
        with torch.no_grad():
            steps_of_image = loop(pipe, image, timesteps, text)
            for _ in range(STEPS):
                turn[image].acquire()
                latents: Tensor = next(steps_of_image)
                turn[1 - image].release()
        return latents

    with ThreadPoolExecutor(2) as threads:
        assert all(map(torch.equal, threads.map(work, range(2)), alone))


def test_half_precision_and_other_sizes() -> None:
    """Without weights a forecaster fits features of any precision and dimensions, as it is passed."""
    pipe, _ = make()
    pipe.to(torch.bfloat16)
    for cut in ("layer1", "stage1", "stage2"):
        clockwork.enable(pipe, adaptor=Taylor(order=2), cut=cut)
        latents = generate(pipe, steps=STEPS, height=48, width=40)
        assert latents.dtype == torch.bfloat16 and latents.isfinite().all() and steps(pipe) == "FaFaFa"
    with pytest.raises(clockwork.UserError, match="schedule always has no full step"):
        clockwork.enable(pipe, "always", Taylor())
