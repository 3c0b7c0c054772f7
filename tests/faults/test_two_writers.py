"""Two commands that write into one folder at once."""

import time
from pathlib import Path

import pytest
from helpers.fault_commands import evaluate_command, leftovers, measured, train_command, trained
from helpers.processes import Process, start

pytestmark = pytest.mark.slow


def check(*processes: Process) -> None:
    for process in processes:
        status, _, errors = process.wait()
        assert status == 0, errors


def test_two_sweeps_measure_what_one_does(tmp_path: Path) -> None:
    """`measured` asserts that no row is there twice."""
    check(*[start(*evaluate_command(tmp_path / "two")) for _ in range(2)])
    check(start(*evaluate_command(tmp_path / "one")))
    assert measured(tmp_path / "two") == measured(tmp_path / "one") and not leftovers(tmp_path)


def test_a_second_training_is_refused_with_the_first_named(tmp_path: Path) -> None:
    first = start(*train_command(tmp_path / "two"))
    while not list(tmp_path.rglob("config.json")):
        assert first.poll() is None, first.wait()
        time.sleep(0.02)
    status, _, errors = start(*train_command(tmp_path / "two")).wait()
    assert status == 2 and errors.count("\n") == 1
    assert errors.startswith(f"error: process {first.pid} on ") and "is writing to" in errors
    check(first, start(*train_command(tmp_path / "one")))
    assert trained(tmp_path / "two") == trained(tmp_path / "one") and not leftovers(tmp_path)
