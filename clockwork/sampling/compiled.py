"""Full steps and adaptor steps as two graphs, compiled by `torch.compile`.

What decides between them stays outside, so there are two graphs without breaks, whatever the schedule, the prompts, the
number of steps and the guidance scale are. Numbers that change from step to step enter as tensors. What a graph reads
and returns are copies: with CUDA graphs, results are in memory that the next run of any graph overwrites; and a graph
that was traced with one tensor in two places would not serve others.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from clockwork.adaptors import Adaptor, FullStep
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
# On a CPU, normalisations and convolutions take longer in the memory format that inductor chooses (docs/speed.md).
CPU_OPTIONS = {"options": {"layout_optimization": False}}


class CompiledSteps:
    """Compiles the two functions when they first run, for one UNet.

    Args:
        options: Arguments of `torch.compile`, such as `mode="max-autotune"`; or a function that compiles one. Without
            `fullgraph=False`, what cannot be one graph is an error. With `options={"freezing": True}` weights are
            constants of the graphs, apart from those of an adaptor in training.

    Raises:
        UserError: If `torch.compile` does not have such an argument or value.
    """

    def __init__(self, options: Mapping[str, Any] | Compiler | None = None) -> None:
        self.options = options if callable(options) else dict(options or {})
        self._full, self._adaptor = (_compiled(function, self.options) for function in (full_step, adaptor_step))
        of_inductor = None if callable(self.options) else self.options.get("options")
        self._freezing = bool((of_inductor or {}).get("freezing"))
        self._adaptor_in_training = _compiled(adaptor_step, self.options) if self._freezing else self._adaptor

    @property
    def functions(self) -> StepFunctions:
        """The functions for denoisers."""
        return StepFunctions(self.full, self.adaptor)

    def __deepcopy__(self, _: dict[int, Any]) -> "CompiledSteps":
        """Returns one of the same options, which compiles again: graphs belong to a UNet."""
        return CompiledSteps(self.options)

    def full(self, split: SplitUNet, call: UNetArguments) -> Features:
        """Runs a full step; arguments and result are those of `full_step`."""
        with _graph_call(split, call) as call, _constant_weights(self._freezing):
            return self._run(self._full, split, call)

    def adaptor(self, split: SplitUNet, adaptor: Adaptor, call: UNetArguments, inputs: AdaptorInputs) -> Features:
        """Runs an adaptor step; arguments and result are those of `adaptor_step`."""
        inputs = _graph_inputs(adaptor, inputs, call["sample"].device)
        in_training = self._freezing and any(weight.requires_grad for weight in adaptor.parameters())
        function = self._adaptor_in_training if in_training else self._adaptor
        with _graph_call(split, call) as call, _constant_weights(self._freezing and not in_training):
            return self._run(function, split, adaptor, call, inputs)

    def _run(self, function: Callable[..., Features], *arguments: Any) -> Features:
        """Runs a compiled function and copies its results."""
        torch.compiler.cudagraph_mark_step_begin()
        try:
            # Else forward hooks that are added to a layer later would not run, and nothing would say so.
            with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
                return _copies(function(*arguments))
        except Exception as error:
            if message := _user_message(error):
                raise UserError(message) from error
            raise


def step_functions(options: bool | Mapping[str, Any] | Compiler, device: torch.device) -> StepFunctions:
    """Returns the functions that run a UNet's steps.

    Args:
        options: Whether they are compiled, arguments of `torch.compile`, or a function that compiles one.
        device: Device of the UNet. On a CPU `CPU_OPTIONS` are added, unless a backend, a mode or options are given.

    Raises:
        UserError: If `torch.compile` does not have such an argument or value, or lacks a compiler.
    """
    if options is False:
        return EAGER
    if device.type == "cpu" and not callable(options):
        options = {} if options is True else options
        _require_compiler(options.get("backend", "inductor"))
        if not {"backend", "mode", "options"} & options.keys():
            options = {**options, **CPU_OPTIONS}
    return CompiledSteps(None if options is True else options).functions


def _compiled(function: Any, options: Mapping[str, Any] | Compiler) -> Callable[..., Any]:
    """Compiles a copy of a function: graphs are stored by code object, so that two UNets would share one's limit."""
    duplicate = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    if callable(options):
        return options(duplicate)
    try:
        return torch.compile(duplicate, **{"fullgraph": True, **options})
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(
            f"compile={options!r} is not possible: {_first_clause(error)}; pass True, or arguments of torch.compile as "
            'a dict, such as {"mode": "max-autotune"}'
        ) from error


@contextmanager
def _graph_call(split: SplitUNet, call: UNetArguments) -> Iterator[UNetArguments]:
    """Yields copies of a UNet call's arguments for a graph, with LoRA's scale, which changes modules, applied.

    Solvers' timesteps have several types; the UNet casts all of them to float32 as the first thing, unless it has a
    vector per timestep.
    """
    extra = call.get("cross_attention_kwargs") or {}
    rest = {name: value for name, value in extra.items() if name != "scale"}
    timestep = _number(call["timestep"], call["sample"].device)
    if split.unet.config.get("time_embedding_type") != "learned":
        timestep = timestep.float()
    with split.scaled_lora(extra.get("scale", 1.0)):
        attention = {"cross_attention_kwargs": rest or None} if "cross_attention_kwargs" in call else {}
        yield _copies({**call, "timestep": timestep, **attention})


def _graph_inputs(adaptor: Adaptor, inputs: AdaptorInputs, device: torch.device) -> AdaptorInputs:
    """Returns copies of an adaptor's inputs for a graph, with tensors for the numbers of steps."""
    history = replace(inputs.history, full_steps=adaptor.padded(inputs.history.full_steps)).map(Tensor.clone)
    full_steps = tuple(FullStep(_number(full.step, device), full.r_in, full.r_out) for full in history.full_steps)
    embedding, branch = _copies((inputs.text_emb, inputs.branch))
    return AdaptorInputs(embedding, branch, _number(inputs.step, device), replace(history, full_steps=full_steps))


def _constant_weights(freezing: bool) -> AbstractContextManager[Any]:
    """Returns a context in which `torch.compile` obeys its option `freezing`.

    What traces a function reads the global setting; the option alone reaches only what compiles the graph.
    """
    if not freezing:
        return nullcontext()
    from torch._inductor import config

    context: AbstractContextManager[Any] = config.patch(freezing=True)
    return context


def _copies(values: Any) -> Any:
    """Copies the tensors in nested containers."""
    return tree_map_only(Tensor, Tensor.clone, values)


def _number(value: float | Tensor, device: torch.device) -> Tensor:
    """Returns a number as a tensor. It is filled in, because a copy from the CPU would wait for the GPU."""
    return value.to(device, copy=True) if isinstance(value, Tensor) else torch.full((), value, device=device)


def _require_compiler(backend: Any) -> None:
    """Refuses inductor on a machine without the C++ compiler that it needs on the CPU."""
    if backend != "inductor":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        if message := _user_message(error):
            raise UserError(message) from error
        raise


def _user_message(error: BaseException | None) -> str | None:
    """Returns what a user can do about an error of the compiler, or one of its causes; None for other errors."""
    while error is not None:
        kind = type(error).__name__
        if kind in ("InvalidCxxCompiler", "TritonMissing"):
            return (
                f"the UNet cannot be compiled, because this machine lacks a compiler ({_first_clause(error)}): install "
                'g++ or clang, on a GPU Triton, too, or pass compile={"backend": …} with one of '
                "torch.compiler.list_backends(), or leave out compile"
            )
        if kind == "FailOnRecompileLimitHit":
            return (
                "the UNet was compiled too often, because something about it, such as its hooks, changes every time: "
                "call clockwork.enable again, raise torch._dynamo.config.recompile_limit, or leave out compile"
            )
        if kind == "Unsupported":
            return (
                f"the UNet cannot be compiled to one graph ({_first_clause(error)}): remove the hook or layer that the "
                'traceback names, pass compile={"fullgraph": False}, or leave out compile'
            )
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
    return None


def _first_clause(error: BaseException) -> str:
    """Returns the beginning of an error's message, without lists and hints."""
    return re.split(r"[.]\s|\n|, known|\.$", str(error))[0]
