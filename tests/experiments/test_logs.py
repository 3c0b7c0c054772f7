"""What commands print where nobody watches: a line per epoch and row, no bars, and the same in a file."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import QUICK_TRAINING, ROOT

from clockwork.errors import UserError
from clockwork.experiments.log_file import log_file
from clockwork.io.progress import hides_bars


def test_lightnings_notices_of_a_gpu_are_not_printed() -> None:
    """It sets its loggers' level when it is imported, after a command has silenced them."""
    code = (
        "from clockwork.experiments.command import _quiet_libraries; _quiet_libraries();"
        "from pytorch_lightning.accelerators.cuda import CUDAAccelerator; CUDAAccelerator.set_nvidia_flags(0)"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == printed.stderr == ""


def test_a_training_and_an_evaluation_print_lines_alone_and_keep_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clockwork.experiments.cli"]
    words = [*QUICK_TRAINING, "epochs=2", "steps=2", f"output={tmp_path}"]
    trained = subprocess.run([*command, "train", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    epochs = [line for line in trained.stdout.splitlines() if line.startswith("epoch ")]
    assert [line[:12] for line in epochs] == ["epoch 1 of 2", "epoch 2 of 2"] and "loss " in epochs[0]
    words = ["adaptor=resnet", "steps=2", "prompts.count=2", "metrics=none", f"adaptors={tmp_path}"]
    words += ["metrics.latency=false", f"output={tmp_path}"]
    measured = subprocess.run([*command, "evaluate", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert trained.stderr == measured.stderr == ""
    assert "\r" not in trained.stdout + measured.stdout and "[1/1] miniature resnet" in measured.stdout
    log = (tmp_path / "clockwork.log").read_text().splitlines()
    headers = [i for i, line in enumerate(log) if " cli.py " in line]
    assert len(headers) == 2 and headers[0] == 0
    assert log[1 : headers[1]] == trained.stdout.splitlines() and log[headers[1] + 1 :] == measured.stdout.splitlines()


def test_bars_are_for_a_terminal_or_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert hides_bars()
    monkeypatch.setitem(sys.modules, "ipykernel", io)
    assert not hides_bars()
    monkeypatch.delitem(sys.modules, "ipykernel")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert not hides_bars()


def test_a_command_that_makes_no_folder_leaves_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new"
    with pytest.raises(ValueError, match="no"), log_file(str(folder), ["steps=2"]):
        print("printed")
        raise ValueError("no")
    assert not folder.exists() and capsys.readouterr().out == "printed\n"
    folder.mkdir()
    with pytest.raises(UserError, match="refused"), log_file(str(folder), ["steps=2"]):
        raise UserError("refused")
    assert not list(folder.iterdir())
    with pytest.raises(KeyboardInterrupt), log_file(str(folder), ["steps=2"]):
        raise KeyboardInterrupt("no")
    assert "ended by KeyboardInterrupt: no" in (folder / "clockwork.log").read_text()
    with log_file(str(tmp_path / "image.png"), []):
        print("an image's path is not a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
