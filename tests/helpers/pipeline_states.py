"""What may have happened on a pipeline before an image is generated."""

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from helpers.pipelines import StoppedError, generate, make, solver

from clockwork.pipeline.enable import enabled_hook


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
