"""Counter of FLOPs in three conventions, which publications mix (docs/flops.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any, TypeVar

import torch
from torch._ops import OpOverloadPacket
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

T = TypeVar("T")

aten = torch.ops.aten
_DENSE = {aten.mm, aten.addmm, aten.convolution}


def _conv_with_bias(
    x: Any,
    w: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *_: Any,
    out_shape: Any,
    **__: Any,
) -> int:
    """Counts a convolution, with one operation per output for its bias."""
    return conv_flop_count(x, w, out_shape, transposed) + (prod(out_shape) if bias is not None else 0)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Counts both matrix products of scaled dot-product attention."""
    return sdpa_flop_count(query, key, value)


def _each(count: int) -> Callable[..., int]:
    """Creates a formula with a number of operations per element of the output."""

    def flops(*_: Any, out_shape: Any, **__: Any) -> int:
        first = out_shape[0] if isinstance(out_shape[0], (tuple, list, torch.Size)) else out_shape
        return count * prod(first)

    return flops


# torch has no formula for the CPU's attention, which is one op there and two matrix products on `meta`.
_FULL = {aten._scaled_dot_product_flash_attention_for_cpu: _attention}

# The formulas of DeepSpeed's profiler of 2023, with which the paper's own models were counted (docs/flops.md).
_PAPER = {
    aten.convolution: _conv_with_bias,
    aten.native_group_norm: _each(5),
    aten.native_layer_norm: _each(5),
    aten.silu: _each(1),
    aten.gelu: _each(1),
    aten.upsample_nearest2d: _each(1),
}


@dataclass(frozen=True)
class Flops:
    """Numbers of operations in three conventions (docs/flops.md).

    Attributes:
        macs: Multiply-adds of convolutions and linear layers, counted once.
        paper: Two per multiply-add, with biases of convolutions, norms and activations, without the two matrix products
            of attention: the paper's own models.
        full: Two per multiply-add, including the matrix products of attention.
    """

    macs: int = 0
    paper: int = 0
    full: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: int) -> "Flops":
        return Flops(*(getattr(self, f.name) * times for f in fields(self)))


def count_flops(call: Callable[[], Any]) -> Flops:
    """Counts the FLOPs of a call, which is run without gradients.

    Args:
        call: Function without arguments. On `meta` modules and tensors it needs no weights, memory or time.

    Returns:
        The FLOPs.
    """
    return count_by_module(call)["Global"]


def counted(call: Callable[[], T]) -> tuple[T, Flops]:
    """Counts the FLOPs of a call and keeps its result.

    Args:
        call: Function without arguments, as in `count_flops`.

    Returns:
        The result of the call, and its FLOPs.
    """
    results: list[T] = []
    flops = count_flops(lambda: results.append(call()))
    return results[0], flops


def count_by_module(call: Callable[[], Any]) -> dict[str, Flops]:
    """Counts the FLOPs of a call per module.

    Args:
        call: Function without arguments, as in `count_flops`.

    Returns:
        The FLOPs of each module that runs, by its class and path ("UNet2DConditionModel.mid_block"), and of the whole
        call ("Global").
    """
    full_counter, paper_counter = _counter(_FULL), _counter(_PAPER)
    with torch.no_grad(), full_counter, paper_counter:
        call()
    full, paper = full_counter.get_flop_counts(), paper_counter.get_flop_counts()
    return {name: _flops(full.get(name, {}), paper.get(name, {})) for name in {"Global": 0, **full, **paper}}


def _counter(formulas: Mapping[OpOverloadPacket, Callable[..., int]]) -> FlopCounterMode:
    """Creates a counter that counts every op for which it has a formula, instead of the ops that it is made of.

    `FlopCounterMode` finds formulas by packet (`aten.upsample_nearest2d`), but decomposes an op unless its overload
    (`….default`) has a formula. Which ops can be decomposed differs between releases of torch.
    """
    counter = FlopCounterMode(display=False, custom_mapping=dict(formulas))
    packets = [op for op in counter.flop_registry if isinstance(op, OpOverloadPacket)]
    counter.flop_registry |= {getattr(op, name): counter.flop_registry[op] for op in packets for name in op.overloads()}
    return counter


def _flops(full: Mapping[Any, int], paper: Mapping[Any, int]) -> Flops:
    """Adds up counts by op, those with the formulas of `full` and those with the formulas of `paper`."""
    dense = sum(n for op, n in full.items() if op in _DENSE)
    paper_ops = _DENSE | set(_PAPER)
    return Flops(dense // 2, sum(n for op, n in paper.items() if op in paper_ops), sum(full.values()))
