"""A log of the steps of each image, from which `clockwork.summary` reports steps and FLOPs."""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clockwork.flops.cost import shapes
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.controlnet_call import ControlNetCall

MAX_STEPS = 2000  # Heun calls the UNet 1999 times in 1000 steps


@dataclass(frozen=True)
class LoggedStep:
    """One step of an image.

    Attributes:
        full: Whether the full UNet ran.
        guided: Whether the call had both halves of guidance, as an adaptor that reads the half has to know.
        forced_full_reason: Why a step was full although the schedule gave it to the adaptor; None for other steps.
        call: Arguments of the UNet's `forward` by name, with tensors on the `meta` device. Steps with equal
            signatures share this dict.
        controlnets: The calls of ControlNets before the step, with tensors on the `meta` device.
        signature: Shapes and values of the arguments that FLOPs depend on; equal for steps of equal cost.
    """

    full: bool
    guided: bool
    forced_full_reason: str | None
    call: dict[str, Any]
    controlnets: tuple[ControlNetCall, ...]
    signature: Hashable


@dataclass
class StepLog:
    """The last `MAX_STEPS` steps of one image.

    Attributes:
        ran: The operating point at which the image is generated; None if the position of its calls is unknown.
        differences: In which fields `ran` differs from the adaptor's operating point, one phrase each.
        source: Where the image's first timestep lies in memory; None if the position of its calls is known.
        halves_apart: Whether the UNet is called once per half of guidance, so that there are two steps per timestep.
        forced_full_reason: Why no step of the image can be an adaptor step; None if some can.
        steps: The steps.
    """

    ran: OperatingPoint | None = None
    differences: list[str] = field(default_factory=list)
    source: tuple[Any, Any] | None = None
    halves_apart: bool = False
    forced_full_reason: str | None = None
    steps: deque[LoggedStep] = field(default_factory=lambda: deque(maxlen=MAX_STEPS))
    _calls: dict[Hashable, tuple[dict[str, Any], tuple[ControlNetCall, ...]]] = field(default_factory=dict, repr=False)

    def add(
        self,
        full: bool,
        forced_full_reason: str | None,
        call: dict[str, Any],
        controlnets: tuple[ControlNetCall, ...] = (),
        guided: bool = False,
    ) -> None:
        """Appends a step.

        Args:
            full: Whether the full UNet ran.
            forced_full_reason: Why the step was full although the schedule gave it to the adaptor, else None.
            call: Arguments of the UNet's `forward` by name; only the shapes of tensors are stored.
            controlnets: The calls of ControlNets before it, likewise.
            guided: Whether the call had both halves of guidance.
        """
        calls = _signature({**call, "timestep": None}), *(_signature({**c.call, "timestep": None}) for c in controlnets)
        signature = (*calls, *((id(c.net), c.kept) for c in controlnets))
        if signature not in self._calls:
            of_controlnets = tuple(ControlNetCall(c.net, _shapes_of_call(c.call), c.kept) for c in controlnets)
            self._calls[signature] = _shapes_of_call(call), of_controlnets
        self.steps.append(LoggedStep(full, guided, forced_full_reason, *self._calls[signature], signature))

    @classmethod
    def for_unknown_position(cls, timestep: Any, previous: "StepLog | None") -> "StepLog":
        """Finds the log for a UNet call whose position in the solver's timesteps is unknown.

        Such a call is taken for the first of a new image if its timestep lies in another tensor than that of the
        previous call, or is the timestep with which the previous image started.

        Args:
            timestep: The call's timestep, a tensor or a number.
            previous: The log of the previous call of unknown position, if any.

        Returns:
            `previous`, or a new log if the call starts a new image.
        """
        source: tuple[Any, Any] = (None, timestep)
        if isinstance(timestep, Tensor):
            source = (timestep.untyped_storage().data_ptr(), timestep.storage_offset())
        if previous is None or previous.source is None:
            return cls(source=source)
        if previous.source[0] != source[0] or previous.source == source:
            return cls(source=source)
        return previous


def _shapes_of_call(call: dict[str, Any]) -> dict[str, Any]:
    """Replaces the tensors of a call by `meta` tensors; FLOPs do not depend on its timestep."""
    shapes_only: dict[str, Any] = shapes({**call, "timestep": torch.empty(())})
    return shapes_only


def _signature(value: Any) -> Hashable:
    """Reduces a value to what FLOPs depend on: the shape and dtype of tensors, and everything else as it is."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, dict):
        return tuple([(name, _signature(item)) for name, item in value.items()])
    if isinstance(value, (list, tuple)):
        return tuple([_signature(item) for item in value])
    return id(value)
