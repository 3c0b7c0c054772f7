"""Equations 4 to 6 against a count step by step, and the paper's 33%."""

import pytest

from clockwork.flops.counter import Flops
from clockwork.flops.editing import editing, full_steps, generation, generation_steps, inversion
from clockwork.schedule import Schedule

FULL, ADAPTOR = 677_765_165_824, 228_428_701_184  # SD v1.5 and its identity pass, convention `paper`


@pytest.mark.parametrize("steps", [1, 8, 10, 25, 50])
@pytest.mark.parametrize("clock", [1, 2, 3, 4])
def test_steps_that_ran_are_the_schedules(steps: int, clock: int) -> None:
    schedule = Schedule.parse(f"clock{clock}")
    cost = sum(FULL if schedule.is_full(step) else ADAPTOR for step in range(1, steps + 1))
    assert inversion(steps, clock, FULL, ADAPTOR) == cost
    assert generation(steps, clock, FULL, ADAPTOR) == 3 * cost


def test_div_undercounts_where_the_clock_does_not_divide() -> None:
    assert (full_steps(25, 2), full_steps(25, 2, as_ran=False)) == (13, 12)
    assert (full_steps(50, 4), full_steps(50, 4, as_ran=False)) == (13, 12)
    assert full_steps(1000, 2) == full_steps(1000, 2, as_ran=False) == 500
    assert inversion(25, 2, FULL, ADAPTOR) - inversion(25, 2, FULL, ADAPTOR, as_ran=False) == FULL - ADAPTOR


def test_only_the_bracket_gives_the_stated_33_percent() -> None:
    """Equation 5 as printed has the 3 on its first term alone."""
    plain = editing(1000, 1, FULL, ADAPTOR)
    assert plain == (1000 + 3 * 50) * FULL
    assert round(100 * (1 - editing(1000, 2, FULL, ADAPTOR) / plain), 1) == 33.1
    assert round(100 * (1 - editing(1000, 2, FULL, ADAPTOR, as_printed=True) / plain), 1) == 34.6
    assert generation(50, 2, 10, 1, as_printed=True) == 3 * 25 * 10 + 25


def test_generation_takes_50_steps_or_as_many_as_the_inversion() -> None:
    assert [generation_steps(n) for n in (10, 25, 50, 100, 1000)] == [10, 25, 50, 50, 50]
    assert editing(10, 2, 10, 1) == (5 * 10 + 5) * (1 + 3)


def test_all_conventions_at_once() -> None:
    cost = editing(20, 2, Flops(1, 2, 3), Flops(0, 1, 1))
    assert cost == Flops(editing(20, 2, 1, 0), editing(20, 2, 2, 1), editing(20, 2, 3, 1))
