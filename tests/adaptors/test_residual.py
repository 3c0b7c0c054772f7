"""A correction on top of a frozen adaptor: its start, its gradient, its inputs, and its folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.adaptors import POINT, SMALL
from torch import Tensor

from clockwork.adaptors import (
    HISTORY_INPUTS,
    INPUTS,
    Adaptor,
    FeatureDims,
    FullStep,
    Identity,
    Linear,
    Residual,
    ResNet,
    UNet,
    adaptor_hash,
    load_adaptor,
    save_adaptor,
)
from clockwork.errors import UserError

CORRECTIONS = [ResNet(SMALL, 16, 1), UNet(SMALL, 16, 2)]


def linear() -> Linear:
    """With random maps."""
    torch.manual_seed(0)
    adaptor = Linear(FeatureDims(SMALL.r_in, SMALL.r_out, SMALL.t_emb, 0), (2, 4))
    for weight in adaptor.parameters():
        torch.nn.init.normal_(weight)
    return adaptor


def call(dtype: torch.dtype = torch.float32) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The inputs of step 4, for both halves of guidance."""
    rng = torch.Generator().manual_seed(1)
    r_in, r_in_prev, *r_ins = (torch.randn(2, 8, 6, 6, generator=rng).to(dtype) for _ in range(4))
    r_out_prev, *r_outs = (torch.randn(2, 12, 6, 6, generator=rng).to(dtype) for _ in range(3))
    embeddings = (torch.randn(2, width, generator=rng).to(dtype) for width in (16, 10))
    full_steps = tuple(FullStep(step, *features) for step, *features in zip((3, 1), r_ins, r_outs, strict=False))
    past = {"r_in_prev": r_in_prev, "full_steps": full_steps, "step": 4, "branch": torch.tensor([0, 1])}
    return (r_in, r_out_prev, *embeddings), past


def base_estimate(base: Adaptor, dtype: torch.dtype = torch.float32) -> Tensor:
    inputs, past = call(dtype)
    r_out: Tensor = base(*inputs, **past)
    return r_out


@pytest.mark.parametrize("correction", CORRECTIONS, ids=["resnet", "unet"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_starts_at_the_base_bit_for_bit(correction: Adaptor, dtype: torch.dtype) -> None:
    adaptor = Residual(linear(), correction).to(dtype)
    inputs, past = call(dtype)
    assert torch.equal(adaptor(*inputs, **past), base_estimate(adaptor.base, dtype))
    assert set(adaptor.inputs) == {*INPUTS, *HISTORY_INPUTS} and adaptor.dims == SMALL
    correction.float()


def test_the_correction_is_added_to_the_estimate_and_alone_has_gradients() -> None:
    """A transposed convolution with only a bias adds that bias; the ResNet also reads the base's estimate."""
    correction = ResNet(SMALL, 16, 1)
    adaptor = Residual(linear(), correction)
    correction.up.bias.data.fill_(0.5)
    inputs, past = call()
    estimate = base_estimate(adaptor.base)
    r_out = adaptor(*inputs, **past)
    assert torch.equal(r_out, estimate + 0.5)
    assert torch.equal(r_out, correction(inputs[0], estimate, *inputs[2:]))
    r_out.square().sum().backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in adaptor.base.parameters())
    assert correction.up.weight.grad is not None


def test_on_the_identity_it_is_the_correction_itself() -> None:
    """The base may read less than the correction does."""
    (r_in, r_out_prev, *embeddings), _ = call()
    correction = ResNet(SMALL, 16, 1)
    torch.nn.init.normal_(correction.up.weight)
    adaptor = Residual(Identity(SMALL), correction)
    assert adaptor.inputs == INPUTS
    assert torch.equal(adaptor(r_in, r_out_prev, *embeddings), correction(r_in, r_out_prev, *embeddings))


def test_its_folder_holds_both_weights(tmp_path: Path) -> None:
    correction = ResNet(SMALL, 16, 1, ("r_in", "r_out_prev", "t_emb"))
    torch.nn.init.normal_(correction.up.weight)
    adaptor = Residual(linear(), correction)
    save_adaptor(tmp_path, adaptor, POINT)
    loaded, point = load_adaptor(tmp_path)
    assert isinstance(loaded, Residual) and isinstance(loaded.base, Linear) and point == POINT
    assert loaded.inputs == adaptor.inputs and "text_emb" not in loaded.inputs
    assert adaptor_hash(loaded) == adaptor_hash(adaptor)
    inputs, past = call()
    assert torch.equal(loaded(*inputs, **past), adaptor(*inputs, **past))


def test_parts_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UserError, match="resnet adaptor does not read r_out_prev, which the estimate of the linear"):
        Residual(linear(), ResNet(SMALL, 16, 1, ("r_in", "t_emb")))
    with pytest.raises(UserError, match=r"other features than the resnet adaptor: \(8, 12, 1\) and \(4, 12, 1\)"):
        Residual(linear(), ResNet(FeatureDims(4, 12, 16, 10), 16, 1))
