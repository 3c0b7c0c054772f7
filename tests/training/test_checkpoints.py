"""A damaged last checkpoint is named, and training goes on from the one before, to the same weights."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.training_loop import run

from clockwork.errors import UserError
from clockwork.training.checkpoints import AtomicCheckpoints, checkpoint_to_resume


def cut(share: float) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def flip(file: Path) -> None:
    """Changes a byte of the largest part of the file; between the parts there are some that nobody reads."""
    with zipfile.ZipFile(file) as parts:
        largest = max(parts.infolist(), key=lambda part: part.file_size)
        inside = parts.read(largest)
    content = bytearray(file.read_bytes())
    content[content.index(inside) + len(inside) // 2] ^= 1
    file.write_bytes(bytes(content))


DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty": cut(0),
    "a few bytes": cut(0.001),
    "half": cut(0.5),
    "all but the end": cut(0.999),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "a changed byte": flip,
    "a text": lambda file: file.write_text("a checkpoint"),
    "a git-lfs pointer": lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
    "other weights": lambda file: torch.save({"weight": torch.zeros(3)}, file),
    "a tensor": lambda file: torch.save(torch.zeros(3), file),
    "code": lambda file: torch.save({"state_dict": {}, "epoch": os.getcwd}, file),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A training of two epochs, and the weights after three."""
    two, three = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("three")
    run(two, 2)
    return two, run(three, 3).state_dict()


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_last_checkpoint_is_named(
    damage: str, trained: tuple[Path, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints"
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    DAMAGED[damage](last)
    assert checkpoint_to_resume(folder) == previous
    printed = capsys.readouterr().out
    assert printed.startswith(f"{last} is damaged (") and f"from the one before, {previous}" in printed
    assert len(printed.splitlines()) == 1
    previous.unlink()
    with pytest.raises(UserError, match=r"last\.ckpt is damaged .*remove it to train from the start"):
        checkpoint_to_resume(folder)


def test_training_from_the_one_before_ends_with_the_same_weights(
    trained: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    run(tmp_path, 2)
    cut(0.5)(tmp_path / "checkpoints" / "last.ckpt")
    resumed = run(tmp_path, 3).state_dict()
    assert all(torch.equal(resumed[name], weight) for name, weight in trained[1].items())


def test_of_undamaged_ones_the_last_is_taken(trained: tuple[Path, object], tmp_path: Path) -> None:
    folder = trained[0] / "checkpoints"
    epochs = [torch.load(folder / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("previous", "last")]
    assert epochs == [0, 1] and checkpoint_to_resume(folder) == folder / "last.ckpt"
    assert checkpoint_to_resume(tmp_path) is None


@pytest.mark.parametrize("links", [True, False])
def test_a_write_that_fails_leaves_the_last_one(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", fail)
    state = {"state_dict": {}, "epoch": 0}
    for epoch in range(3):
        AtomicCheckpoints().save_checkpoint({**state, "epoch": epoch}, tmp_path / "last.ckpt")
    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match=r"last\.ckpt cannot be written"),
    ):
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        AtomicCheckpoints().save_checkpoint(state, tmp_path / "last.ckpt")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]
    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("previous", "last")]
    assert saved == [1, 2]
