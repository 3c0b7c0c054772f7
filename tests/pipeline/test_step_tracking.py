"""Which call belongs to which image, over every order in which calls can come: features are never another image's."""

from collections.abc import Iterable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from clockwork.adaptors import NO_HISTORY, FullStep, History
from clockwork.pipeline.step_log import MAX_STEPS, StepLog
from clockwork.pipeline.step_tracking import (
    CALL_CHANGED,
    MAX_STATES,
    MAX_UNFINISHED,
    OUT_OF_ORDER,
    LoopState,
    StepLocation,
    next_states,
)
from clockwork.pipeline.unet_call import UNetCall, find_position


class Thread:
    """A thread's calls on one timesteps tensor. Features are numbers: 100 times the image plus the position."""

    def __init__(self, calls: int) -> None:
        self.timesteps, self.text, self.log = torch.arange(calls), object(), StepLog()
        self.states: tuple[LoopState, ...] = ()

    def call(self, image: int, at: int, text: object = None) -> StepLocation:
        call = UNetCall(self.timesteps, at, text or self.text, ())
        previous = LoopState.before(call, self.states)
        location = StepLocation.locate(call, previous)
        features = torch.tensor(100 * image + at)
        full_steps = (FullStep(location.step, features, features), *location.history.full_steps)[:2]
        state = location.next_state(call, History(features, features, full_steps), None, self.log)
        self.states = next_states(self.states, previous, state)
        return location

    def clean(self, image: int) -> list[StepLocation]:
        return [self.call(image, at) for at in range(len(self.timesteps))]


def is_own(location: StepLocation, image: int, at: int) -> bool:
    """Whether the features, if any, are those of this image's step before."""
    previous = location.history.r_out_prev
    earlier = [int(full.r_out) for full in location.history.full_steps]
    return all(100 * image <= number < 100 * image + at for number in earlier) and (
        previous is None or int(previous) == 100 * image + at - 1
    )


def orders(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Every order of so many calls of each image, as the images' numbers."""
    if not any(lengths):
        yield []
    for image, length in enumerate(lengths):
        if length:
            rest = [n - (i == image) for i, n in enumerate(lengths)]
            yield from ([image, *order] for order in orders(rest))


def run(thread: Thread, order: Iterable[int]) -> Iterator[tuple[StepLocation, int, int]]:
    """Each call's location, image and position."""
    at: dict[int, int] = {}
    for image in order:
        at[image] = at.get(image, -1) + 1
        yield thread.call(image, at[image]), image, at[image]


@pytest.mark.parametrize("lengths", [(a, b) for a in range(1, 5) for b in range(1, 5)])
def test_two_images_in_any_order_then_clean_ones(lengths: tuple[int, int]) -> None:
    """Each is aborted after so many of its four steps. What follows is clocked again: the first image with a full step
    too many per aborted one, the second without any."""
    for order in orders(lengths):
        thread = Thread(4)
        assert all(is_own(*found) for found in run(thread, order)), order
        first, second = thread.clean(2), thread.clean(3)
        assert first[0].is_first_step and [found.step for found in first] == [1, 2, 3, 4]
        assert all(is_own(found, 2, at) for at, found in enumerate(first))
        aborted = sum(length < 4 for length in lengths)
        assert sum(found.forced_full_reason is not None for found in first) <= aborted, order
        assert [int(f.history.r_out_prev) for f in second[1:] if f.history.r_out_prev is not None] == [300, 301, 302]


def test_images_in_lockstep_are_full() -> None:
    thread = Thread(4)
    found = [location for location, _, _ in run(thread, [0, 1] * 4)]
    assert all(location.is_first_step or location.forced_full_reason == OUT_OF_ORDER for location in found)


def test_three_images_in_any_order() -> None:
    """Never another's features, but where calls went from the first position to the last without a break, the image
    that rested meanwhile was taken for aborted, and it goes on in the middle of the third."""
    found = {tuple(order): list(run(Thread(3), order)) for order in orders((3, 3, 3))}
    wrong = [steps for steps in found.values() if not all(is_own(*step) for step in steps)]
    assert len(wrong) < len(found) / 30
    for steps in wrong:
        positions = "".join(str(at) for _, _, at in steps)
        assert "012" in positions[: [is_own(*step) for step in steps].index(False)]


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_an_image_after_an_aborted_one(first: int, steps: int) -> None:
    """Also with strength, where images begin in the middle; at most one step is full that need not be."""
    thread = Thread(6)
    for at in range(first, first + steps):
        thread.call(0, at)
    found = [thread.call(1, at) for at in range(first, 6)]
    assert found[0].is_first_step and [location.step for location in found] == list(range(1, 7 - first))
    assert [location.forced_full_reason for location in found].count(OUT_OF_ORDER) == (steps < 6 - first)
    assert all(is_own(location, 1, at) for at, location in enumerate(found, first))
    again = [thread.call(2, at) for at in range(first, 6)]
    assert not any(location.forced_full_reason for location in again)


def test_a_step_that_failed_can_be_repeated() -> None:
    """The state is only replaced after a step: a repeated call finds what the first one found."""
    thread = Thread(3)
    thread.call(0, 0)
    call = UNetCall(thread.timesteps, 1, thread.text, ())
    (state,) = thread.states
    assert StepLocation.locate(call, state) == StepLocation.locate(call, state)
    assert is_own(StepLocation.locate(call, state), 0, 1)


def test_another_prompt_or_another_form() -> None:
    thread = Thread(4)
    thread.call(0, 0)
    changed = thread.call(0, 1, object())
    assert (changed.forced_full_reason, changed.history, changed.step) == (CALL_CHANGED, NO_HISTORY, 2)


def test_state_is_bounded() -> None:
    """However many images are aborted, and however long a disorder lasts."""
    thread = Thread(5)
    for image in range(3 * MAX_UNFINISHED):
        for at in range(image % 4 + 1):
            thread.call(image, at)
    assert len(thread.states) == 1 and len(thread.states[0].unfinished) == MAX_UNFINISHED
    for image in range(3 * MAX_UNFINISHED):
        thread.call(image, 3 + image % 2)
    assert len(thread.states[0].unfinished) <= MAX_UNFINISHED
    thread.clean(-1)
    assert not any(found.forced_full_reason for found in thread.clean(-1))
    for _ in range(2 * MAX_STATES):
        thread.call(0, 0, object())
    assert len(thread.states) == MAX_STATES


def test_halves_of_guidance_in_turn_have_their_features_each() -> None:
    """Two calls a step, in any order within it, for two images; a prompt that is exchanged costs that half a step."""
    thread, halves = Thread(4), (object(), object())
    for number in range(2):
        for at in range(4):
            for half in (0, 1) if at % 2 else (1, 0):
                location = thread.call(10 * number + half, at, halves[half])
                assert location.step == at + 1 and location.forced_full_reason is None
                assert location.is_first_step == (at == 0) and is_own(location, 10 * number + half, at)
                assert at == 0 or location.history.r_out_prev is not None
    thread, halves = Thread(6), (object(), object())
    for at in range(6):
        halves = (object(), object()) if at == 3 else halves
        found = [thread.call(half, at, halves[half]) for half in (0, 1)]
        assert [location.step for location in found] == [at + 1] * 2
        assert [location.forced_full_reason for location in found] == [CALL_CHANGED if at == 3 else None] * 2
        assert all(is_own(location, half, at) for half, location in enumerate(found))


def test_images_of_other_prompts_in_any_order_have_their_features_each() -> None:
    for order in orders((3, 3)):
        thread, prompts, at = Thread(3), (object(), object()), [0, 0]
        for image in order:
            location = thread.call(image, at[image], prompts[image])
            assert is_own(location, image, at[image]) and location.forced_full_reason in (None, CALL_CHANGED)
            at[image] += 1


def test_a_log_is_bounded() -> None:
    log = StepLog()
    for _ in range(MAX_STEPS + 10):
        log.add(True, None, {"sample": torch.empty(1), "timestep": 3})
    assert len(log.steps) == MAX_STEPS
    assert log.steps[0].call is log.steps[-1].call  # one object per form


def test_a_log_keeps_the_form_of_every_step() -> None:
    log = StepLog()
    residuals = [(torch.empty(1, 2),), (torch.empty(1, 3),), None, None]
    for given in residuals:
        log.add(True, None, {"sample": torch.empty(1), "timestep": 3, "down_block_additional_residuals": given})
    kept = [step.call["down_block_additional_residuals"] for step in log.steps]
    assert [None if k is None else (k[0].shape, k[0].device.type) for k in kept] == [
        ((1, 2), "meta"),
        ((1, 3), "meta"),
        None,
        None,
    ]


@pytest.mark.parametrize("kind", ["numbers", "elements of another tensor"])
def test_a_log_of_calls_without_a_place_is_of_one_image(kind: str) -> None:
    own = torch.tensor([9, 7, 7, 5])
    given: list[int | Tensor] = [9, 7, 7, 5] if kind == "numbers" else list(own)
    log = None
    for _ in range(3):
        logs = []
        for t in given:
            log = StepLog.for_unknown_position(t, log)
            logs.append(log)
        assert all(one is logs[0] for one in logs)
        logs[0].add(True, None, {"timestep": t})
        assert len(log.steps) == 1


def test_position_is_of_memory_not_of_value() -> None:
    repeated = torch.tensor([9, 7, 7, 5])
    assert [find_position(t, repeated) for t in repeated] == [0, 1, 2, 3]
    assert [find_position(t, repeated) for t in repeated[2:]] == [2, 3]
    assert find_position(repeated[1].clone(), repeated) is None
    assert find_position(9, repeated) is None and find_position(repeated[:2], repeated) is None
    assert [find_position(t, repeated[::2]) for t in repeated] == [0, None, 1, None]
