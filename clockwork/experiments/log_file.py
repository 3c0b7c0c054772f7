"""What a command prints, in a file in its output folder, too."""

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO, cast

from clockwork.errors import UserError
from clockwork.io.disk import append_whole
from clockwork.io.outputs import begin_list

NAME = "clockwork.log"
SOON = 10.0  # seconds within which mistakes are noticed: a command that is refused leaves no log


class _Copied:
    """A stream whose text goes to a file, too, once the file's folder exists."""

    def __init__(self, stream: TextIO, file: Path, header: str) -> None:
        self.stream, self.file, self._waiting, self.start = stream, file, header, time.monotonic()

    def write(self, text: str) -> int:
        self._waiting += text
        if self.is_running:
            self.append()
        return self.stream.write(text)

    @property
    def is_running(self) -> bool:
        """Whether the command has run for so long that it is not refused any more."""
        return time.monotonic() - self.start > SOON

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)  # encoding, isatty, flush, …

    def note(self, text: str) -> None:
        """Writes a text to the file alone."""
        self._waiting += text

    def append(self) -> None:
        """Writes what has not been written, if the folder exists. On a full disk it waits for the next call."""
        if self.file.parent.is_dir():
            begin_list(self.file.parent)
            with suppress(UserError, OSError), self.file.open("ab", buffering=0) as log:
                append_whole(log, self._waiting.encode())
                self._waiting = ""


@contextmanager
def log_file(output: str | None, words: Sequence[str]) -> Iterator[None]:
    """Context manager that appends what its block prints to `clockwork.log` in a command's output folder.

    Args:
        output: The folder; None, or the path of an image, for no log.
        words: The command line, which is the first line, with the time.
    """
    from clockwork.experiments.run_dir import is_main_process  # imports torch, which a refused command does without

    if output is None or Path(output).suffix or not is_main_process():
        yield
        return
    header = f"{datetime.now():%Y-%m-%d %H:%M:%S} {shlex.join([Path(sys.argv[0]).name, *words])}\n"
    stream = sys.stdout
    copied = _Copied(stream, Path(output) / NAME, header)
    sys.stdout = cast(TextIO, copied)
    try:
        yield
    except BaseException as error:
        copied.note(f"ended by {type(error).__name__}: {' '.join(str(error).split())}\n")
        if copied.is_running or not isinstance(error, Exception):
            copied.append()
        raise
    else:
        copied.append()
    finally:
        sys.stdout = stream
