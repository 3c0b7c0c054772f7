"""What calibrated adaptors cost at real size: FLOPs beside the identity's, parameters, and the sums of a fit."""

from functools import cache

import pytest
import torch
from diffusers import UNet2DConditionModel

from clockwork.adaptors import FeatureDims, Identity, Linear
from clockwork.calibration.statistics import Moments
from clockwork.flops.cost import PartFlops, part_flops
from clockwork.sampling.feature_shapes import dims_of_features, meta_call
from clockwork.teachers.architectures import architecture
from clockwork.unet.split import SplitUNet

SIDES = {"sd15": 64, "sdxl": 128}


@cache
def parts_of(name: str, cut: str) -> tuple[PartFlops, FeatureDims]:
    """Of the real UNet, without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**architecture(name))
    parts = part_flops(SplitUNet(unet, cut), meta_call(unet, (4, SIDES[name], SIDES[name])))
    return parts, dims_of_features(parts.r_in, parts.r_out, parts.t_emb, 0)


def relative_cost(name: str, cut: str, rank: int | None = None, joint: bool = False) -> float:
    """FLOPs of an adaptor pass, in those of the identity adaptor."""
    parts, dims = parts_of(name, cut)
    with torch.device("meta"):
        linear, identity = Linear(dims, (2, 4, 6, 8), rank=rank, joint=joint), Identity(dims)
    return parts.adaptor_pass(linear).full / parts.adaptor_pass(identity).full


@pytest.mark.parametrize(
    ("name", "cut", "rank", "bar"),
    [
        ("sd15", "stage1", None, 1.01),
        ("sd15", "stage1_upsampled", None, 1.03),  # at four times the positions; r_in is mapped before it is enlarged
        pytest.param("sdxl", "stage1", None, 1.021, marks=pytest.mark.slow),
        pytest.param("sdxl", "stage1", 448, 1.02, marks=pytest.mark.slow),
        ("sd15", "layer1", None, 1.07),
        ("sd15", "layer1", 201, 1.05),  # the largest rank within five percent
    ],
)
def test_adaptor_steps_cost_little_more_than_the_identitys(name: str, cut: str, rank: int | None, bar: float) -> None:
    assert bar - 0.01 < relative_cost(name, cut, rank) <= bar


def test_sizes_at_stage_1() -> None:
    """Of SD v1.5; SDXL has as many channels there (docs/calibration.md)."""
    dims = parts_of("sd15", "stage1")[1]
    assert dims == FeatureDims(320, 640, 1280, 0)
    with torch.device("meta"):
        adaptor = Linear(dims, (2,))
    assert adaptor.num_inputs == 2240
    assert sum(p.numel() for p in adaptor.parameters()) == 2 * 2241 * 640  # 2.9 million per step
    sums = Moments.zeros(2, adaptor.num_inputs + 1, dims.r_out, "meta")
    assert round(sums.products.nbytes / 1e6) == 266


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("convention", ["macs", "paper", "full"])
def test_every_convention_counts_the_maps(convention: str, joint: bool) -> None:
    """By hand at stage 1 of SD v1.5: 2,240 inputs, 640 outputs and 32 × 32 positions, two operations each.

    Joint maps have the inputs of both halves.
    """
    parts, dims = parts_of("sd15", "stage1")
    with torch.device("meta"):
        passes = parts.adaptor_pass(Linear(dims, (2,), joint=joint)), parts.adaptor_pass(Identity(dims))
    difference = getattr(passes[0], convention) - getattr(passes[1], convention)
    assert difference == 2240 * 640 * 32**2 * (1 if convention == "macs" else 2) * (2 if joint else 1)
