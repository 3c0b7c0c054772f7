"""What an image's steps did, kept for `summary`: a log per image, of bounded length."""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clockwork.flops.cost import shapes
from clockwork.operating_point import OperatingPoint

MAX_STEPS = 2000  # Heun calls the UNet 1999 times in 1000 steps


@dataclass(frozen=True)
class LoggedStep:
    full: bool
    forced_full_reason: str | None  # what made a step full that the schedule gave to the adaptor
    call: dict[str, Any]  # the UNet's arguments, on meta; neighbours of one form share it
    form: Hashable


@dataclass
class StepLog:
    """The steps of one image.

    Where calls have no known place in the solver's timesteps, an image begins with a new timesteps tensor, and again
    with the first call's timestep (`source`).
    """

    ran: OperatingPoint | None = None
    differences: list[str] = field(default_factory=list)  # of what ran from the adaptor's operating point
    source: tuple[Any, Any] | None = None
    steps: deque[LoggedStep] = field(default_factory=lambda: deque(maxlen=MAX_STEPS))

    def add(self, full: bool, forced_full_reason: str | None, call: dict[str, Any]) -> None:
        """`call`: the arguments of the UNet's forward; only their shapes are kept."""
        form = _form({**call, "timestep": None})
        before = self.steps[-1] if self.steps else None
        if before is not None and before.form == form:
            on_meta = before.call
        else:
            on_meta = shapes({**call, "timestep": torch.empty(())})
        self.steps.append(LoggedStep(full, forced_full_reason, on_meta, form))

    @classmethod
    def of_unknown(cls, timestep: Any, before: "StepLog | None") -> "StepLog":
        """The log of a call without a known place: that of the calls before, or a new image's."""
        source: tuple[Any, Any] = (None, timestep)
        if isinstance(timestep, Tensor):
            source = (timestep.untyped_storage().data_ptr(), timestep.storage_offset())
        if before is None or before.source is None or before.source[0] != source[0] or before.source == source:
            return cls(source=source)
        return before


def _form(value: Any) -> Hashable:
    """What FLOPs depend on: shapes of tensors, and all other values."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, dict):
        return tuple((name, _form(part)) for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_form(part) for part in value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else id(value)
