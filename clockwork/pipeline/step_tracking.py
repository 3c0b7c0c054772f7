"""Which step a UNet call is, and whether the features of the call before belong to it.

A pipeline does not say at which step it is, but it passes the UNet elements of its solver's `timesteps`. An element's
place in that tensor's memory is the step, also where a solver calls twice per step (Heun, KDPM2) or repeats a timestep
(PNDM). Every call of a pipeline makes a new `timesteps` tensor; a loop of one's own may run many images over one. There
a call at position 0, or where the image before began, begins an image.

Images on one tensor can be aborted, or generated in turns, and their calls look alike. So the positions where images
stopped are kept, and features are used only where no other image can be at the same position: what is not certain is a
full step. Once calls went from the first position to the last without a break, images that rested meanwhile are taken
for aborted. Two images in any order never get each other's features. Of three, one can, if it has the same prompt, size
and position as the third, and rested while the second ran to its end.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clockwork.pipeline.step_log import StepLog

UNKNOWN = "its place in the solver's timesteps is not known"
DISORDER = "the calls do not follow the timesteps one by one"
CHANGED = "batch, size, dtype, device or prompt changed"
MAX_UNFINISHED = 64


def position(t: Any, timesteps: Any) -> int | None:
    """Where in `timesteps` the number `t` lies: by its memory, never by its value, which solvers repeat."""
    if not (isinstance(t, Tensor) and isinstance(timesteps, Tensor) and t.numel() == 1 and timesteps.dim() == 1):
        return None
    if t.dtype != timesteps.dtype or t.untyped_storage().data_ptr() != timesteps.untyped_storage().data_ptr():
        return None
    place, rest = divmod(int(t.storage_offset()) - int(timesteps.storage_offset()), timesteps.stride(0) or 1)
    return place if rest == 0 and 0 <= place < len(timesteps) else None


@dataclass(frozen=True)
class UNetCall:
    """What two neighbouring steps of one image have in common, and where in it this one is."""

    timesteps: Tensor  # the solver's, kept so that no later tensor takes its memory
    position: int
    text: Any  # encoder_hidden_states, the same object throughout
    form: tuple[Any, ...]  # shape, dtype and device of the sample


@dataclass(frozen=True)
class TextEmbedding:
    """What an adaptor reads of an image's prompts: `batch × width`, None where a prompt is not known."""

    text_emb: Tensor | None


@dataclass(frozen=True)
class LoopState:
    """A thread's sampling loop after one of its steps; each step makes a new one, and a step that fails none."""

    call: UNetCall
    first_position: int  # of the image: with strength 0.5 it is not 0
    r_out: Tensor | None
    log: StepLog
    text: TextEmbedding | None = None  # once a step needed it
    unfinished: tuple[int, ...] = ()  # the last positions of other images on these timesteps
    uninterrupted: bool = True  # no other image had a step since this one began

    @property
    def finished(self) -> bool:
        return self.call.position == len(self.call.timesteps) - 1


@dataclass(frozen=True)
class StepLocation:
    """A call's place in its image."""

    first_position: int
    step: int  # from 1
    begins: bool = False  # an image
    r_out_prev: Tensor | None = None
    text: TextEmbedding | None = None
    forced_full_reason: str | None = None  # None where the schedule decides
    unfinished: tuple[int, ...] = ()
    uninterrupted: bool = True

    @classmethod
    def of(cls, call: UNetCall, state: LoopState | None) -> "StepLocation":
        """Where a call is, after the thread's calls that left `state`."""
        if state is None or state.call.timesteps is not call.timesteps:
            return cls(call.position, 1, begins=True)
        before, first = call.position - 1, state.first_position
        if state.call.position == before:
            return cls._next(call, state)
        others = state.unfinished
        if not state.finished:
            others = (*others, state.call.position)[-MAX_UNFINISHED:]
        if before < 0 or (before not in state.unfinished and (state.finished or call.position == first)):
            rested = state.finished and state.uninterrupted  # the others, all the while
            return cls(call.position, 1, begins=True, unfinished=() if rested else others)
        first, others = min(first, call.position), _without(before, others)
        step = call.position - first + 1
        return cls(first, step, forced_full_reason=DISORDER, unfinished=others, uninterrupted=False)

    @classmethod
    def _next(cls, call: UNetCall, state: LoopState) -> "StepLocation":
        """One position after the call before: of the same image, unless another one waits at that position too."""
        reason = None
        if state.call.position in state.unfinished:
            reason = DISORDER
        elif call.text is not state.call.text or call.form != state.call.form:
            reason = CHANGED
        known: dict[str, Any] = {} if reason else {"r_out_prev": state.r_out, "text": state.text}
        step = call.position - state.first_position + 1
        return cls(
            state.first_position,
            step,
            forced_full_reason=reason,
            unfinished=state.unfinished,
            uninterrupted=state.uninterrupted,
            **known,
        )

    def after(self, call: UNetCall, r_out: Tensor, text: TextEmbedding | None, log: StepLog) -> LoopState:
        """The loop's state once the step is done; the last step's features are not kept."""
        last = call.position == len(call.timesteps) - 1
        kept = None if last else r_out.detach()
        return LoopState(call, self.first_position, kept, log, text, self.unfinished, self.uninterrupted)


def _without(position: int, positions: tuple[int, ...]) -> tuple[int, ...]:
    if position not in positions:
        return positions
    i = positions.index(position)
    return positions[:i] + positions[i + 1 :]
