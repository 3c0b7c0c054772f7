"""Copies of an adaptor for a pipeline, so that the caller's module is never changed."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from clockwork.adaptors import Adaptor


def frozen_copy(adaptor: Adaptor) -> Adaptor:
    """Copies an adaptor, in eval mode and without gradients.

    Args:
        adaptor: The adaptor. A warning is issued if its `compile()` was called, since the copy is not compiled.

    Returns:
        A copy that shares no memory with `adaptor`.
    """
    if adaptor._compiled_call_impl is not None:
        warnings.warn(
            "the pipeline's copy of this adaptor is not compiled: pass torch.compile(adaptor) to enable instead",
            stacklevel=3,
        )
    return _copy(adaptor, lambda weight: weight.clone())


def copy_to(adaptor: Adaptor, device: torch.device, dtype: torch.dtype) -> Adaptor:
    """Copies an adaptor to a device and a precision.

    `Module.to` would change the adaptor itself. Another thread may be running it, and a later cast could not restore
    the precision that this one loses.

    Args:
        adaptor: The adaptor, which stays as it is.
        device: Device of the copy.
        dtype: Precision of the copy's floating-point weights.

    Returns:
        A copy in eval mode. It shares the weights that already have this device and precision.
    """
    return _copy(adaptor, lambda weight: weight.to(device, dtype if weight.is_floating_point() else None))


def _copy(adaptor: Adaptor, convert: Callable[[Tensor], Tensor]) -> Adaptor:
    """Copies an adaptor, with `convert` applied to every parameter and buffer."""
    memo: dict[int, Any] = {}
    with torch.inference_mode(False):  # the copy outlives an image that is generated in inference mode
        for module in adaptor.modules():
            for weight in module.parameters(recurse=False):
                memo[id(weight)] = nn.Parameter(convert(weight.detach()), requires_grad=False)
            for buffer in module.buffers(recurse=False):
                memo[id(buffer)] = convert(buffer.detach())
        return copy.deepcopy(adaptor, memo).eval()
