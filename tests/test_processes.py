"""Several processes and kills: nothing lost, nothing doubled, the same numbers."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from clockwork.evaluation.rows import read_rows

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


def test_two_processes_paint_what_one_does(tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    both = evaluate(tmp_path / "two", "prompts.count=4", launcher=torchrun)
    alone = evaluate(tmp_path / "one", "prompts.count=4")
    check(both)
    check(alone)
    two, one = (read_rows(tmp_path / name / "rows.jsonl") for name in ("two", "one"))
    assert len(two) == len(one) == 1 and two[0]["digest"] == one[0]["digest"]
    assert abs(two[0]["psnr"] - one[0]["psnr"]) < 0.2  # rounding of batches only
    assert len(list((tmp_path / "two" / "pictures" / two[0]["digest"]).glob("*.png"))) == 4


def test_ctrl_c_keeps_the_pictures_and_the_same_command_goes_on(tmp_path: Path) -> None:
    begun = evaluate(tmp_path, "prompts.count=120")
    while not list(tmp_path.glob("pictures/*/*.png")):
        assert begun.poll() is None
        time.sleep(0.05)
    begun.send_signal(signal.SIGINT)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == 130 and "the same command goes on from here" in said and "Traceback" not in said
    assert not list(tmp_path.glob("pictures/*/*.partial"))
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("pictures/*/*.png")}
    assert 0 < len(kept) < 240
    check(evaluate(tmp_path, "prompts.count=120"))
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(read_rows(tmp_path / "rows.jsonl")) == 1 and len(list(tmp_path.glob("pictures/*/*.png"))) == 240
