"""A process that is killed takes the others with it: an error of one sentence, and none is left behind."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.fault_commands import evaluate_command, train_command
from helpers.processes import start, start_ranks

pytestmark = pytest.mark.slow
LOST = "error: another process has ended, or was killed"


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_the_other_process_ends_with_one_sentence(name: str, victim: int, tmp_path: Path) -> None:
    options = {"train": ["epochs=1000", "trainer.devices=2"], "evaluate": ["prompts.count=1000"]}[name]
    command = {"train": train_command, "evaluate": evaluate_command}[name](tmp_path)
    processes = start_ranks(2, *command, *options)
    wait_for(lambda: list(tmp_path.rglob({"train": "last.ckpt", "evaluate": "images/*/*.png"}[name])))
    processes[victim].send_signal(signal.SIGKILL)
    status, _, errors = processes[1 - victim].wait(timeout=60)
    assert status == 2 and errors.count(LOST) == 1 and "Traceback" not in errors, errors
    if name == "train":
        assert "; the checkpoint of epoch " in errors and "and the same command resumes from it" in errors


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_process_that_waits_for_a_killed_one_does_not_stay(tmp_path: Path) -> None:
    """Lightning's second process is halted, as one that hangs in a collective of a GPU; then the first is killed."""
    main = start(*train_command(tmp_path), "epochs=1000", "trainer.devices=2")
    wait_for(lambda: list(tmp_path.rglob("last.ckpt")))
    (child,) = [pid for pid in children(main.pid) if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(child, signal.SIGSTOP)
    main.send_signal(signal.SIGKILL)
    assert main.wait()[0] == -signal.SIGKILL
    wait_for(lambda: not is_running(child), seconds=10)
