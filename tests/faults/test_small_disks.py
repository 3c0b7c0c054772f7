"""Commands on a disk that becomes full: one sentence with the path, and the same result once there is room."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers.fault_commands import COMMANDS, leftovers
from helpers.processes import start
from helpers.small_disk import small_disk
from PIL import Image
from safetensors.torch import load_file

SIZES = {"train": (4, 60, 250, 400), "evaluate": (4, 90, 130, 1000)}  # in kilobytes


def check_complete(folder: Path) -> None:
    """Every file with a final name can be read to its end."""
    for file in folder.rglob("*"):
        if file.suffix == ".ckpt":
            torch.load(file, weights_only=True)
        elif file.suffix == ".safetensors":
            load_file(file)
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".png":
            Image.open(file).load()
        elif file.suffix == ".jsonl":
            assert [json.loads(line) for line in file.read_text().splitlines()] and file.read_bytes().endswith(b"\n")


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_stops_a_command_with_one_sentence(name: str, tmp_path: Path) -> None:
    """Run again with more room each time. Temporary files would go to another disk; nothing is written there."""
    (command, result), sizes = COMMANDS[name], SIZES[name]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)}
    with small_disk(tmp_path / "disk", sizes[0]) as disk:
        for size in sizes:
            disk.resize(size)
            status, _, errors = start(*command(disk.folder), environment=environment).wait()
            assert status == 2 and "Traceback" not in errors, errors
            sentence = re.findall(r"^error: (\S+) cannot be written, because its disk is full: make room", errors, re.M)
            assert len(sentence) == 1 and sentence[0].startswith(str(disk.folder)), errors
            assert not leftovers(disk.folder)
            check_complete(disk.folder)
        disk.resize(65_536)
        for folder in (disk.folder, tmp_path / "undisturbed"):
            status, _, errors = start(*command(folder), environment=environment).wait()
            assert status == 0, errors
        assert result(disk.folder) == result(tmp_path / "undisturbed")
    assert {file.name for file in temporary.iterdir()} <= {".ses"}  # which a library writes


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_needs_room_for_temporary_files(name: str, tmp_path: Path) -> None:
    command, result = COMMANDS[name]
    with small_disk(tmp_path / "temporary", 64) as disk, disk.filled():
        for folder, environment in ((tmp_path / "full", {"TMPDIR": str(disk.folder)}), (tmp_path / "undisturbed", {})):
            status, _, errors = start(*command(folder), environment=environment).wait()
            assert status == 0, errors
    assert result(tmp_path / "full") == result(tmp_path / "undisturbed")
