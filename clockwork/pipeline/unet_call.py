"""What identifies a call of the UNet: its position in the solver's timesteps, its prompt and its size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


def find_position(t: Any, timesteps: Any) -> int | None:
    """Finds the position of a timestep in the solver's timesteps.

    The comparison is by memory address. Values do not identify a position, because solvers repeat them.

    Args:
        t: The timestep that the UNet received.
        timesteps: The solver's `timesteps`, one-dimensional.

    Returns:
        The index such that `t` is a view of `timesteps[index]`; None if `t` is not a view of an element.
    """
    if not (isinstance(t, Tensor) and isinstance(timesteps, Tensor) and t.numel() == 1 and timesteps.dim() == 1):
        return None
    if t.dtype != timesteps.dtype or t.untyped_storage().data_ptr() != timesteps.untyped_storage().data_ptr():
        return None
    index, remainder = divmod(int(t.storage_offset()) - int(timesteps.storage_offset()), timesteps.stride(0) or 1)
    return index if remainder == 0 and 0 <= index < timesteps.shape[0] else None


def condition_of(call: Mapping[str, Any]) -> Any:
    """Returns what a UNet call is conditioned on, by which calls of different images differ.

    Args:
        call: Arguments of the UNet's `forward` by name.

    Returns:
        The text features; without them the image's (Kandinsky), else the class labels; None for an unconditional UNet.
    """
    image_embeds = (call.get("added_cond_kwargs") or {}).get("image_embeds")
    candidates = call.get("encoder_hidden_states"), image_embeds, call.get("class_labels")
    return next((candidate for candidate in candidates if candidate is not None), None)


@dataclass(frozen=True)
class UNetCall:
    """What identifies a UNet call: its position, and what consecutive calls of one image have in common.

    Attributes:
        timesteps: The solver's timesteps. The reference keeps later tensors from reusing their memory.
        position: Index of the call's timestep in `timesteps`.
        prompt_embeds: What the image shows (`condition_of`), the same object for all calls of an image.
        sample_spec: Shape, dtype and device of the sample.
        branches: Names of the branches of guidance that the call has, if `clockwork.branch` tells them.
    """

    timesteps: Tensor
    position: int
    prompt_embeds: Any
    sample_spec: tuple[Any, ...]
    branches: tuple[str, ...] = ()

    def has_condition_of(self, other: "UNetCall") -> bool:
        """Whether two calls are of one prompt and one branch of guidance.

        Args:
            other: The other call.
        """
        return self.prompt_embeds is other.prompt_embeds and self.branches == other.branches

    @property
    def num_left(self) -> int:
        """Number of UNet calls from this one to the last."""
        return self.timesteps.shape[0] - self.position
