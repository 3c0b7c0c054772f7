"""Two processes calibrate as one does, from different states of an earlier calibration, too."""

from pathlib import Path

import pytest
import torch
from helpers.calibrate_processes import calibrate
from helpers.processes import start_ranks


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    for process in start_ranks(2, "tests/helpers/calibrate_processes.py", folder):
        status, _, errors = process.wait()
        assert status == 0, errors
    return folder


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    """The maps of one process."""
    return calibrate(None).adaptor.state_dict()


@pytest.mark.parametrize("attempt", ["first", "second"])
def test_both_have_the_maps_of_one_process(both: Path, alone: dict[str, torch.Tensor], attempt: str) -> None:
    """Shares differ by a caption. Before the second, one process has fitted all steps, and the other none."""
    maps = [torch.load(both / f"{attempt}{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, expected in alone.items():
        assert torch.equal(maps[0][name], maps[1][name])
        assert (maps[0][name] - expected).norm() < 1e-3 * expected.norm()


def test_both_refuse_too_few_captions(both: Path) -> None:
    messages = {(both / f"error{rank}.txt").read_text() for rank in (0, 1)}
    assert len(messages) == 1 and messages.pop().startswith("2 captions are too few")
