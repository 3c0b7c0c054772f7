"""Batches of training examples, and the memory that an epoch's examples live in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from clockwork.errors import UserError

PLACES = ("auto", "device", "cpu")


@dataclass(frozen=True)
class Batch:
    """Tensors, and tuples of text, whose first dimension is the batch."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    @classmethod
    def join(cls, batches: Sequence[Self]) -> Self:
        """One batch of several."""

        def joined(parts: list[Any]) -> Any:
            return torch.cat(parts) if isinstance(parts[0], Tensor) else tuple(x for part in parts for x in part)

        return cls(*(joined([getattr(batch, f.name) for batch in batches]) for f in fields(cls)))

    def to(self, device: torch.device, dtype: torch.dtype | None = None, non_blocking: bool = False) -> Self:
        """As `Tensor.to`; whole numbers keep their type."""

        def moved(values: Any) -> Any:
            if not isinstance(values, Tensor):
                return values
            kind = dtype if values.is_floating_point() else None
            return values.to(device, kind, non_blocking=non_blocking)

        return type(self)(*(moved(getattr(self, f.name)) for f in fields(self)))


class ExampleStore:
    """Room for a number of examples, allocated once, filled part by part and overwritten by the next examples.

    Args:
        place: `device` keeps examples where they are made; `cpu` keeps them in the host's memory, pinned for a GPU;
            `auto` keeps them on a GPU if they take at most a third of its memory, else on the host.
        group_size: Examples that belong together: a part is so many blocks of equal length, and the examples at the
            same place of each block are a group. Guidance makes two, the negative half and the prompts' half.
    """

    def __init__(self, place: str = "auto", group_size: int = 1) -> None:
        if place not in PLACES:
            raise UserError(f"examples_device={place} is not known: use {', '.join(PLACES)}")
        self.place, self.group_size = place, group_size
        self.capacity = self.size = 0
        self._values: dict[str, Any] = {}  # tensors of `capacity` examples, and lists of text
        self._groups: list[Tensor] = []

    def clear(self, capacity: int) -> None:
        """Drops the examples and keeps their memory if `capacity` fits into it."""
        if capacity > self.capacity:
            self._values, self.capacity = {}, capacity  # the old memory is free before more is allocated
        self.size, self._groups = 0, []
        for values in self._values.values():
            if isinstance(values, list):
                values.clear()

    def append(self, part: Batch) -> None:
        """Copies a part into the next free places."""
        start, self.size = self.size, self.size + len(part)
        assert self.size <= self.capacity
        if not self._values:
            self._allocate(part)
        for name, values in self._values.items():
            new = getattr(part, name)
            if isinstance(values, list):
                values.extend(new)
            else:
                values[start : self.size].copy_(new, non_blocking=True)
        self._groups.append(torch.arange(start, self.size).reshape(self.group_size, -1))

    @property
    def groups(self) -> Tensor:
        """Places of examples that belong together, `group_size × groups`."""
        return torch.cat(self._groups, dim=1)

    def batches(self, places: Sequence[Tensor]) -> Iterator[Batch]:
        """The examples at each of some places, on the device where they were made.

        Args:
            places: Indices on the CPU, one tensor per batch. They are sent to the device once, so that no batch waits
                for it.
        """
        if self._kept.device != self._device:  # the copies to the host have arrived
            torch.cuda.synchronize(self._device)
        everything = torch.cat(list(places)).to(self._kept.device)
        for here, there in zip(places, everything.split([len(p) for p in places]), strict=True):
            yield self._kind(*(self._take(values, here, there) for values in self._values.values()))

    def _take(self, values: Any, here: Tensor, there: Tensor) -> Any:
        if isinstance(values, list):
            return tuple(values[i] for i in here.tolist())
        if values.device == self._device:
            return values.index_select(0, there)
        taken = values.new_empty(len(there), *values.shape[1:], pin_memory=values.is_pinned())
        return torch.index_select(values, 0, there, out=taken).to(self._device, non_blocking=True)

    def _allocate(self, part: Batch) -> None:
        named = {f.name: getattr(part, f.name) for f in fields(part)}
        tensors = [value for value in named.values() if isinstance(value, Tensor)]
        size = self.capacity * sum(t[0].numel() * t.element_size() for t in tensors)
        self._kind, self._device = type(part), tensors[0].device
        device = torch.device("cpu") if self._on_host(size) else self._device
        pinned = device != self._device and self._device.type == "cuda"

        def room(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return []
            return torch.empty(self.capacity, *value.shape[1:], dtype=value.dtype, device=device, pin_memory=pinned)

        self._values = {name: room(value) for name, value in named.items()}
        self._kept = next(value for value in self._values.values() if isinstance(value, Tensor))

    def _on_host(self, size: int) -> bool:
        if self.place == "auto":
            gpu = self._device.type == "cuda"
            return gpu and 3 * size > torch.cuda.get_device_properties(self._device).total_memory
        return self.place == "cpu"
