"""Several processes and kills: nothing lost, nothing doubled, the same numbers."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clockwork.evaluation.rows import image_folder, read_rows

ROOT = Path(__file__).parent.parent
FEW = ["metrics=none", "metrics.latency=false", "steps=2", "adaptor=identity", "batch_size=2"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def evaluate(output: Path, *more: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, "scripts/evaluate.py", *FEW, *more, f"output={output}"]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a job in the background does not by itself
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


def check(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said


def images(folder: Path, row: dict[str, Any]) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in image_folder(folder, row).iterdir()}


@pytest.mark.parametrize(("processes", "prompts"), [(2, 5), (3, 2)])
def test_several_processes_measure_what_one_does(processes: int, prompts: int, tmp_path: Path) -> None:
    """The same images and the same figures, the reference's sums made in shares included; with three processes and two
    prompts one process has no image."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    words = ["metrics=miniature", "metrics.reference=120", f"prompts.count={prompts}"]
    running = {
        name: evaluate(tmp_path / name, *words, f"+metrics.cache={tmp_path / name / 'cache'}", launcher=launcher)
        for name, launcher in {"several": torchrun, "one": ()}.items()
    }
    for process in running.values():
        check(process)
    (several,), (one,) = (read_rows(tmp_path / name / "rows.jsonl") for name in running)
    assert images(tmp_path / "several", several) == images(tmp_path / "one", one)
    assert len(images(tmp_path / "one", one)) == prompts
    names = ("fid_miniature", "clip_score_miniature", "psnr", "ssim")
    assert {name: several[name] for name in names} == pytest.approx({name: one[name] for name in names}, rel=1e-6)
    assert {k for k in one if one[k] != several[k]} <= {"command", *names}


def test_ctrl_c_keeps_the_pictures_and_the_same_command_goes_on(tmp_path: Path) -> None:
    begun = evaluate(tmp_path, "prompts.count=120")
    while not list(tmp_path.glob("pictures/*/*.png")):
        assert begun.poll() is None
        time.sleep(0.05)
    begun.send_signal(signal.SIGINT)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == 130 and "Traceback" not in said
    assert "stopped: images and rows are kept, and the same command goes on from there" in said
    assert not list(tmp_path.glob("pictures/*/*.partial"))
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("pictures/*/*.png")}
    assert 0 < len(kept) < 240
    check(evaluate(tmp_path, "prompts.count=120"))
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(read_rows(tmp_path / "rows.jsonl")) == 1 and len(list(tmp_path.glob("pictures/*/*.png"))) == 240
