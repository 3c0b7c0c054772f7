"""Putting a hook on a module and taking it off: diffusers' own way of standing in for a `forward`."""

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers import UNet2DConditionModel
from diffusers.hooks import HookRegistry, ModelHook
from torch import nn

from clockwork.errors import UserError

NAME = "clockwork"


def attach(module: nn.Module, hook: ModelHook, name: str = NAME) -> None:
    """Next to the module's own forward, in place of the hook of this name that may be there."""
    detach(module, name)
    with _beneath_offloading(module):
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, name)


def detach(module: nn.Module, name: str = NAME) -> None:
    """Takes the hook of this name off, if there is one."""
    registry = getattr(module, "_diffusers_hook", None)
    if registry is not None and registry.get_hook(name) is not None:
        with _beneath_offloading(module):
            registry.remove_hook(name, recurse=False)


def refuse_hooks_on_blocks(unet: UNet2DConditionModel) -> None:
    """A chain calls what blocks are made of, not the blocks: a hook on one would be passed by."""
    for block in (*unet.down_blocks, *unet.up_blocks):
        if names := other_hooks(block):
            raise UserError(
                f"a {type(block).__name__} has diffusers' hook {', '.join(names)}, which Clockwork would pass by: take "
                'it off (group offloading works with offload_type="leaf_level")'
            )


def other_hooks(module: nn.Module) -> list[str]:
    registry = getattr(module, "_diffusers_hook", None)
    return [] if registry is None else sorted(set(registry.hooks) - {NAME})


@contextmanager
def _beneath_offloading(module: nn.Module) -> Iterator[None]:
    """accelerate's offloading brings the weights where the inputs are: its hook stays the outermost."""
    offloading = getattr(module, "_hf_hook", None)
    if offloading is None:
        yield
        return
    from accelerate.hooks import add_hook_to_module, remove_hook_from_module

    remove_hook_from_module(module)
    try:
        yield
    finally:
        add_hook_to_module(module, offloading)
