"""Training with two processes: every objective ends, after the same number of steps in both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.commands import ROOT
from helpers.train_processes import OBJECTIVES, first_gradient


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [*torchrun, str(ROOT / "tests" / "helpers" / "train_processes.py"), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_objective_ends_after_equally_many_steps(both: Path) -> None:
    steps = [json.loads((both / f"steps{rank}.json").read_text()) for rank in (0, 1)]
    assert steps[0] == steps[1] and steps[0].keys() == OBJECTIVES.keys() and all(steps[0].values())
    assert len(list(both.rglob("adaptor.safetensors"))) == 1 and len(list(both.rglob("model_index.json"))) == 3


def test_the_gradient_is_that_of_one_process_on_both_batches(both: Path, tmp_path: Path) -> None:
    alone = first_gradient(tmp_path, 1)
    for rank in (0, 1):
        gradient = torch.load(both / f"gradient{rank}.pt", weights_only=True)
        assert gradient.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(gradient[name], value, rtol=1e-4, atol=1e-6)
    assert any(value.abs().max() > 1e-3 for value in alone.values())
