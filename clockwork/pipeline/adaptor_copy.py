"""A pipeline's own copy of an adaptor: the caller's module stays as it is."""

import copy
import warnings
from typing import Any

import torch
from torch import nn

from clockwork.adaptors import Adaptor


def frozen_copy(adaptor: Adaptor) -> Adaptor:
    """The same weights in eval mode, without gradients."""
    if adaptor._compiled_call_impl is not None:
        warnings.warn(
            "the adaptor's own copy in the pipeline is not compiled: pass torch.compile(adaptor) to enable",
            stacklevel=3,
        )
    return _copy(adaptor, lambda weight: weight.clone())


def copy_to(adaptor: Adaptor, device: torch.device, dtype: torch.dtype) -> Adaptor:
    """The same weights on a device and in a precision, shared where they are so already.

    `Module.to` would change the adaptor itself: another thread may run it, and precision that a cast loses would not
    come back with the next one.
    """
    return _copy(adaptor, lambda weight: weight.to(device, dtype if weight.is_floating_point() else None))


def _copy(adaptor: Adaptor, convert: Any) -> Adaptor:
    memo: dict[int, Any] = {}
    with torch.inference_mode(False):  # the copy outlives an image that is generated in inference mode
        for part in adaptor.modules():
            for weight in part.parameters(recurse=False):
                memo[id(weight)] = nn.Parameter(convert(weight.detach()), requires_grad=False)
            for buffer in part.buffers(recurse=False):
                memo[id(buffer)] = convert(buffer.detach())
        return copy.deepcopy(adaptor, memo).eval()
