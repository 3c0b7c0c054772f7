"""Full steps and adaptor steps as two graphs, compiled by `torch.compile`.

What decides between them stays outside, so there are two graphs without breaks, whatever the schedule, the prompts, the
number of steps and the guidance scale are. Numbers that change from step to step enter as tensors.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from clockwork.adaptors import Adaptor, FullStep, History
from clockwork.errors import UserError
from clockwork.sampling.steps import (
    EAGER,
    AdaptorInputs,
    Features,
    StepFunctions,
    UNetArguments,
    adaptor_step,
    full_step,
)
from clockwork.unet.split import SplitUNet

Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]


class CompiledSteps:
    """Compiles the two functions when they first run, for one UNet.

    Args:
        options: Arguments of `torch.compile`, such as `mode="max-autotune"`; or a function that compiles one. Without
            `fullgraph=False`, what cannot be one graph is an error.
    """

    def __init__(self, options: Mapping[str, Any] | Compiler | None = None) -> None:
        self.options = options if callable(options) else dict(options or {})
        self._full, self._adaptor = (_compiled(function, self.options) for function in (full_step, adaptor_step))

    @property
    def functions(self) -> StepFunctions:
        """The functions for denoisers."""
        return StepFunctions(self.full, self.adaptor)

    def __deepcopy__(self, _: dict[int, Any]) -> "CompiledSteps":
        """Returns one of the same options, which compiles again: graphs belong to a UNet."""
        return CompiledSteps(self.options)

    def full(self, split: SplitUNet, call: UNetArguments) -> Features:
        """Runs a full step; arguments and result are those of `full_step`."""
        with _graph_call(split, call) as call:
            return self._run(self._full, split, call)

    def adaptor(self, split: SplitUNet, adaptor: Adaptor, call: UNetArguments, inputs: AdaptorInputs) -> Features:
        """Runs an adaptor step; arguments and result are those of `adaptor_step`."""
        device = call["sample"].device
        history = replace(inputs.history, full_steps=adaptor.padded(inputs.history.full_steps))
        inputs = inputs._replace(step=_number(inputs.step, device), history=_with_tensors(history, device))
        with _graph_call(split, call) as call:
            return self._run(self._adaptor, split, adaptor, call, inputs)

    def _run(self, function: Callable[..., Features], *arguments: Any) -> Features:
        """Runs a compiled function; its results stay valid when it runs again."""
        # With CUDA graphs, results are in memory that the next run of either graph overwrites, and features are needed
        # for several steps. Elsewhere the copies cost nothing that could be measured beside a UNet call.
        torch.compiler.cudagraph_mark_step_begin()
        try:
            return Features(*(result.clone() for result in function(*arguments)))
        except Exception as error:
            if reason := _missing_compiler(error):
                raise UserError(
                    f"the UNet cannot be compiled, because this machine lacks a compiler: {reason}; install one, or "
                    "leave out compile"
                ) from error
            raise


def step_functions(options: bool | Mapping[str, Any] | Compiler) -> StepFunctions:
    """Returns the functions that run a UNet's steps.

    Args:
        options: Whether they are compiled, arguments of `torch.compile`, or a function that compiles one.
    """
    if options is False:
        return EAGER
    return CompiledSteps(None if options is True else options).functions


def _compiled(function: Any, options: Mapping[str, Any] | Compiler) -> Callable[..., Any]:
    """Compiles a copy of a function: graphs are stored by code object, so that two UNets would share one's limit."""
    duplicate = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    if callable(options):
        return options(duplicate)
    return torch.compile(duplicate, **{"fullgraph": True, **options})


@contextmanager
def _graph_call(split: SplitUNet, call: UNetArguments) -> Iterator[UNetArguments]:
    """Yields a graph's arguments: the timestep is a tensor, and LoRA's scale, which changes modules, is applied."""
    extra = call["cross_attention_kwargs"] or {}
    rest = {name: value for name, value in extra.items() if name != "scale"}
    timestep = torch.as_tensor(call["timestep"], device=call["sample"].device)
    with split.scaled_lora(extra.get("scale", 1.0)):
        yield {
            **call,
            "timestep": timestep,
            "cross_attention_kwargs": rest if extra else call["cross_attention_kwargs"],
        }


def _with_tensors(history: History, device: torch.device) -> History:
    """Returns a history with tensors for the numbers of its steps."""
    full_steps = tuple(FullStep(_number(full.step, device), full.r_in, full.r_out) for full in history.full_steps)
    return replace(history, full_steps=full_steps)


def _number(value: int | Tensor, device: torch.device) -> Tensor:
    """Returns a number as a tensor of its own: a graph whose inputs were the same tensor would not serve others."""
    return torch.as_tensor(value, device=device).clone()


def _missing_compiler(error: BaseException | None) -> str | None:
    """Finds a compiler that is missing among the causes of an error."""
    while error is not None:
        if type(error).__name__ in ("InvalidCxxCompiler", "TritonMissing"):
            return str(error).splitlines()[0]
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
    return None
