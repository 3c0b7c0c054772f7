"""Which step a UNet call is, and whether the features of the call before belong to it.

A pipeline does not say at which step it is, but it hands the UNet elements of its solver's `timesteps`, and every call
of a pipeline has the solver make a new tensor of them. So the tensor tells one image from the next, and an element's
place in its memory tells the step: also where a solver calls twice a step (Heun, KDPM2) or repeats a timestep (PNDM).
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

UNKNOWN = "its place in the solver's timesteps is not known"
DISORDER = "the calls do not follow the timesteps one by one"
CHANGED = "batch, size, dtype, device or prompt changed"


def position(t: Any, timesteps: Any) -> int | None:
    """Where in `timesteps` the number `t` lies: by its memory, never by its value, which solvers repeat."""
    if not (isinstance(t, Tensor) and isinstance(timesteps, Tensor) and t.numel() == 1 and timesteps.dim() == 1):
        return None
    if t.dtype != timesteps.dtype or t.untyped_storage().data_ptr() != timesteps.untyped_storage().data_ptr():
        return None
    place, rest = divmod(int(t.storage_offset()) - int(timesteps.storage_offset()), timesteps.stride(0) or 1)
    return place if rest == 0 and 0 <= place < len(timesteps) else None


@dataclass(frozen=True)
class Call:
    """What two neighbouring steps of one image have in common, and where in it this one is."""

    timesteps: Tensor  # the solver's, kept so that no later tensor takes its memory
    position: int
    text: Any  # encoder_hidden_states, the same object throughout
    form: tuple[Any, ...]  # shape, dtype and device of the sample


@dataclass(frozen=True)
class Run:
    """A sampling loop after one of its steps. A new one a step, so that a step that fails leaves nothing behind."""

    call: Call
    step: int  # from 1, of the loop's own calls: with strength 0.5 the first is not the solver's first
    r_out: Tensor | None
    in_order: bool = True

    @property
    def over(self) -> bool:
        return self.call.position == len(self.call.timesteps) - 1


@dataclass(frozen=True)
class Place:
    """A call's place in its run. `why` says what forces a full step, None where the schedule decides."""

    step: int
    r_out_prev: Tensor | None = None
    in_order: bool = True
    why: str | None = None
    first: bool = False  # of a run

    @classmethod
    def of(cls, call: Call, run: Run | None) -> "Place":
        """`run` is the one that this thread's call before left.

        One timesteps tensor is understood in one way: calls one position after the other. Two images in turn, or a call
        left out, and all further steps of that tensor are full.
        """
        if run is None or run.call.timesteps is not call.timesteps or (run.over and run.in_order):
            return cls(1, first=True)
        step = run.step + 1
        if not run.in_order or call.position != run.call.position + 1:
            return cls(step, in_order=False, why=DISORDER)
        if call.text is not run.call.text or call.form != run.call.form:
            return cls(step, why=CHANGED)
        return cls(step, run.r_out)
