"""FLOPs in the three conventions that papers mix, counted on the `meta` device (docs/flops.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

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


def _each(count: int) -> Callable[..., int]:
    def flops(*_: Any, out_shape: Any, **__: Any) -> int:
        first = out_shape[0] if isinstance(out_shape[0], (tuple, list, torch.Size)) else out_shape
        return count * prod(first)

    return flops


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


def count_by_module(call: Callable[[], Any]) -> dict[str, Flops]:
    """What one call costs in each module that it runs, by its name ("UNet2DConditionModel.mid_block"), and in all
    ("Global")."""
    plain, like_paper = FlopCounterMode(display=False), FlopCounterMode(display=False, custom_mapping=_PAPER)
    with torch.no_grad(), plain, like_paper:
        call()
    paper = like_paper.get_flop_counts()
    return {name: _flops(counts, paper[name]) for name, counts in plain.get_flop_counts().items()}


def _flops(counts: Mapping[Any, int], paper: Mapping[Any, int]) -> Flops:
    dense = sum(n for op, n in counts.items() if op in _DENSE)
    seen = _DENSE | set(_PAPER)
    return Flops(dense // 2, sum(n for op, n in paper.items() if op in seen), sum(counts.values()))
