"""Atomic writes: what a failure, Ctrl-C, a kill or another writer leaves behind."""

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from clockwork.errors import UserError
from clockwork.evaluation.rows import commit
from clockwork.io.atomic import atomic_folder, atomic_write
from clockwork.miniature.training import Recipe

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
Atomic = Callable[[Path], AbstractContextManager[Path]]
both = pytest.mark.parametrize("atomic", [atomic_write, atomic_folder])


def fill(place: Path, folder: bool, text: str) -> None:
    if folder:
        (place / "below").mkdir(parents=True)
        (place / ".clockwork").touch()
        (place / "name").write_text(text)
        (place / "below" / "name").write_text(text)
    else:
        place.write_text(text)


def content(place: Path) -> str:
    """The one text that a file, or every file of a folder, holds."""
    below = [file for file in place.rglob("*") if file.is_file() and file.name != ".clockwork"]
    files = below if place.is_dir() else [place]
    (text,) = {file.read_text() for file in files}
    assert len(files) == (2 if place.is_dir() else 1)
    return text


@both
def test_new_content_replaces_old(tmp_path: Path, atomic: Atomic) -> None:
    target = tmp_path / "made" / "target.txt"
    for text in ("old", "new"):
        with atomic(target) as partial:
            fill(partial, atomic is atomic_folder, text)
    assert content(target) == "new" and list(target.parent.iterdir()) == [target]


@both
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_writer_that_stops_leaves_what_was_there(tmp_path: Path, atomic: Atomic, error: type[BaseException]) -> None:
    target = tmp_path / "target"
    fill(target, atomic is atomic_folder, "old")
    with pytest.raises(error), atomic(target) as partial:
        fill(partial, atomic is atomic_folder, "new")
        raise error
    assert content(target) == "old" and list(tmp_path.iterdir()) == [target]


@both
def test_an_old_folder_stays_when_the_new_one_cannot_be_placed(
    tmp_path: Path, atomic: Atomic, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, move = tmp_path / "target", {atomic_write: "replace", atomic_folder: "rename"}[atomic]
    fill(target, atomic is atomic_folder, "old")
    moved = getattr(Path, move)
    monkeypatch.setattr("clockwork.io.atomic._exchange", lambda *_: False)  # as where the system has no exchange

    def full(self: Path, to: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return moved(self, to)

    monkeypatch.setattr(Path, move, full)
    with (
        pytest.raises(UserError, match="target cannot be written, because its disk"),
        atomic(target) as partial,
    ):
        fill(partial, atomic is atomic_folder, "new")
    assert content(target) == "old" and list(tmp_path.iterdir()) == [target]


WRITER = f"""
import signal
import sys
from pathlib import Path
from clockwork.io.atomic import atomic_folder, atomic_write

{inspect.getsource(fill)}
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background does not heed by itself
atomic, target, text, times = sys.argv[1:]
atomic = globals()[atomic]
for _ in range(int(times)):
    with atomic(Path(target)) as partial:
        fill(partial, atomic is atomic_folder, text)
        if text == "stop":
            print("half-way", flush=True)
            sys.stdin.read()
"""


def writer(atomic: Atomic, target: Path, text: str, times: int = 1) -> subprocess.Popen[str]:
    name = getattr(atomic, "__name__", "")
    command = [sys.executable, "-c", WRITER, name, str(target), text, str(times)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, text=True, **pipes)


@both
def test_many_writers_at_once_all_succeed(tmp_path: Path, atomic: Atomic) -> None:
    """600 writes of one name, by threads and by processes: none fails, and what stays is one writer's alone."""
    target = tmp_path / "target"

    def write(text: str) -> None:
        with atomic(target) as partial:
            fill(partial, atomic is atomic_folder, text)

    others = [writer(atomic, target, f"process {number}", 100) for number in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [f"thread {number}" for number in range(400)]))
    for other in others:
        _, error = other.communicate(timeout=60)
        assert other.returncode == 0, error
    assert content(target).startswith(("thread", "process")) and list(tmp_path.iterdir()) == [target]


@both
def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path: Path, atomic: Atomic) -> None:
    stopped = writer(atomic, tmp_path / "target", "stop")
    assert stopped.stdout is not None and stopped.stdout.readline() == "half-way\n"
    stopped.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in stopped.communicate(timeout=60)[1]
    assert not list(tmp_path.iterdir())


@both
def test_the_next_run_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path, atomic: Atomic) -> None:
    folder = atomic is atomic_folder
    fill(tmp_path / "target.partial", folder, "a user's own")
    killed, running = (writer(atomic, tmp_path / "target", "stop") for _ in range(2))
    for process in (killed, running):
        assert process.stdout is not None and process.stdout.readline() == "half-way\n"
    killed.kill()
    killed.communicate(timeout=60)
    assert len(list(tmp_path.iterdir())) == 3 and not (tmp_path / "target").exists()
    with atomic(tmp_path / "target") as partial:
        fill(partial, folder, "new")
    assert content(tmp_path / "target") == "new" and content(tmp_path / "target.partial") == "a user's own"
    assert len(list(tmp_path.iterdir())) == 3  # the third is the running writer's
    running.communicate(timeout=60)
    assert running.returncode == 0 and content(tmp_path / "target") == "stop" and len(list(tmp_path.iterdir())) == 2


def test_a_folder_moved_aside_by_a_killed_run_comes_back(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from clockwork.io import atomic

atomic._exchange = lambda *_: False  # as where the system has no exchange
rename = Path.rename
Path.rename = lambda self, to: os.kill(os.getpid(), 9) if self.name.endswith(".partial") else rename(self, to)
with atomic.atomic_folder(Path(sys.argv[1])) as partial:
    partial.mkdir()
"""
    fill(tmp_path / "target", True, "old")
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "target"], env=ENVIRONMENT, check=False)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "target").exists()
    with atomic_write(tmp_path / "another") as partial:
        partial.touch()
    assert content(tmp_path / "target") == "old" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_folder_is_there_at_every_moment_of_its_replacement(tmp_path: Path, when: str) -> None:
    code = """
import os, sys
from pathlib import Path
from clockwork.io import atomic

target, when, exchange = Path(sys.argv[1]), sys.argv[2], atomic._exchange

def killed(one, other):
    done = when == "after" and exchange(one, other)
    os.kill(os.getpid(), 9)

atomic._exchange = killed
with atomic.atomic_folder(target) as partial:
    (partial / "below").mkdir(parents=True)
    for file in (partial / "name", partial / "below" / "name"):
        file.write_text("new")
"""
    fill(tmp_path / "target", True, "old")
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "target", when], env=ENVIRONMENT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert content(tmp_path / "target") == {"before": "old", "after": "new"}[when]
    with atomic_write(tmp_path / "another") as partial:
        partial.touch()
    assert len(list(tmp_path.iterdir())) == 2


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert commit() is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None


def test_a_stage_stopped_while_it_saves_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe takes a folder that is there for a finished stage."""

    def stopped(self: object, folder: Path, **_: object) -> None:
        fill(Path(folder), True, "half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusers.AutoencoderKL.save_pretrained", stopped)
    optimisation = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}
    with pytest.raises(KeyboardInterrupt):
        Recipe(tmp_path).autoencoder(optimisation, {"accelerator": "cpu"})
    assert not (tmp_path / "vae").exists()
