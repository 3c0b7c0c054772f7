"""Training with two processes: every objective ends, after the same number of steps in both."""

import json
from pathlib import Path

import pytest
import torch
from helpers.processes import start_ranks
from helpers.train_processes import OBJECTIVES, first_gradient


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    for process in start_ranks(2, "tests/helpers/train_processes.py", folder):
        status, _, errors = process.wait()
        assert status == 0, errors
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
