"""FLOPs of a pass, of a step and of an image, counted on `meta`: no weights, no memory, no time on the real device."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from clockwork.adaptors import Adaptor
from clockwork.flops.counter import Flops, count_flops, counted
from clockwork.sampling.sampler import Sampler, meta_call
from clockwork.schedule import Schedule
from clockwork.unet.split import SplitUNet

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class PartFlops:
    """FLOPs of a UNet's two parts at a cut, each counted once, and the features between them.

    Attributes:
        high_res: The kept layers and the embeddings: what an adaptor step runs of the UNet.
        low_res: The low-res path, which an adaptor replaces.
        r_in: Features that leave the kept down layers, on `meta`, `batch × channels × height × width`.
        r_out: Features that enter the kept up layers, on `meta`, of that shape at their own resolution.
        t_emb: The time embedding, on `meta`, `batch × width`.
    """

    high_res: Flops
    low_res: Flops
    r_in: Tensor = field(repr=False)
    r_out: Tensor = field(repr=False)
    t_emb: Tensor = field(repr=False)

    @property
    def full_pass(self) -> Flops:
        """FLOPs of one pass of the whole UNet."""
        return self.high_res + self.low_res

    def adaptor_pass(self, adaptor: Adaptor) -> Flops:
        """Counts one pass with an adaptor, on `meta` too, in place of the low-res path."""
        text_emb, width = None, adaptor.dims.text_emb
        if width:
            text_emb = torch.empty(len(self.r_in), width, device="meta", dtype=self.r_in.dtype)
        return self.high_res + count_flops(lambda: adaptor(self.r_in, self.r_out, self.t_emb, text_emb))


def part_flops(split: SplitUNet, call: Mapping[str, Any]) -> PartFlops:
    """Counts the FLOPs of both parts of a UNet.

    Args:
        split: The UNet, on `meta`.
        call: Arguments of `UNet2DConditionModel.forward`, on `meta`.

    Returns:
        The counts, and the features at the cut.
    """
    embedded, embedding = counted(lambda: split.embed(**call))
    high, down = counted(lambda: split.high_in(embedded))
    r_out, low_res = counted(lambda: split.low(high, embedded))
    up = count_flops(lambda: split.high_out(r_out, high, embedded))
    t_emb = embedded.t_emb.expand(len(high.r_in), -1)
    return PartFlops(embedding + down + up, low_res, high.r_in, r_out, t_emb)


def rollout_flops(full: Flops, adaptor: Flops, schedule: Schedule, calls: int, guided: bool) -> Flops:
    """Of one image: the full steps that really run, and the adaptor steps, twice each with guidance."""
    whole = schedule.full_steps(calls)
    return (full * whole + adaptor * (calls - whole)) * (2 if guided else 1)


def full_and_adaptor_flops(split: SplitUNet, adaptor: Adaptor | None, call: Mapping[str, Any]) -> tuple[Flops, Flops]:
    """Of one full and one adaptor pass of a live UNet with these arguments."""
    parts = part_flops(SplitUNet(on_meta(split.unet), split.cut), shapes(call))
    return parts.full_pass, Flops() if adaptor is None else parts.adaptor_pass(on_meta(adaptor))


def step_flops(sampler: Sampler) -> tuple[Flops, Flops]:
    """Of one full and one adaptor step at batch 1, without guidance's second pass."""
    tokens = sampler.teacher.pipe.tokenizer.model_max_length
    return full_and_adaptor_flops(
        sampler.split, sampler.adaptor, meta_call(sampler.split.unet, sampler.teacher.latent_shape, tokens)
    )


def image_flops(sampler: Sampler) -> Flops:
    """Of one image at a sampler's operating point."""
    return rollout_flops(
        *step_flops(sampler),
        sampler.schedule,
        sampler.num_unet_calls,
        sampler.teacher.unet_calls_per_step(sampler.guidance) == 2,
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
