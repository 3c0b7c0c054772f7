"""Which steps are full (paper, Section 4.2)."""

from math import ceil
from typing import Any

import pytest

from clockwork.schedule import Schedule


@pytest.mark.parametrize("period", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", [1, 7, 8, 9])
def test_a_clock_runs_ceil_n_over_period_full_passes(period: int, steps: int) -> None:
    schedule = Schedule.parse(f"clock{period}")
    assert schedule.full_steps(steps) == ceil(steps / period)
    assert schedule.is_full(1)


def test_clock2_is_the_papers_set() -> None:
    assert Schedule.parse("clock2").adaptor_steps(8) == Schedule.parse("2,4,6,8").adaptor_steps(8) == [2, 4, 6, 8]


def test_always_has_no_full_step() -> None:
    assert Schedule.parse("always").adaptor_steps(3) == [1, 2, 3]


@pytest.mark.parametrize("text", ["full", "clock2", "clock4", "always", "3,4,5,6"])
def test_text_round_trip(text: str) -> None:
    assert str(Schedule.parse(text)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2, "clock2"), (1, "full"), ([2, 4], "2,4"), ((4, 2), "2,4")],
)
def test_numbers_are_schedules(value: Any, text: str) -> None:
    assert Schedule.parse(value) == Schedule.parse(text)


@pytest.mark.parametrize("text", ["clock0", "1,2", "every2", "", "2;4", 0, True, 2.5, [], [1], {2: 4}, None])
def test_what_is_no_schedule_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="schedule"):
        Schedule.parse(text)


def test_longer_than_the_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than the 6 steps"):
        Schedule.parse("5,6,7,8").adaptor_steps(6)
