"""Finds which step of which image a UNet call is, and whether the previous call's features belong to that image.

A pipeline does not pass the index of a step to the UNet, but the timestep that it passes is an element of its solver's
`timesteps` tensor. The position of that element in memory identifies the step, even if the solver calls the UNet twice
per step (Heun, KDPM2) or repeats a timestep (PNDM). Every pipeline call creates a new `timesteps` tensor. A custom
sampling loop may generate many images with one tensor: there, a call at position 0, or at the position at which the
previous image started, starts a new image.

A loop may call the UNet once per half of guidance. Calls with one prompt tensor are followed by themselves, so that
each half has its own features; both halves share the image's log.

Images on one tensor may be aborted or generated alternately, and their calls look alike. Therefore the positions at
which unfinished images stopped are stored, and features are reused only if no other image can be at the same position.
Whenever that is uncertain, the step is a full one. Once an image has run from its first to its last position without
interruption, the unfinished ones that did not run meanwhile are considered aborted. With two images in any order,
neither ever gets the other's features. With three, an image can get another's if both have the same prompt tensor, size
and position and the other one paused while the third image ran from start to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clockwork.adaptors import NO_HISTORY, History
from clockwork.pipeline.step_log import StepLog
from clockwork.pipeline.unet_call import UNetCall

# Why a step is full although the schedule gives it to the adaptor.
UNKNOWN_POSITION = "its position in the solver's timesteps is not known"
OUT_OF_ORDER = "the calls do not follow the timesteps one by one"
CALL_CHANGED = "batch, size, dtype, device or prompt changed"
UNKNOWN_HALF = (
    "the UNet is called once per half of guidance, and it is not known which half a call is: see clockwork.branch"
)
UNKNOWN_BRANCHES = "the batch is larger or smaller than guidance makes it, so branches of examples are not known"
BOTH_HALVES = "the UNet is called once per half of guidance, and the adaptor reads both in one call"
MAX_UNFINISHED = 64
MAX_STATES = 16


@dataclass(frozen=True)
class TextEmbedding:
    """The text embedding that an adaptor reads for an image's prompts.

    Attributes:
        text_emb: The embedding, `batch × width`; None if a prompt is unknown.
    """

    text_emb: Tensor | None


@dataclass(frozen=True)
class LoopState:
    """The state of a thread's sampling loop after a step. It is immutable: a step that fails leaves it unchanged.

    Attributes:
        call: The UNet call of the step.
        first_position: Position of the image's first call; greater than 0 if its `strength` is below 1.
        history: The features that the next step's adaptor reads; empty after the last step.
        log: The image's log.
        text: The image's text embedding; None until a step needs it.
        unfinished: Positions at which other images on the same timesteps stopped.
        uninterrupted: Whether no other image ran a step since this one started.
    """

    call: UNetCall
    first_position: int
    history: History
    log: StepLog
    text: TextEmbedding | None = None
    unfinished: tuple[int, ...] = ()
    uninterrupted: bool = True

    @classmethod
    def before(cls, call: UNetCall, states: Sequence["LoopState"]) -> "LoopState | None":
        """Finds the state from which a call goes on.

        Args:
            call: The call.
            states: States of the thread, the one of its previous call last.

        Returns:
            The state with the call's timesteps, prompt and branch; without one, and if the call follows the previous
            one, that of the half of guidance whose prompt was exchanged; else None.
        """
        states = [state for state in states if state.call.timesteps is call.timesteps]
        for state in states:
            if state.call.has_condition_of(call):
                return state
        of_image = [state for state in states if state.log is states[-1].log]
        return next((state for state in of_image if state.call.position == call.position - 1), None)

    @classmethod
    def at(cls, timesteps: Any, position: int, states: Sequence["LoopState"]) -> "LoopState | None":
        """Finds the state after the last call at a position.

        Args:
            timesteps: The solver's timesteps.
            position: The position.
            states: States of the thread.

        Returns:
            The state; None if there is none, or another image on the same timesteps stopped there, too.
        """
        on_timesteps = (state for state in reversed(states) if state.call.timesteps is timesteps)
        state = next((state for state in on_timesteps if state.call.position == position), None)
        return None if state is None or position in state.unfinished else state

    @property
    def finished(self) -> bool:
        """Whether the step was the image's last."""
        return self.call.num_left == 1


@dataclass(frozen=True)
class StepLocation:
    """Which step of its image a UNet call is, and what the step may reuse.

    Attributes:
        first_position: Position of the image's first call.
        step: Index of the step, from 1.
        is_first_step: Whether the call starts a new image.
        history: The features of earlier steps; empty if they may not be reused.
        text: The image's text embedding, if an earlier step computed it.
        forced_full_reason: Why the step must be full; None if the schedule decides.
        unfinished: Positions at which other images on the same timesteps stopped.
        uninterrupted: Whether no other image ran a step since this one started.
    """

    first_position: int
    step: int
    is_first_step: bool = False
    history: History = NO_HISTORY
    text: TextEmbedding | None = None
    forced_full_reason: str | None = None
    unfinished: tuple[int, ...] = ()
    uninterrupted: bool = True

    @classmethod
    def locate(cls, call: UNetCall, state: LoopState | None) -> "StepLocation":
        """Locates a UNet call.

        Args:
            call: The call.
            state: State after the thread's previous call, if any.

        Returns:
            The step that the call is.
        """
        if state is None or state.call.timesteps is not call.timesteps:
            return cls(call.position, 1, is_first_step=True)
        previous, first = call.position - 1, state.first_position
        if state.call.position == previous:
            return cls._locate_next(call, state)
        others = state.unfinished
        if not state.finished:
            others = (*others, state.call.position)[-MAX_UNFINISHED:]
        if previous < 0 or (previous not in state.unfinished and (state.finished or call.position == first)):
            others_aborted = state.finished and state.uninterrupted
            return cls(call.position, 1, is_first_step=True, unfinished=() if others_aborted else others)
        first, others = min(first, call.position), _remove_first(previous, others)
        step = call.position - first + 1
        return cls(first, step, forced_full_reason=OUT_OF_ORDER, unfinished=others, uninterrupted=False)

    @classmethod
    def _locate_next(cls, call: UNetCall, state: LoopState) -> "StepLocation":
        """Locates a call one position after the previous: the same image, unless another stopped there too."""
        reason = None
        if state.call.position in state.unfinished:
            reason = OUT_OF_ORDER
        elif not call.has_condition_of(state.call) or call.sample_spec != state.call.sample_spec:
            reason = CALL_CHANGED
        reused: dict[str, Any] = {} if reason else {"history": state.history, "text": state.text}
        step = call.position - state.first_position + 1
        return cls(
            state.first_position,
            step,
            forced_full_reason=reason,
            unfinished=state.unfinished,
            uninterrupted=state.uninterrupted,
            **reused,
        )

    def log_of_other_half(self, call: UNetCall, states: Sequence[LoopState]) -> StepLog | None:
        """Returns the log of the image if its other half of guidance has run this step before, as its first.

        If the image has full steps only, any further call on the same step belongs to it, too.

        Args:
            call: The call.
            states: States of the thread, the one of its previous call last.
        """
        last = states[-1] if states else None
        if last is not None and last.log.forced_full_reason is not None:
            is_same_step = last.call.position == call.position and last.call.timesteps is call.timesteps
            return last.log if is_same_step else None
        if last is None or not self.is_first_step or last.call.has_condition_of(call):
            return None
        same_step = last.call.position == last.first_position == call.position
        same_image = last.call.timesteps is call.timesteps and last.call.sample_spec == call.sample_spec
        return last.log if same_step and same_image else None

    def next_state(self, call: UNetCall, history: History, text: TextEmbedding | None, log: StepLog) -> LoopState:
        """Returns the loop's state after this step.

        Args:
            call: The UNet call of the step.
            history: The features that the next step's adaptor reads. They are dropped after the last step.
            text: The image's text embedding, if a step has computed it.
            log: The image's log.
        """
        if call.num_left == 1:
            history = NO_HISTORY
        elif torch.is_grad_enabled():
            history = history.map(Tensor.detach)
        return LoopState(call, self.first_position, history, log, text, self.unfinished, self.uninterrupted)


def next_states(states: Sequence[LoopState], previous: LoopState | None, new: LoopState) -> tuple[LoopState, ...]:
    """Returns a thread's states after a step.

    Args:
        states: The states before.
        previous: The one from which the step went on, if any.
        new: The state after the step.

    Returns:
        Those on the same timesteps that another call may go on from, at most `MAX_STATES`.
    """
    others = (state for state in states if state is not previous and state.call.timesteps is new.call.timesteps)
    return (*(state for state in others if not state.finished or state.unfinished), new)[-MAX_STATES:]


def _remove_first(position: int, positions: tuple[int, ...]) -> tuple[int, ...]:
    """Removes the first occurrence of a position, if there is one."""
    if position not in positions:
        return positions
    i = positions.index(position)
    return positions[:i] + positions[i + 1 :]
