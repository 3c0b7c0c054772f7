"""Commands in processes of their own, forked from one that has imported the heavy libraries (`fork_server.py`).

A process takes no time for imports, and is otherwise that of `python <script>`: id, signals, output, exit status.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from helpers.commands import ROOT

PATHS = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}


class Process:
    """A started command.

    Attributes:
        pid: Its process's id.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid, self._folder = pid, folder

    def poll(self) -> int | None:
        """Returns the exit status, negative for a signal as in `subprocess`; None while the process runs."""
        file = self._folder / "status"
        return int(file.read_text()) if file.is_file() else None

    def send_signal(self, number: signal.Signals) -> None:
        """Sends the process a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 240) -> tuple[int, str, str]:
        """Returns the exit status and what the process wrote on stdout and stderr, once it has ended."""
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError((self._folder / "stderr").read_text())
            time.sleep(0.02)
        return status, (self._folder / "stdout").read_text(), (self._folder / "stderr").read_text()


def start(*command: Any, environment: Mapping[str, str] | None = None) -> Process:
    """Starts a script, relative to the repository, or `-m` and a module, with its arguments."""
    folder = Path(mkdtemp())
    for name in ("stdout", "stderr"):
        (folder / name).touch()
    request = {
        "command": [str(word) for word in command],
        "environment": {**ENVIRONMENT, **(environment or {})},
        "folder": str(ROOT),
        **{name: str(folder / name) for name in ("stdout", "stderr", "status")},
    }
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return Process(int(server.stdout.readline()), folder)


def start_ranks(count: int, *command: Any) -> list[Process]:
    """Starts a command in several processes that find each other, as torchrun does."""
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    shared |= {"GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "none"}
    return [
        start(*command, environment={key: str(value) for key, value in {**shared, "RANK": i, "LOCAL_RANK": i}.items()})
        for i in range(count)
    ]


def start_tasks(count: int, *command: Any, environment: Mapping[str, str] | None = None) -> list[Process]:
    """Starts a command in several processes with the variables that `srun` of Slurm sets on one node."""
    job = {"SLURM_JOB_ID": "1077", "SLURM_JOB_NAME": "train.sh", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    job |= {"SLURM_NODELIST": "localhost", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_ID": "0"}
    sizes = ("NTASKS", "NTASKS_PER_NODE", "STEP_NUM_TASKS", "STEP_TASKS_PER_NODE")
    job |= {f"SLURM_{name}": str(count) for name in sizes}
    job |= {"MASTER_PORT": str(free_port()), **(environment or {})}  # other jobs are on this machine
    return [start(*command, environment={**job, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}) for i in range(count)]


def free_port() -> int:
    """Returns a port of this machine that nothing listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Runs `[sys.executable, …]` to its end; takes the place of `subprocess.run(…, capture_output=True, text=True)`."""
    assert command[0] == sys.executable
    status, stdout, stderr = start(*command[1:]).wait()
    return subprocess.CompletedProcess(list(command), status, stdout, stderr)


@cache
def _server() -> subprocess.Popen[str]:
    """One for the session; it ends with it."""
    command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, text=True, stdin=pipe, stdout=pipe)
    atexit.register(server.communicate)
    return server
