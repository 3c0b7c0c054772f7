"""The check that a UNet's own code is diffusers', because Clockwork calls the layers inside its blocks directly.

Whatever was added to the UNet or to a block would not run: hooks, a `forward` of the instance, another class. What was
added to a layer (a resnet, an attention, a resampler), to the middle block or inside them runs as it is.
"""

from functools import cache, partial
from pathlib import Path
from typing import Any

import diffusers
from diffusers import ModelMixin
from torch import nn

from clockwork.errors import UserError
from clockwork.unet.blocks import DOWN_BLOCKS, MIDDLE_BLOCKS, UP_BLOCKS, BlockKind, block_kind
from clockwork.unet.models import UNETS


def refuse_modifications(unet: ModelMixin) -> None:
    """Checks that a UNet is of a known class, and that its down and up blocks have nothing that would not run.

    Args:
        unet: The UNet. Hooks and a `forward` of its own are not looked at.

    Raises:
        UserError: If the UNet or one of its blocks is of another class, or a block has a hook or its own `forward`.
    """
    _refuse_other_code(unet, tuple(kind.cls for kind in UNETS))
    for block in unet.down_blocks:
        refuse_modified_block(block)
    for block in unet.up_blocks:
        refuse_modified_block(block, UP_BLOCKS)
    if unet.mid_block is not None and not isinstance(unet.mid_block, tuple(MIDDLE_BLOCKS)):
        raise _unknown_class(unet.mid_block, tuple(MIDDLE_BLOCKS))


def refuse_uncalled(unet: ModelMixin) -> None:
    """Checks that a UNet whose parts are called instead of itself has nothing that would not run.

    Args:
        unet: The UNet, with Clockwork enabled or not.

    Raises:
        UserError: If it or one of its blocks is modified.
    """
    refuse_modifications(unet)
    refuse_own_forward(unet)
    refuse_hooks(unet)


def refuse_own_forward(module: nn.Module) -> None:
    """Checks that a module has no `forward` in its attributes that replaces that of its class.

    Args:
        module: The module. The `forward` that hooks of accelerate and diffusers set is allowed.

    Raises:
        UserError: If it has one.
    """
    forward = _without_wrappers(module)
    is_method = getattr(forward, "__func__", None) is type(module).forward
    if forward is not None and not (is_method and forward.__self__ is module):
        raise UserError(
            f"the forward of a {type(module).__name__} was replaced by other code, which would not run, because "
            "Clockwork calls the layers inside it directly: undo the change (DeepCache and FreeU's original code make "
            "such changes; pipe.enable_freeu works)"
        )


def refuse_hooks(module: nn.Module) -> None:
    """Checks that a module which is not called has no forward hooks of torch.

    Args:
        module: The module.

    Raises:
        UserError: If it has one.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        raise UserError(
            f"a {type(module).__name__} has a forward hook, which would not run, because Clockwork calls the layers "
            "inside it directly: remove the hook"
        )


def refuse_modified_block(block: nn.Module, kinds: tuple[BlockKind, ...] = DOWN_BLOCKS) -> None:
    """Checks that a block has nothing that would not run.

    Args:
        block: A down block, or one of the kinds `kinds`.
        kinds: The kinds of blocks that it may be.

    Raises:
        UserError: If it is of another class, or has a hook or its own `forward`.
    """
    _refuse_other_code(block, tuple(kind.cls for kind in kinds))
    refuse_own_forward(block)
    refuse_hooks(block)
    if names := sorted(getattr(getattr(block, "_diffusers_hook", None), "hooks", ())):
        raise UserError(
            f"a {type(block).__name__} has the diffusers hook {', '.join(names)}, which would not run, because "
            "Clockwork calls the block's layers directly: remove the hook (group offloading works with "
            'offload_type="leaf_level")'
        )
    kind = block_kind(block, kinds)
    assert kind is not None
    num_resnets = len(block.resnets)  # type: ignore[arg-type]
    for name, _ in kind.followers:
        if (number := len(getattr(block, name))) != num_resnets:
            raise UserError(
                f"a {type(block).__name__} has {num_resnets} resnets, but {number} {name}: use as many of both"
            )


def _refuse_other_code(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> None:
    """Refuses a module whose `forward` is not that of one of diffusers' classes."""
    known = next((known for known in classes if isinstance(module, known)), None)
    forward = getattr(type(module), "forward", None)
    if known is None or forward is not known.forward or not _is_of_diffusers(forward):
        raise _unknown_class(module, classes)


def _unknown_class(module: nn.Module, known: tuple[type[nn.Module], ...]) -> UserError:
    """Creates the error for a module of a class whose code Clockwork does not know."""
    cls = type(module)
    names = ", ".join(sorted(known_class.__name__ for known_class in known))
    return UserError(
        f"cannot split a UNet with {cls.__name__} of {cls.__module__}, whose code is not that of a class of diffusers "
        f"that Clockwork knows: use one of {names} in its place"
    )


@cache
def _is_of_diffusers(function: Any) -> bool:
    """Whether a function was defined by diffusers, and not put in the place of one of its methods."""
    return Path(function.__code__.co_filename).is_relative_to(Path(diffusers.__file__).parent)


def _without_wrappers(module: nn.Module) -> Any:
    """Returns the `forward` in a module's attributes beneath those of accelerate and diffusers; None if there is none.

    Both set a `functools.partial` of a function of theirs, and keep the `forward` that was there before.
    """
    forward = vars(module).get("forward")
    for _ in range(2):
        origin = forward.func.__module__ if isinstance(forward, partial) else None
        if origin == "accelerate.hooks" and hasattr(module, "_old_forward"):
            forward = module._old_forward
        elif origin == "diffusers.hooks.hooks" and module._diffusers_hook._fn_refs:  # type: ignore[union-attr]
            innermost: Any = module._diffusers_hook._fn_refs[0]  # type: ignore[union-attr,index]
            forward = innermost.original_forward or innermost.forward
    return forward
