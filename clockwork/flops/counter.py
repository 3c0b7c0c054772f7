"""FLOPs in the three conventions that papers mix, counted on the `meta` device (docs/flops.md)."""

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
    return conv_flop_count(x, w, out_shape, transposed) + (prod(out_shape) if bias is not None else 0)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _each(count: int) -> Callable[..., int]:
    def flops(*_: Any, out_shape: Any, **__: Any) -> int:
        first = out_shape[0] if isinstance(out_shape[0], (tuple, list, torch.Size)) else out_shape
        return count * prod(first)

    return flops


# What torch has no formula for: on the CPU attention is one op, on `meta` two matrix products.
_FULL = {aten._scaled_dot_product_flash_attention_for_cpu: _attention}

# DeepSpeed's profiler of 2023, which the paper's own models were counted with: see docs/flops.md.
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
    """`macs`: multiply-adds of convolutions and linear layers. `paper`: two a multiply-add, with biases, norms and
    activations, without attention's two products. `full`: two a multiply-add, attention's products included."""

    macs: int = 0
    paper: int = 0
    full: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: int) -> "Flops":
        return Flops(*(getattr(self, f.name) * times for f in fields(self)))


def count_flops(call: Callable[[], Any]) -> Flops:
    """What one call costs; run it on `meta` tensors and modules to need no memory and no weights."""
    return count_by_module(call)["Global"]


def counted(call: Callable[[], T]) -> tuple[T, Flops]:
    """Counts a call's FLOPs.

    Args:
        call: What to run, on `meta`.

    Returns:
        The call's result, and its FLOPs.
    """
    results: list[T] = []
    flops = count_flops(lambda: results.append(call()))
    return results[0], flops


def count_by_module(call: Callable[[], Any]) -> dict[str, Flops]:
    """What one call costs in each module that it runs, by its name ("UNet2DConditionModel.mid_block"), and in all
    ("Global")."""
    like_full, like_paper = _counter(_FULL), _counter(_PAPER)
    with torch.no_grad(), like_full, like_paper:
        call()
    full, paper = like_full.get_flop_counts(), like_paper.get_flop_counts()
    return {name: _flops(full.get(name, {}), paper.get(name, {})) for name in {"Global": 0, **full, **paper}}


def _counter(formulas: Mapping[OpOverloadPacket, Callable[..., int]]) -> FlopCounterMode:
    """A counter that sees every op it has a formula for.

    Which ops can be decomposed differs between releases of torch. `FlopCounterMode` finds formulas by packet
    (`aten.upsample_nearest2d`), but leaves an op whole only if its overload (`….default`) has one.
    """
    counter = FlopCounterMode(display=False, custom_mapping=dict(formulas))
    packets = [op for op in counter.flop_registry if isinstance(op, OpOverloadPacket)]
    counter.flop_registry |= {getattr(op, name): counter.flop_registry[op] for op in packets for name in op.overloads()}
    return counter


def _flops(full: Mapping[Any, int], paper: Mapping[Any, int]) -> Flops:
    dense = sum(n for op, n in full.items() if op in _DENSE)
    seen = _DENSE | set(_PAPER)
    return Flops(dense // 2, sum(n for op, n in paper.items() if op in seen), sum(full.values()))
