"""The linear adaptor: each term, step and half of guidance by hand; and its folder."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clockwork.adaptors import FeatureDims, FullStep, Linear, load_adaptor, save_adaptor
from clockwork.adaptors.linear import TERMS
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint

POINT = OperatingPoint("teacher", "0", "3,4", "clock2", "dpm++", 4, 3.0, 64)


def random_adaptor(rank: int | None = None, upscale: int = 1, joint: bool = False) -> Linear:
    torch.manual_seed(0)
    adaptor = Linear(FeatureDims(3, 5, 7, 0, upscale), (2, 4), TERMS, rank=rank, joint=joint).double()
    for weight in adaptor.parameters():
        torch.nn.init.normal_(weight)
    return adaptor.requires_grad_(False)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("joint", [False, True])
def test_linear_is_a_matrix_per_step_and_half(rank: int | None, upscale: int, joint: bool) -> None:
    """Against the concatenated terms, interpolated first, and a convolution of each example by its own weights.

    If joint, each reads the terms of both halves of its caption, the unconditional ones first.
    """
    adaptor = random_adaptor(rank, upscale, joint)
    size = 4 * upscale
    r_in, r_in_prev, *r_ins = (torch.randn(4, 3, 4, 4, dtype=torch.double) for _ in range(4))
    r_out_prev, *r_outs = (torch.randn(4, 5, size, size, dtype=torch.double) for _ in range(3))
    full_steps = tuple(FullStep(3 - 2 * i, r_ins[i], r_outs[i]) for i in range(2))
    branch = torch.tensor([0, 0, 1, 1])
    past = {"r_in_prev": r_in_prev, "full_steps": full_steps}
    r_out = adaptor(r_in, r_out_prev, step=4, branch=branch, **past)

    terms = [r_out_prev, r_in, r_in - r_in_prev, r_outs[0] - r_outs[1], r_ins[0] - r_ins[1]]
    x = torch.cat([F.interpolate(term, size=(size, size)) for term in terms], 1)
    if joint:
        x = torch.cat([x[:2], x[2:]], 1).repeat(2, 1, 1, 1)
    for i, half in enumerate(branch):
        weight = adaptor.weight[1, half] if adaptor.up is None else adaptor.up[1, half] @ adaptor.weight[1, half]
        expected = r_out_prev[i] + F.conv2d(x[i], weight[..., None, None], adaptor.bias[1, half])
        assert torch.allclose(r_out[i], expected)
    all_conditional = adaptor(
        r_in[2:],
        r_out_prev[2:],
        step=4,
        **{
            "r_in_prev": r_in_prev[2:],
            "full_steps": tuple(FullStep(f.step, f.r_in[2:], f.r_out[2:]) for f in full_steps),
        },
    )
    if not joint:
        assert torch.allclose(all_conditional, r_out[2:]), "without guidance all examples are conditional"
        return
    doubled = {
        "r_in_prev": r_in_prev[2:].repeat(2, 1, 1, 1),
        "full_steps": tuple(
            FullStep(f.step, f.r_in[2:].repeat(2, 1, 1, 1), f.r_out[2:].repeat(2, 1, 1, 1)) for f in full_steps
        ),
    }
    now = r_in[2:].repeat(2, 1, 1, 1), r_out_prev[2:].repeat(2, 1, 1, 1)
    r_out = adaptor(*now, step=4, branch=branch, **doubled)
    assert torch.allclose(all_conditional, r_out[2:]), "an example without the other half is taken for both"


def test_a_step_without_a_map_takes_the_nearest_and_a_missing_past_counts_as_zero() -> None:
    adaptor = random_adaptor()
    r_in, r_out_prev = torch.randn(1, 3, 4, 4).double(), torch.randn(1, 5, 4, 4).double()
    zeros = FullStep(1, r_in, r_out_prev), FullStep(1, r_in, r_out_prev)
    without = adaptor(r_in, r_out_prev, step=2)
    assert torch.allclose(without, adaptor(r_in, r_out_prev, r_in_prev=r_in, full_steps=zeros, step=2))
    assert torch.equal(without, adaptor(r_in, r_out_prev, step=1))
    assert torch.equal(adaptor(r_in, r_out_prev, step=4), adaptor(r_in, r_out_prev, step=20))
    assert not torch.equal(without, adaptor(r_in, r_out_prev, step=4))


@pytest.mark.parametrize(("rank", "joint"), [(None, False), (2, False), (None, True), (2, True)])
def test_a_linear_adaptor_is_an_ordinary_folder(tmp_path: Path, rank: int | None, joint: bool) -> None:
    adaptor = random_adaptor(rank, joint=joint).float()
    save_adaptor(tmp_path, adaptor, POINT, calibration={"seconds": 1.0})
    loaded, point = load_adaptor(tmp_path)
    assert isinstance(loaded, Linear) and point == POINT == loaded.point
    assert (loaded.steps, loaded.terms, loaded.rank, loaded.joint) == ((2, 4), TERMS, rank, joint)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in adaptor.state_dict().items())
    save_adaptor(tmp_path / "again", loaded)
    with pytest.raises(UserError, match="operating point is unknown"):
        save_adaptor(tmp_path / "without", random_adaptor())


def test_the_model_card_holds_the_errors_of_the_fits(tmp_path: Path) -> None:
    """Of an adaptor that `clockwork.calibrate` has fitted, without passing them on."""
    adaptor = random_adaptor().float()
    fits = [{"step": 2, "error": 0.1, "identity_error": 0.5}]
    adaptor.calibration = {"prompts": 5, "seconds": 1.25, "steps": fits}
    save_adaptor(tmp_path, adaptor, POINT)
    card = (tmp_path / "README.md").read_text()
    assert "in closed form on 5 captions in 1.25 seconds" in card and "| 2 | 0.100 | 0.500 |" in card


def test_wrong_arguments() -> None:
    dims = FeatureDims(3, 5, 7, 0)
    for steps, terms in (((), TERMS), ((2,), ()), ((2,), ("r_in", "r_out"))):
        with pytest.raises(UserError, match="needs adaptor steps, and terms of r_out_prev"):
            Linear(dims, steps, terms)
    with pytest.raises(UserError, match="start with a full step"):
        Linear(dims, (2,))(torch.zeros(1, 3, 2, 2), None)
