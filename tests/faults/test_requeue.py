"""Slurm's signal before a job's time is over: the job is queued again, and ends as one that had enough time.

Lightning finds itself on Slurm by the environment of a task; `scontrol` is a script that notes its arguments.
"""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers.fault_commands import leftovers, train_command, trained
from helpers.processes import Process, start

TASK = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "1077"}
JOBS = {"1077": {}, "1070_7": {"SLURM_ARRAY_JOB_ID": "1070", "SLURM_ARRAY_TASK_ID": "7"}}
pytestmark = pytest.mark.slow


def command(folder: Path) -> list[str]:
    return [*train_command(folder), "epochs=2", "repeats_per_epoch=40"]


def signalled_once_saved(folder: Path, job: str, status: int) -> Process:
    """A training on a Slurm whose `scontrol` ends with a status, with the signal sent in its second epoch."""
    (folder / "bin").mkdir()
    script = folder / "bin" / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\necho no such job >&2\nexit {status}\n')
    script.chmod(0o755)
    environment = {**TASK, **JOBS[job], "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    process = start(*command(folder / "run"), environment=environment)
    while not list(folder.rglob("last.ckpt")):
        assert process.poll() is None, process.wait()
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGUSR1)
    return process


def test_a_job_is_queued_again_and_ends_the_same(tmp_path: Path) -> None:
    job = "1070_7"
    status, _, errors = signalled_once_saved(tmp_path, job, 0).wait()
    assert status == 128 + signal.SIGUSR1 and "Traceback" not in errors, errors
    assert f"stopped by SIGUSR1 and job {job} is queued again: the checkpoint of epoch " in errors
    assert (tmp_path / "calls").read_text() == f"requeue {job}\n"
    assert not leftovers(tmp_path) and not list(tmp_path.rglob("adaptor.safetensors"))
    for folder in ("run", "undisturbed"):
        status, _, errors = start(*command(tmp_path / folder), environment=TASK).wait()
        assert status == 0, errors
    assert trained(tmp_path / "run") == trained(tmp_path / "undisturbed")


def test_a_job_that_cannot_be_queued_again_goes_on(tmp_path: Path) -> None:
    status, _, errors = signalled_once_saved(tmp_path, "1077", 1).wait()
    assert status == 0 and len(list(tmp_path.rglob("adaptor.safetensors"))) == 1
    assert "job 1077 was not queued again, so training goes on (scontrol failed with status 1: no such job)" in errors
