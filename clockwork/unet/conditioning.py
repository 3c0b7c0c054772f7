"""The encoded prompts that condition a UNet call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """A batch of encoded prompts.

    Attributes:
        tokens: Text features for the UNet's cross-attention, `batch × tokens × width`.
        pooled: Pooled OpenCLIP text features for adaptors that read `text_emb`, `batch × width`.
        unet: Further keyword arguments of the UNet's `forward`, for example `added_cond_kwargs`. The first axis of
            every tensor in it, at any depth, is the batch.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    unet: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def join(first: "Condition", second: "Condition") -> "Condition":
        """Concatenates two batches, for example the negative and the positive half for classifier-free guidance.

        Args:
            first: The first part of the new batch.
            second: The second part. Values in `unet` that are not tensors are taken from it.

        Returns:
            A condition of `len(first) + len(second)` prompts; `pooled` is None if either part has none.
        """
        pooled = None
        if first.pooled is not None and second.pooled is not None:
            pooled = torch.cat([first.pooled, second.pooled])
        tokens = torch.cat([first.tokens, second.tokens])
        return Condition(tokens, pooled, _map_tensors(lambda a, b: torch.cat([a, b]), first.unet, second.unet))

    def to(self, dtype: torch.dtype) -> "Condition":
        """Casts the UNet's inputs to the UNet's precision.

        Args:
            dtype: The precision of the UNet.

        Returns:
            A condition with floating-point tensors in `dtype`. Integer tensors, and `pooled`, which only adaptors
            read, keep theirs.
        """

        def cast(x: Tensor) -> Tensor:
            return x.to(dtype) if x.is_floating_point() else x

        return Condition(cast(self.tokens), self.pooled, _map_tensors(cast, self.unet))

    def expand(self, batch: int) -> "Condition":
        """Repeats the condition of a single prompt, without copying memory.

        Args:
            batch: How many times to repeat it.

        Returns:
            A condition of `batch` equal prompts, or this one if it already has that length.
        """
        if len(self) == batch:
            return self

        def repeat(x: Tensor) -> Tensor:
            return x.expand(batch, *x.shape[1:])

        pooled = None if self.pooled is None else repeat(self.pooled)
        return Condition(repeat(self.tokens), pooled, _map_tensors(repeat, self.unet))


def _map_tensors(function: Callable[..., Tensor], *trees: Any) -> Any:
    """Applies a function to the tensors at the same place in nested mappings and lists of equal structure.

    Wherever the trees differ in structure or hold something else, the result has the value of the last tree.
    """
    last = trees[-1]
    if isinstance(last, Tensor) and all(isinstance(tree, Tensor) for tree in trees):
        return function(*trees)
    if isinstance(last, Mapping) and all(isinstance(tree, Mapping) and tree.keys() == last.keys() for tree in trees):
        return {key: _map_tensors(function, *(tree[key] for tree in trees)) for key in last}
    if isinstance(last, list | tuple) and all(isinstance(t, list | tuple) and len(t) == len(last) for t in trees):
        return [_map_tensors(function, *branches) for branches in zip(*trees, strict=True)]
    return last
