"""Adaptors that earlier versions saved, with `num_halves` and `conditional`, load with the same fingerprints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.calibration import small_sampler

import clockwork
from clockwork.adaptors import FeatureDims, FullStep, Linear, adaptor_hash
from clockwork.operating_point import OperatingPoint
from clockwork.unet.conditioning import HALVES

DIMS = FeatureDims(3, 5, 7, 0, 2)
POINT = OperatingPoint("teacher", "0" * 12, "3,4", "clock2", "dpm++", 4, 3.0, 32)


@pytest.mark.parametrize(
    ("num_halves", "options", "fingerprint"),
    [
        (2, {}, "8bafd29e5771"),
        (2, {"rank": 2}, "1edef28544f6"),
        (2, {"joint": True}, "9203e5c95dfa"),
        (1, {}, "4b25248141c6"),
        (1, {"rank": 2}, "3b749747e7ea"),
        (1, {"negative_channels": 4}, "f9a264c99ced"),
    ],
)
def test_fingerprints_are_those_of_earlier_versions(num_halves: int, options: dict[str, Any], fingerprint: str) -> None:
    """With all maps zero; rows that were measured with an adaptor are found by it."""
    assert adaptor_hash(Linear(DIMS, (2, 4), branches=HALVES[-num_halves:], **options)) == fingerprint


@pytest.mark.parametrize("num_halves", [1, 2])
def test_a_folder_of_an_earlier_version_runs_the_same(num_halves: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    adaptor = Linear(DIMS, (2, 4), branches=HALVES[-num_halves:])
    for weight in adaptor.parameters():
        torch.nn.init.normal_(weight)
    clockwork.save_adaptor(tmp_path, adaptor.requires_grad_(False), POINT)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["adaptor"]["branches"], config["operating_point"]["more_guidance"]
    config["adaptor"] |= {"num_halves": num_halves}
    config["adaptor"]["inputs"] = ["r_in", "r_out_prev", "r_in_prev", "full_steps", "step", "conditional"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded, point = clockwork.load_adaptor(tmp_path)
    assert isinstance(loaded, Linear) and loaded.branches == HALVES[-num_halves:] and point == POINT
    r_in, r_out = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 8, 8)
    past = {"r_in_prev": r_in + 1, "full_steps": (FullStep(1, r_in, r_out),) * 2, "step": 2}
    for branch in (None, torch.tensor([0, 1])):
        assert torch.equal(loaded(r_in, r_out, branch=branch, **past), adaptor(r_in, r_out, branch=branch, **past))


def test_digests_of_rows_are_those_of_earlier_versions() -> None:
    """The scales that only pipelines have are no part of what identifies a roll-out."""
    assert "more_guidance" not in small_sampler().identity() and "frames" in small_sampler().identity()
