"""Batches of training examples, and the memory that holds the examples of an epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from clockwork.errors import UserError

DEVICES = ("auto", "device", "cpu")


@dataclass(frozen=True)
class Batch:
    """Base class of dataclasses whose fields are tensors and tuples; their first dimension is the batch.

    Tuples hold texts and numbers that stay on the host. Fields may be None, in all batches that are joined or stored
    together.
    """

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    @classmethod
    def join(cls, batches: Sequence[Self]) -> Self:
        """Concatenates batches.

        Args:
            batches: One batch or more.

        Returns:
            One batch of all their examples.
        """

        def joined(parts: list[Any]) -> Any:
            if parts[0] is None:
                return None
            return torch.cat(parts) if isinstance(parts[0], Tensor) else tuple(x for part in parts for x in part)

        return cls(*(joined([getattr(batch, f.name) for batch in batches]) for f in fields(cls)))

    def part(self, start: int, stop: int) -> Self:
        """Returns the examples from index `start` to before `stop`."""
        return type(self)(*(getattr(self, f.name)[start:stop] for f in fields(self)))

    def to(self, device: torch.device, dtype: torch.dtype | None = None, non_blocking: bool = False) -> Self:
        """Moves the tensors, as `Tensor.to` does.

        Args:
            device: The device.
            dtype: Precision of floating-point tensors, unchanged by default. Integers keep their type.
            non_blocking: Whether to copy asynchronously where that is possible.

        Returns:
            The moved batch.
        """

        def moved(values: Any) -> Any:
            if not isinstance(values, Tensor):
                return values
            new_dtype = dtype if values.is_floating_point() else None
            return values.to(device, new_dtype, non_blocking=non_blocking)

        return type(self)(*(moved(getattr(self, f.name)) for f in fields(self)))


class ExampleStore:
    """Memory for examples that is allocated once, filled part by part, and reused for the next examples.

    Args:
        device: `device` keeps examples on the device that generates them; `cpu` keeps them in the host's memory, pinned
            if they come from a GPU; `auto` keeps them on a GPU if they take at most a third of its memory, else on the
            host.
        group_size: Number of examples that belong together. Every part consists of so many blocks of equal length, and
            the examples with the same index in each block are a group. With guidance there are two: the negative half
            and the prompts' half.

    Raises:
        UserError: The device is not one of these.
    """

    def __init__(self, device: str = "auto", group_size: int = 1) -> None:
        if device not in DEVICES:
            raise UserError(f"examples_device={device} is not known: use {', '.join(DEVICES)}")
        self.device, self.group_size = device, group_size
        self.capacity = self.size = 0
        self._values: dict[str, Any] = {}  # tensors of `capacity` examples, and lists
        self._groups: list[Tensor] = []

    def clear(self, capacity: int) -> None:
        """Removes all examples.

        Args:
            capacity: Number of examples that will be appended. The memory is kept if it is large enough for them.
        """
        if capacity > self.capacity:
            self._values, self.capacity = {}, capacity  # the old memory is free before more is allocated
        self.size, self._groups = 0, []
        for values in self._values.values():
            if isinstance(values, list):
                values.clear()

    def append(self, part: Batch) -> None:
        """Copies examples to the end of the store.

        Args:
            part: `group_size` blocks of equal length; all parts are of the same class.
        """
        start, self.size = self.size, self.size + len(part)
        assert self.size <= self.capacity
        if not self._values:
            self._allocate(part)
        for name, values in self._values.items():
            new = getattr(part, name)
            assert new is not None
            if isinstance(values, list):
                values.extend(new)
            else:
                values[start : self.size].copy_(new, non_blocking=True)
        self._groups.append(torch.arange(start, self.size).reshape(self.group_size, -1))

    @property
    def groups(self) -> Tensor:
        """Indices of the examples that belong together, `group_size × groups`."""
        return torch.cat(self._groups, dim=1)

    def batches(self, batch_indices: Sequence[Tensor]) -> Iterator[Batch]:
        """Reads batches of examples.

        Args:
            batch_indices: Indices of the examples of each batch, on the CPU. They are sent to the device at once, so
                that no batch waits for it.

        Yields:
            One batch per tensor of indices, on the device that generated the examples.
        """
        if self._storage_device != self._source_device:  # the copies to the host have to be complete
            torch.cuda.synchronize(self._source_device)
        all_indices = torch.cat(list(batch_indices)).to(self._storage_device)
        lengths = [len(indices) for indices in batch_indices]
        for on_cpu, on_device in zip(batch_indices, all_indices.split(lengths), strict=True):
            selected = {name: self._select(values, on_cpu, on_device) for name, values in self._values.items()}
            yield self._batch_type(**selected)

    def _select(self, values: Any, on_cpu: Tensor, on_device: Tensor) -> Any:
        """Selects examples by their indices, given on the CPU and on the device of the memory."""
        if isinstance(values, list):
            return tuple(values[i] for i in on_cpu.tolist())
        if values.device == self._source_device:
            return values.index_select(0, on_device)
        selected = values.new_empty(len(on_device), *values.shape[1:], pin_memory=values.is_pinned())
        return torch.index_select(values, 0, on_device, out=selected).to(self._source_device, non_blocking=True)

    def _allocate(self, part: Batch) -> None:
        """Allocates memory for `capacity` examples like those of a part."""
        by_name = {f.name: value for f in fields(part) if (value := getattr(part, f.name)) is not None}
        tensors = [value for value in by_name.values() if isinstance(value, Tensor)]
        size = self.capacity * sum(t[0].numel() * t.element_size() for t in tensors)
        self._batch_type, self._source_device = type(part), tensors[0].device
        device = torch.device("cpu") if self._on_host(size) else self._source_device
        pinned = device != self._source_device and self._source_device.type == "cuda"

        def allocated(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return []
            return torch.empty(self.capacity, *value.shape[1:], dtype=value.dtype, device=device, pin_memory=pinned)

        self._values = {name: allocated(value) for name, value in by_name.items()}
        self._storage_device = next(value for value in self._values.values() if isinstance(value, Tensor)).device

    def _on_host(self, size: int) -> bool:
        """Tests whether examples of so many bytes are kept in the host's memory."""
        if self.device == "auto":
            gpu = self._source_device.type == "cuda"
            return gpu and 3 * size > torch.cuda.get_device_properties(self._source_device).total_memory
        return self.device == "cpu"
