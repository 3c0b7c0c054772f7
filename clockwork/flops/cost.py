"""FLOPs of a pass, of a step and of an image, counted on `meta`: no weights, no memory, no time on the real device."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from clockwork.adaptors import Adaptor
from clockwork.flops.counter import Flops, count_flops
from clockwork.sampling.sampler import Sampler, meta_call
from clockwork.schedule import Schedule
from clockwork.unet.split import SplitUNet

Module = TypeVar("Module", bound=nn.Module)


def full_pass(split: SplitUNet, call: Mapping[str, Any]) -> Flops:
    """Of one full pass; `call` holds the arguments of `UNet2DConditionModel.forward`, on `meta` as the UNet is."""
    return count_flops(lambda: split(**call))


def adaptor_pass(split: SplitUNet, adaptor: Adaptor, call: Mapping[str, Any]) -> Flops:
    """The same with the adaptor, on `meta` too, in the low-res path's place."""
    e = split.embed(**call)
    r_out, batch = split.low(split.high_in(e), e), len(e.sample)
    pooled = None
    if adaptor.dims.text_emb:
        pooled = torch.empty(batch, adaptor.dims.text_emb, device="meta", dtype=e.sample.dtype)

    def run() -> None:
        e = split.embed(**call)
        high = split.high_in(e)
        split.high_out(adaptor(high.r_in, r_out, e.t_emb.expand(batch, -1), pooled), high, e)

    return count_flops(run)


def rollout_flops(full: Flops, adaptor: Flops, schedule: Schedule, calls: int, guided: bool) -> Flops:
    """Of one image: the full steps that really run, and the adaptor steps, twice each with guidance."""
    whole = schedule.full_steps(calls)
    return (full * whole + adaptor * (calls - whole)) * (2 if guided else 1)


def pass_flops(split: SplitUNet, adaptor: Adaptor | None, call: Mapping[str, Any]) -> tuple[Flops, Flops]:
    """Of one full and one adaptor pass of a live UNet with these arguments."""
    split, call = SplitUNet(on_meta(split.unet), split.cut), shapes(call)
    return full_pass(split, call), Flops() if adaptor is None else adaptor_pass(split, on_meta(adaptor), call)


def step_flops(sampler: Sampler) -> tuple[Flops, Flops]:
    """Of one full and one adaptor step at batch 1, without guidance's second pass."""
    tokens = sampler.teacher.pipe.tokenizer.model_max_length
    return pass_flops(
        sampler.split, sampler.adaptor, meta_call(sampler.split.unet, sampler.teacher.latent_shape, tokens)
    )


def image_flops(sampler: Sampler) -> Flops:
    """Of one image at a sampler's operating point."""
    return rollout_flops(
        *step_flops(sampler), sampler.schedule, sampler.calls, sampler.teacher.passes(sampler.guidance) == 2
    )


def on_meta(module: Module) -> Module:
    """A copy that has shapes only, in single precision. LoRA, image prompts and whatever else was put into it are in
    it; hooks are not."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        memo |= {id(p): nn.Parameter(shapes(p), requires_grad=False) for p in part.parameters(recurse=False)}
        memo |= {id(b): shapes(b) for b in part.buffers(recurse=False)}
        memo |= {id(vars(part)[name]): None for name in ("_hf_hook", "_diffusers_hook") if name in vars(part)}
    twin = copy.deepcopy(module, memo)
    for part in twin.modules():
        vars(part).pop("forward", None)  # where hooks stand in
    return twin


def shapes(values: Any) -> Any:
    """The same with `meta` tensors in place of real ones; half precision as single, which costs the same FLOPs."""
    return tree_map_only(Tensor, _shape, values)


def _shape(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")
