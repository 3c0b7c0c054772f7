"""A disk that becomes full: what is written is complete or as it was, and one sentence names it."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.adaptors import POINT, SMALL
from helpers.linear import random_linear
from helpers.small_disk import SmallDisk, small_disk

from clockwork.adaptors import save_adaptor
from clockwork.calibration.progress import Progress, StepMaps
from clockwork.data.image_io import write_image
from clockwork.errors import UserError
from clockwork.evaluation.per_image import PerImage, write_per_image
from clockwork.evaluation.rows import append_row
from clockwork.io.atomic import atomic_folder
from clockwork.io.disk import forbidden_path_message, full_disk_message
from clockwork.reports.csv_logger import AtomicCSVLogger
from clockwork.training.checkpoints import AtomicCheckpoints


def random(version: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(version))


def checkpoint(folder: Path, version: int) -> None:
    AtomicCheckpoints().save_checkpoint({"state_dict": {"w": random(version, 30_000)}}, folder / "last.ckpt")


def image(folder: Path, version: int) -> None:
    write_image(folder / "0.png", (random(version, 3, 200, 200) * 255).to(torch.uint8))


def adaptor(folder: Path, version: int) -> None:
    """The weights would fit, but not the config as well."""
    text = {"notes": "word " * 20_000} if version == 2 else {}
    save_adaptor(folder, random_linear(SMALL, [2], scale=version), POINT, **text)


def progress(folder: Path, version: int) -> None:
    maps = StepMaps(random(version, 2, 200, 80), random(version, 2, 200))
    Progress({1: maps}, []).save(folder / "progress0.safetensors", "digest")


def per_image(folder: Path, version: int) -> None:
    figures = random(version, 5_000).numpy().astype(np.float32)
    write_per_image(folder, "digest", PerImage([str(i) for i in range(len(figures))], {"psnr": figures}))


def row(folder: Path, version: int) -> None:
    append_row(folder / "rows.jsonl", {"digest": str(version), "command": "x" * 70_000})


def teacher(folder: Path, version: int) -> None:
    with atomic_folder(folder / "teacher") as partial:
        for part in ("unet", "vae"):
            (partial / part).mkdir(parents=True)
            (partial / part / "weights").write_bytes(bytes([version]) * 40_000)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    writer.__name__: writer for writer in (checkpoint, image, adaptor, progress, per_image, row, teacher)
}


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with small_disk(tmp_path_factory.mktemp("full") / "disk", 1024) as disk:
        yield disk


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): contents(file) for file in folder.rglob("*") if file.is_file()}


def contents(file: Path) -> bytes:
    """The bytes, in an order of their own for safetensors, which writes its metadata in a random one."""
    read = file.read_bytes()
    return bytes(sorted(read)) if file.suffix == ".safetensors" else read


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_cut_off_and_the_next_try_succeeds(name: str, mounted: SmallDisk, tmp_path: Path) -> None:
    """At every amount of room; then with enough of it the files are those of a disk that was never full."""
    write, place = WRITERS[name], mounted.folder / name
    place.mkdir()
    write(place, 1)
    before = files(place)
    for room in (0, 8, 32, 60):
        with mounted.filled(room), pytest.raises(UserError) as error:
            write(place, 2)
        named = re.fullmatch(
            r"(\S+) cannot be written, because its disk is full: make room, and run the same .*", str(error.value)
        )
        assert named is not None and named[1].startswith(str(place)) and ".partial" not in named[1], error.value
        assert files(place) == before
    write(place, 2)
    for version in (1, 2):
        write(tmp_path, version)
    assert files(place) == files(tmp_path) != before
    shutil.rmtree(place)


def test_the_log_of_a_training_has_complete_lines_alone(mounted: SmallDisk) -> None:
    logger = AtomicCSVLogger(mounted.folder, name="log")
    logger.log_metrics({"loss": 0.5}, 0)
    logger.save()
    before = files(mounted.folder / "log")
    logger.log_metrics({"loss": 0.25}, 1)
    with mounted.filled():
        with pytest.raises(UserError, match=r"metrics\.csv cannot be written"):
            logger.save()
        logger.finalize("failed")  # replaces no other error
        assert files(mounted.folder / "log") == before
    logger.save()
    (content,) = files(mounted.folder / "log").values()
    assert content.decode().split() == ["loss,step", "0.5,0", "0.25,1"]


def test_other_errors_are_not_about_disks() -> None:
    assert full_disk_message(OSError(errno.EACCES, "Permission denied"), Path("file")) is None
    assert full_disk_message(RuntimeError("28")) is None
    elsewhere = OSError(errno.EDQUOT, "Disk quota exceeded", "/temporary/file")
    assert str(full_disk_message(elsewhere, Path("file"))).startswith(
        "/temporary/file cannot be written, because the quota"
    )


def test_a_path_that_may_not_be_used(tmp_path: Path) -> None:
    """Errors of the system as it raises them, those of names and of files among folders for real."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for path, reason in {
        tmp_path / ("a" * 300): "file name too long",
        tmp_path / "file" / "x": "not a directory",
        tmp_path: "is a directory",
        tmp_path / "loop": "too many levels of symbolic links",
    }.items():
        with pytest.raises(OSError, match=r".") as caught:
            path.write_text("x")
        assert f"cannot be read or written ({reason}): choose another path" in str(forbidden_path_message(caught.value))
    for number in (errno.EACCES, errno.EPERM, errno.EROFS):
        message = str(forbidden_path_message(OSError(number, os.strerror(number), "/data/rows.jsonl")))
        assert message.startswith("/data/rows.jsonl cannot be read or written (")
    assert forbidden_path_message(OSError(errno.EACCES, "Permission denied")) is None
    assert forbidden_path_message(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
