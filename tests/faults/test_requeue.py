"""Slurm's signal before a job's time is over: the job is queued again, and ends as one that had enough time.

A task is known by the variables that Slurm sets; `scontrol` is a script that notes its arguments.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers.commands import ROOT
from helpers.fault_commands import evaluate_command, leftovers, train_command, trained
from helpers.processes import ENVIRONMENT, Process, start, start_tasks

JOB = {"SLURM_JOB_ID": "1077", "SLURM_JOB_NAME": "train.sh", "SLURM_NTASKS": "2"}  # of which nobody has started two
ARRAY = {**JOB, "SLURM_ARRAY_JOB_ID": "1070", "SLURM_ARRAY_TASK_ID": "7"}
pytestmark = pytest.mark.slow


def command(folder: Path) -> list[str]:
    return [*train_command(folder), "epochs=2", "repeats_per_epoch=40"]


def with_scontrol(folder: Path, status: int = 0) -> dict[str, str]:
    """The path of commands with a `scontrol` that ends with a status."""
    (folder / "bin").mkdir()
    script = folder / "bin" / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\necho no such job >&2\nexit {status}\n')
    script.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def signal_once_saved(folder: Path, *processes: Process) -> None:
    """Sends Slurm's signal in the second epoch."""
    while not list(folder.rglob("last.ckpt")):
        assert all(process.poll() is None for process in processes), [process.wait() for process in processes]
        time.sleep(0.02)
    time.sleep(0.2)
    for process in processes:
        process.send_signal(signal.SIGUSR1)


def handles_signal(process: Process) -> bool:
    return has_signal(process.pid, "SigCgt:")


def has_signal(pid: int, mask: str) -> bool:
    """Whether a process catches Slurm's signal (`SigCgt:`), or blocks it (`SigBlk:`)."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    return bool(int(status[status.index(mask) + 1], 16) >> (signal.SIGUSR1 - 1) & 1)


@pytest.mark.parametrize(("job", "name"), [(JOB, "1077"), (ARRAY, "1070_7")])
def test_a_job_is_queued_again_and_ends_the_same(job: Mapping[str, str], name: str, tmp_path: Path) -> None:
    process = start(*command(tmp_path / "run"), environment={**job, **with_scontrol(tmp_path)})
    signal_once_saved(tmp_path, process)
    status, _, errors = process.wait()
    assert status == 128 + signal.SIGUSR1 and "Traceback" not in errors, errors
    assert f"stopped by SIGUSR1 and job {name} is queued again: the checkpoint of epoch " in errors
    assert (tmp_path / "calls").read_text() == f"requeue {name}\n"
    assert not leftovers(tmp_path) and not list(tmp_path.rglob("adaptor.safetensors"))
    for folder in ("run", "undisturbed"):
        status, _, errors = start(*command(tmp_path / folder), environment=job).wait()
        assert status == 0, errors
    assert trained(tmp_path / "run") == trained(tmp_path / "undisturbed")


def test_a_job_that_cannot_be_queued_again_goes_on(tmp_path: Path) -> None:
    process = start(*command(tmp_path / "run"), environment={**JOB, **with_scontrol(tmp_path, status=1)})
    signal_once_saved(tmp_path, process)
    status, _, errors = process.wait()
    assert status == 0 and len(list(tmp_path.rglob("adaptor.safetensors"))) == 1
    assert "job 1077 was not queued again, so this run goes on (scontrol failed with status 1: no such job)" in errors


def test_two_tasks_queue_their_job_again_once(tmp_path: Path) -> None:
    tasks = start_tasks(2, *command(tmp_path / "run"), environment=with_scontrol(tmp_path))
    signal_once_saved(tmp_path, *tasks)
    (status, _, errors), (second, _, of_second) = (task.wait(timeout=60) for task in tasks)
    assert status == 128 + signal.SIGUSR1 and second == 2, of_second
    assert "Traceback" not in errors + of_second and "; the checkpoint of epoch " in of_second
    assert (tmp_path / "calls").read_text() == "requeue 1077\n"
    for folder in ("run", "undisturbed"):
        for task in start_tasks(2, *command(tmp_path / folder)):
            assert task.wait()[0] == 0
    assert trained(tmp_path / "run") == trained(tmp_path / "undisturbed")


LOADING = {
    "train": lambda folder: [*train_command(folder), "prompts.count=null"],  # the captions take seconds to make
    "calibrate": lambda folder: ["scripts/calibrate.py", f"output={folder}"],
    "evaluate": evaluate_command,
}


@pytest.mark.parametrize("name", LOADING)
def test_a_job_is_queued_again_while_it_loads(name: str, tmp_path: Path) -> None:
    process = start(*LOADING[name](tmp_path / "run"), environment={**JOB, **with_scontrol(tmp_path)})
    while not handles_signal(process):
        assert process.poll() is None, process.wait()
        time.sleep(0.005)
    process.send_signal(signal.SIGUSR1)
    status, _, errors = process.wait()
    assert status == 128 + signal.SIGUSR1 and (tmp_path / "calls").read_text() == "requeue 1077\n", errors
    (sentence,) = errors.splitlines()
    assert sentence.startswith("stopped by SIGUSR1 and job 1077 is queued again: ")
    assert not list((tmp_path / "run").rglob("*.ckpt")) and not leftovers(tmp_path)


def test_a_signal_during_the_imports_is_kept(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, **JOB, **with_scontrol(tmp_path)}
    command = [sys.executable, "scripts/calibrate.py", f"output={tmp_path / 'run'}"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not has_signal(process.pid, "SigBlk:"):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGUSR1)
        errors = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGUSR1, errors
    assert errors.startswith("stopped by SIGUSR1 and job 1077 is queued again: ")
    assert (tmp_path / "calls").read_text() == "requeue 1077\n"
