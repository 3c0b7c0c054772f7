"""The encoded prompts that condition a UNet call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

HALVES = ("unconditional", "conditional")  # the branches of classifier-free guidance, in the batch's order


@dataclass(frozen=True)
class Condition:
    """A batch of encoded prompts.

    Attributes:
        prompt_embeds: Text features for the UNet's cross-attention, `batch × tokens × width`; None for a UNet
            that reads none.
        text_emb: Pooled OpenCLIP text features for adaptors that read `text_emb`, `batch × width`.
        unet_kwargs: Further keyword arguments of the UNet's `forward`, for example `added_cond_kwargs`. The first axis
            of every tensor in it, at any depth, is the batch.
        branch: Index of each example's branch of guidance, int64, `batch`: in `HALVES`, or among the branches of the
            adaptor that runs; None if all are conditional.
    """

    prompt_embeds: Any
    text_emb: Tensor | None = None
    unet_kwargs: Mapping[str, Any] = field(default_factory=dict)
    branch: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    @staticmethod
    def concat(first: "Condition", second: "Condition") -> "Condition":
        """Concatenates two batches, for example the negative and the positive half for classifier-free guidance.

        Args:
            first: The first part of the new batch.
            second: The second part. Values in `unet_kwargs` that are not tensors are taken from it.

        Returns:
            A condition of `len(first) + len(second)` prompts; `text_emb` is None if either part has none.
        """
        branch = None
        if first.branch is not None or second.branch is not None:
            branch = torch.cat([first._branch_of_each(), second._branch_of_each()])
        text_emb = None
        if first.text_emb is not None and second.text_emb is not None:
            text_emb = torch.cat([first.text_emb, second.text_emb])
        prompt_embeds = torch.cat([first.prompt_embeds, second.prompt_embeds])
        unet_kwargs = _map_tensors(lambda a, b: torch.cat([a, b]), first.unet_kwargs, second.unet_kwargs)
        return Condition(prompt_embeds, text_emb, unet_kwargs, branch)

    def _branch_of_each(self) -> Tensor:
        """Returns `branch` as a tensor, of `HALVES`."""
        if self.branch is not None:
            return self.branch
        return torch.ones(len(self), dtype=torch.int64, device=self.prompt_embeds.device)

    def to(self, dtype: torch.dtype) -> "Condition":
        """Casts the UNet's inputs to the UNet's precision.

        Args:
            dtype: The precision of the UNet.

        Returns:
            A condition with floating-point tensors in `dtype`. Integer tensors, and `text_emb`, which only adaptors
            read, keep theirs.
        """

        def cast(x: Tensor) -> Tensor:
            return x.to(dtype) if x.is_floating_point() else x

        unet_kwargs = _map_tensors(cast, self.unet_kwargs)
        prompt_embeds = None if self.prompt_embeds is None else cast(self.prompt_embeds)
        return replace(self, prompt_embeds=prompt_embeds, unet_kwargs=unet_kwargs)

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

        return self._map(repeat)

    def select(self, index: Tensor, batch: int | None = None, num_frames: int = 1) -> "Condition":
        """Selects examples of the batch.

        Args:
            index: Indices of the examples, int64.
            batch: Number of examples; by default that of `prompt_embeds`.
            num_frames: Number of frames per example of a video, which some tensors hold in the first axis.

        Returns:
            A condition of `len(index)` examples. Tensors whose first axis has another length are shared by all examples
            and stay as they are.
        """
        return self._map(lambda x: select_examples(x, index, len(self) if batch is None else batch, num_frames))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Condition":
        """Applies a function to all tensors."""
        return Condition(
            None if self.prompt_embeds is None else function(self.prompt_embeds),
            None if self.text_emb is None else function(self.text_emb),
            _map_tensors(function, self.unet_kwargs),
            None if self.branch is None else function(self.branch),
        )


def select_examples(x: Tensor, index: Tensor, batch: int, num_frames: int = 1) -> Tensor:
    """Selects examples of a batch, with all of their frames.

    Args:
        x: Values per example, `batch × …`, or per frame, `batch · num_frames × …`; others are returned as they are.
        index: Indices of the examples, int64.
        batch: Number of examples.
        num_frames: Number of frames per example.
    """
    if x.dim() and len(x) == batch:
        return x[index]
    if x.dim() and len(x) == batch * num_frames:
        return x.unflatten(0, (batch, num_frames))[index].flatten(0, 1)
    return x


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
