"""Commands that are killed at random moments and started again end as those that nothing has disturbed."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.fault_commands import evaluate_command, leftovers, measured, train_command, trained
from helpers.processes import start

few_and_many = pytest.mark.parametrize(
    "count", [pytest.param(2, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.faults)]
)


def run(words: Sequence[str]) -> float:
    """Runs a command to its end; returns the seconds that it took."""
    process, begin = start(*words), time.monotonic()
    status, _, errors = process.wait()
    assert status == 0, errors
    return time.monotonic() - begin


def kill_after(words: Sequence[str], seconds: float) -> bool:
    """Kills a command after some seconds; returns False if it has ended before."""
    process = start(*words)
    time.sleep(seconds)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    return process.wait()[0] == -signal.SIGKILL


def kill_at_random_moments(
    count: int, folder: Path, command: Callable[[Path], list[str]], result: Callable[[Path], Any]
) -> None:
    """Kills as many runs, each once, somewhere in its part of the duration, and compares them with one that is not."""
    rng, killed = random.Random(0), 0
    seconds = run(command(folder / "undisturbed"))
    expected = result(folder / "undisturbed")
    begin = time.monotonic()
    for number in range(count):
        place = folder / str(number)
        killed += kill_after(command(place), seconds * (number + rng.random()) / count)
        run(command(place))
        assert result(place) == expected, f"killed run {number}"
        assert not leftovers(place)
    print(f"\n{killed} kills, {count} of {count} runs the same, {time.monotonic() - begin:.0f} s")
    assert killed >= count // 2


@few_and_many
def test_a_killed_training_ends_with_the_same_adaptor(count: int, tmp_path: Path) -> None:
    kill_at_random_moments(count, tmp_path, train_command, trained)


@few_and_many
def test_a_killed_sweep_ends_with_the_same_rows_and_images(count: int, tmp_path: Path) -> None:
    kill_at_random_moments(count, tmp_path, evaluate_command, measured)
