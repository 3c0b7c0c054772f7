"""The part of a ControlNet whose residuals are read on adaptor steps."""

import copy
from typing import Any, TypeVar

from diffusers import ControlNetModel
from torch import Tensor, nn

from clockwork.errors import UserError
from clockwork.unet.modifications import refuse_hooks, refuse_modified_block, refuse_own_forward

Module = TypeVar("Module", bound=nn.Module)


class _NotRun(nn.Module):
    """Stands for the layers of a ControlNet after the kept ones.

    Args:
        num_layers: How many.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.num_layers = num_layers

    def forward(self, hidden_states: Tensor, temb: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return hidden_states, (hidden_states,) * self.num_layers


class _NotRead(nn.Module):
    """Stands for the convolution that makes a residual: a zero per example."""

    def forward(self, sample: Tensor) -> Tensor:
        return sample.new_zeros((len(sample), *(1 for _ in sample.shape[1:])))


def kept_part(net: ControlNetModel, num_residuals: int) -> ControlNetModel:
    """Returns a ControlNet that computes its first residuals alone, by diffusers' own `forward`.

    Args:
        net: The ControlNet, which is not changed.
        num_residuals: How many of its residuals for skip connections are kept, from 1. The first is that of `conv_in`.

    Returns:
        A ControlNet of the same modules. Its other residuals are zeros, `batch × 1 × 1 × 1`.
    """
    part, num_all = _with_own_modules(net), len(net.controlnet_down_blocks)
    blocks, left = [], num_residuals - 1
    for block in net.down_blocks:
        num_layers = len(block.resnets) + len(block.downsamplers or ())
        if left > 0:
            blocks.append(block if num_layers <= left else _first_resnets(block, left))
        left -= num_layers
    part.down_blocks = nn.ModuleList([*blocks, _NotRun(num_all - num_residuals)])
    part.mid_block = None
    kept = net.controlnet_down_blocks[:num_residuals]
    part.controlnet_down_blocks = nn.ModuleList([*kept, *(_NotRead() for _ in range(num_all - num_residuals))])
    part.controlnet_mid_block = _NotRead()
    return part


def has_kept_part(net: Any, num_residuals: int) -> bool:
    """Whether `kept_part` computes what a ControlNet itself does: not if code was added to it that would not run.

    Args:
        net: Any module.
        num_residuals: The number of all residuals for skip connections that the UNet reads.
    """
    if type(net) is not ControlNetModel or len(net.controlnet_down_blocks) != num_residuals:
        return False
    if net._compiled_call_impl is not None:
        return False
    try:
        refuse_own_forward(net)
        refuse_hooks(net)
        for block in net.down_blocks:
            refuse_modified_block(block)
    except UserError:
        return False
    return True


def _first_resnets(block: Module, number: int) -> Module:
    """Returns a down block of the first resnets of another, and of the attentions that follow them."""
    part = _with_own_modules(block)
    for name in ("resnets", "attentions"):
        if hasattr(block, name):
            setattr(part, name, getattr(block, name)[:number])
    setattr(part, "downsamplers", None)  # noqa: B010  # for a type checker, modules have no attribute that is None
    return part


def _with_own_modules(module: Module) -> Module:
    """Copies a module, but not those inside it."""
    part = copy.copy(module)
    part._modules = dict(module._modules)
    return part
