"""What a batch of prompts is turned into before the UNet sees it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """A batch of prompts, encoded."""

    tokens: Tensor  # batch × tokens × width, for the UNet's cross-attention
    pooled: Tensor | None = None  # batch × width, OpenCLIP's, for adaptors that read text
    # Further arguments of the UNet's forward; tensors anywhere within begin with the batch.
    unet: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def join(first: "Condition", second: "Condition") -> "Condition":
        """One batch of two: negative then positive, as guidance wants them. What is no tensor is the second's."""
        pooled = None
        if first.pooled is not None and second.pooled is not None:
            pooled = torch.cat([first.pooled, second.pooled])
        tokens = torch.cat([first.tokens, second.tokens])
        return Condition(tokens, pooled, _each(lambda a, b: torch.cat([a, b]), first.unet, second.unet))

    def to(self, dtype: torch.dtype) -> "Condition":
        """For a UNet of another precision; whole numbers, and the adaptors' pooled text, keep theirs."""

        def cast(x: Tensor) -> Tensor:
            return x.to(dtype) if x.is_floating_point() else x

        return Condition(cast(self.tokens), self.pooled, _each(cast, self.unet))

    def expand(self, batch: int) -> "Condition":
        """One prompt's condition as `batch` of the same."""
        if len(self) == batch:
            return self

        def wide(x: Tensor) -> Tensor:
            return x.expand(batch, *x.shape[1:])

        return Condition(wide(self.tokens), None if self.pooled is None else wide(self.pooled), _each(wide, self.unet))


def _each(function: Callable[..., Tensor], *trees: Any) -> Any:
    """The function of the tensors at the same place in trees of mappings and lists; of anything else the last's."""
    last = trees[-1]
    if isinstance(last, Tensor) and all(isinstance(tree, Tensor) for tree in trees):
        return function(*trees)
    if isinstance(last, Mapping) and all(isinstance(tree, Mapping) and tree.keys() == last.keys() for tree in trees):
        return {key: _each(function, *(tree[key] for tree in trees)) for key in last}
    if isinstance(last, list | tuple) and all(isinstance(t, list | tuple) and len(t) == len(last) for t in trees):
        return [_each(function, *branches) for branches in zip(*trees, strict=True)]
    return last
