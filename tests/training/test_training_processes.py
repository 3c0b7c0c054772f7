"""Training with two processes: every objective ends, after the same number of steps in both."""

import json
from pathlib import Path

import pytest
import torch
from helpers.processes import start_ranks
from helpers.train_processes import OBJECTIVES, first_gradient

FAST = ("adaptor", "progressive")  # progressive stands for the objectives that train a UNet


def train(folder: Path, *objectives: str) -> None:
    """Trains the objectives, one after another, in two processes."""
    for process in start_ranks(2, "tests/helpers/train_processes.py", folder, *objectives):
        status, _, errors = process.wait()
        assert status == 0, errors


def check_steps(folder: Path, *objectives: str) -> None:
    steps = [json.loads((folder / f"steps{rank}.json").read_text()) for rank in (0, 1)]
    assert steps[0] == steps[1] and list(steps[0]) == list(objectives) and all(steps[0].values())
    teachers = set(objectives) - {"adaptor"}
    with_adaptor = {"adaptor", "consistency"} & set(objectives)  # consistency is clocked: both are trained together
    assert len(list(folder.rglob("adaptor.safetensors"))) == len(with_adaptor)
    assert len(list(folder.rglob("model_index.json"))) == len(teachers)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    train(folder, *FAST)
    return folder


def test_an_objective_ends_after_equally_many_steps(both: Path) -> None:
    check_steps(both, *FAST)


@pytest.mark.slow
def test_the_other_objectives_end_after_equally_many_steps(tmp_path: Path) -> None:
    others = [name for name in OBJECTIVES if name not in FAST]
    train(tmp_path, *others)
    check_steps(tmp_path, *others)


def test_the_gradient_is_that_of_one_process_on_both_batches(both: Path, tmp_path: Path) -> None:
    alone = first_gradient(tmp_path, 1)
    for rank in (0, 1):
        gradient = torch.load(both / f"gradient{rank}.pt", weights_only=True)
        assert gradient.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(gradient[name], value, rtol=1e-4, atol=1e-6)
    assert any(value.abs().max() > 1e-3 for value in alone.values())
