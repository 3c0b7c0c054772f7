"""Locks, between real processes: one run at a time writes to a folder, and rows are never doubled."""

import subprocess
import sys
from pathlib import Path

import pytest

from clockwork.errors import UserError
from clockwork.evaluation.rows import append_row, read_rows
from clockwork.io.lock import lock_folder, release_folders

HOLD = """
import sys
from pathlib import Path
from clockwork.io.lock import lock_folder
lock_folder(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""
APPEND = """
import sys
from pathlib import Path
from clockwork.evaluation.rows import append_row
row = {"adaptor": "none", "schedule": "full", "steps": 8, "command": "x" * 20000}
for i in range(20):
    append_row(Path(sys.argv[1]), {**row, "digest": str(i), "metrics": {"fid": float(i)}}, True)
"""


def start(code: str, *arguments: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_folder_is_of_one_process_until_it_ends_even_by_a_kill(tmp_path: Path) -> None:
    other = start(HOLD, tmp_path)
    assert other.stdout is not None and other.stdin is not None
    assert other.stdout.readline() == b"locked\n"
    with pytest.raises(UserError, match="process 7 on a machine is writing to"):
        lock_folder(tmp_path, "process 7 on a machine")
    other.kill()
    other.wait()
    other.stdout.close()
    other.stdin.close()
    with release_folders():
        lock_folder(tmp_path)
        lock_folder(tmp_path / ".")  # the same folder, once more
        refused = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert "UserError: another process is writing to" in refused.stderr
    refused = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], input="", capture_output=True, text=True)
    assert refused.returncode == 0, refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_rows_of_several_processes_are_all_there_and_none_twice(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    processes = [start(APPEND, file) for _ in range(4)]
    assert [process.communicate()[1] or process.returncode for process in processes] == [0] * 4
    assert len(file.read_text().splitlines()) == 20 == len(read_rows(file))
    append_row(file, {**read_rows(file)[3], "latency_ms": 1.0})  # a row that knows more replaces it
    assert len(read_rows(file)) == 20 and read_rows(file)[3]["latency_ms"] == 1.0
