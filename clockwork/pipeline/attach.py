"""Attaching diffusers `ModelHook`s to modules, and removing them.

A hook of diffusers can replace a module's `forward` without a change to the module's class.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from diffusers.hooks import HookRegistry, ModelHook
from torch import nn

from clockwork.errors import UserError

HOOK_NAME = "clockwork"


class ForwardHook(ModelHook):
    """A hook whose `new_forward` replaces a module's `forward`, and receives the module as its second argument."""

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuses to be pickled, with the module: functions and threads' states cannot be."""
        raise UserError(
            "a UNet or ControlNet with Clockwork cannot be pickled: call clockwork.disable(pipe) first and enable it "
            "again afterwards, or save its state_dict"
        )

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Adds the module that is called to the arguments of `new_forward`."""
        # The forward that diffusers sets on a module survives a deep copy, but still refers to the original module and
        # its hook. Therefore the called module is passed on, and its own hook is looked up.
        return (module, *args), kwargs


def attach(module: nn.Module, hook: ModelHook, name: str = HOOK_NAME) -> None:
    """Attaches a hook to a module; a hook that is already attached under this name is replaced.

    Args:
        module: The module.
        hook: The hook.
        name: Name of the hook among the module's hooks.
    """
    detach(module, name)
    with _inside_offloading(module):
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, name)


def detach(module: nn.Module, name: str = HOOK_NAME) -> None:
    """Removes the hook of this name from a module, if there is one.

    Args:
        module: The module.
        name: Name of the hook among the module's hooks.
    """
    registry = getattr(module, "_diffusers_hook", None)
    if registry is not None and registry.get_hook(name) is not None:
        with _inside_offloading(module):
            registry.remove_hook(name, recurse=False)


def other_hooks(module: nn.Module) -> list[str]:
    """Lists the diffusers hooks on a module, without Clockwork's.

    Args:
        module: The module.

    Returns:
        The hooks' names, sorted.
    """
    registry = getattr(module, "_diffusers_hook", None)
    return [] if registry is None else sorted(set(registry.hooks) - {HOOK_NAME})


@contextmanager
def _inside_offloading(module: nn.Module) -> Iterator[None]:
    """Removes accelerate's offloading hook for the duration of the context, so that it is again the outermost after.

    The offloading hook moves the weights to the inputs' device, which must happen before any other hook runs.
    """
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
