"""FLOPs of one step, counted on `meta` copies: no weights, no memory, no time on the real device."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from clockwork.adaptors import Adaptor
from clockwork.metrics.flops import Flops, count_flops
from clockwork.split import SplitUNet

Module = TypeVar("Module", bound=nn.Module)


def on_meta(module: Module) -> Module:
    """A copy that has shapes only. LoRA, image prompts and whatever else was put into it count; hooks do not."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        memo |= {id(p): nn.Parameter(_shape(p), requires_grad=False) for p in part.parameters(recurse=False)}
        memo |= {id(b): _shape(b) for b in part.buffers(recurse=False)}
        memo |= {id(vars(part)[name]): None for name in ("_hf_hook", "_diffusers_hook") if name in vars(part)}
    twin = copy.deepcopy(module, memo)
    for part in twin.modules():
        vars(part).pop("forward", None)  # where hooks stand in
    return twin


def shapes(call: Any) -> Any:
    """The same arguments with `meta` tensors in place of real ones."""
    return tree_map_only(Tensor, _shape, call)


def step_flops(split: SplitUNet, adaptor: Adaptor | None, call: Mapping[str, Any]) -> tuple[Flops, Flops]:
    """Of one full and one adaptor step; `call` holds the arguments of `UNet2DConditionModel.forward`."""
    split, call = SplitUNet(on_meta(split.unet), split.cut), shapes(call)
    full = count_flops(lambda: split(**call))
    if adaptor is None:
        return full, Flops()
    stand_in = on_meta(adaptor)
    e = split.embed(**call)
    high = split.high_in(e)
    r_out, batch = split.low(high, e), len(e.sample)
    pooled = torch.empty(batch, adaptor.widths.text_emb, device="meta", dtype=e.sample.dtype)

    def adaptor_step() -> None:
        e = split.embed(**call)
        high = split.high_in(e)
        text = pooled if "text_emb" in stand_in.inputs else None
        split.high_out(stand_in(high.r_in, r_out, e.t_emb.expand(batch, -1), text), high, e)

    return full, count_flops(adaptor_step)


def _shape(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")
