"""The process that `processes.py` starts: it imports the heavy libraries once, then forks a process per command.

Reads one request per line on stdin, as JSON, and answers with the process's id. When a process ends, its exit status is
written to the request's `status` file. Each process runs its script as `python <script>` does, but for the imports.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULES = (
    "clockwork.evaluation.harness",
    "clockwork.experiments.build",
    "clockwork.experiments.calibrate",
    "clockwork.experiments.train",
    "clockwork.reports.loggers",
    "matplotlib.pyplot",
    "open_clip",
)
status_files: dict[int, Path] = {}


def write_statuses(*_: Any) -> None:
    """Writes the exit status of every process that has ended. A signal can call it again while it runs: each process is
    waited for once, by whichever call gets it."""
    with suppress(ChildProcessError):  # none is left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            process, status = ended
            file = status_files.pop(process)
            partial = file.with_suffix(".partial")
            partial.write_text(str(os.waitstatus_to_exitcode(status)))
            partial.rename(file)


def serve() -> list[str]:
    """Forks a process per request; returns the command in each of them."""
    for line in sys.stdin:
        request = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        process = os.fork()
        if process == 0:
            become(request)
            return list(request["command"])
        status_files[process] = Path(request["status"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(process, flush=True)
    sys.exit()


def become(request: dict[str, Any]) -> None:
    """Gives a new process the files, the environment and the signal handlers that it would have after `exec`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY
        os.dup2(os.open(request.get(name, os.devnull), flags), descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # chosen again, by the environment
    os.chdir(request["folder"])


if __name__ == "__main__":
    os.environ["DIFFUSERS_VERBOSITY"] = "error"  # as the commands set it before the import
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # or the first collection in each process would copy all of the memory that they share
    signal.signal(signal.SIGCHLD, write_statuses)
    command = serve()
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path[0] = str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")
