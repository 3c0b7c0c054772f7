"""Commands that are killed or stopped at random moments and started again end as those that nothing has disturbed."""

import random
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.fault_commands import COMMANDS, leftovers
from helpers.processes import start

KILL, TERMINATE, INTERRUPT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
STATUSES = {KILL: -KILL, TERMINATE: 128 + TERMINATE, INTERRUPT: 128 + INTERRUPT}


def run(words: Sequence[str]) -> float:
    """Runs a command to its end; returns the seconds that it took."""
    process, begin = start(*words), time.monotonic()
    status, _, errors = process.wait()
    assert status == 0, errors
    return time.monotonic() - begin


def stopped_after(words: Sequence[str], seconds: float, number: signal.Signals) -> bool:
    """Sends a signal to a command after some seconds; returns False if it has ended before."""
    process = start(*words)
    time.sleep(seconds)
    if process.poll() is None:
        process.send_signal(number)
    status, _, errors = process.wait()
    if status == 0 or (status == -number != -KILL and not errors):  # it had ended, or Python was starting or ending
        return False
    assert status == STATUSES[number], errors
    if number != KILL:
        (sentence,) = errors.splitlines()
        assert re.match(r"stopped( by SIGTERM)?: .*(the same command|run it again|nothing is kept)", sentence), errors
    return True


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("signals", "count"),
    [
        pytest.param([KILL], 2, marks=pytest.mark.slow, id="2-killed"),
        pytest.param([KILL], 20, marks=pytest.mark.faults, id="20-killed"),
        pytest.param([TERMINATE, INTERRUPT], 20, marks=pytest.mark.faults, id="20-stopped"),
    ],
)
def test_a_command_that_is_stopped_ends_the_same(
    name: str, signals: list[signal.Signals], count: int, tmp_path: Path
) -> None:
    """Stops as many runs, each once, somewhere in its part of the duration, and compares them with one that is not."""
    command, result = COMMANDS[name]
    rng, stopped = random.Random(0), 0
    seconds = run(command(tmp_path / "undisturbed"))
    expected = result(tmp_path / "undisturbed")
    begin = time.monotonic()
    for number in range(count):
        place = tmp_path / str(number)
        moment = seconds * (number + rng.random()) / count
        stopped += stopped_after(command(place), moment, signals[number % len(signals)])
        run(command(place))
        ours = result(place)
        different = {part for part in expected.keys() | ours.keys() if expected.get(part) != ours.get(part)}
        # Sample images come after their epoch's checkpoint; those of the epoch before a stop may be missing.
        assert not {part for part in different if "samples" not in part or part in ours}, f"run {number}"
        assert not leftovers(place)
    print(f"\n{name}: {stopped} signals, {count} of {count} runs the same, {time.monotonic() - begin:.0f} s")
    assert stopped >= count // 2
