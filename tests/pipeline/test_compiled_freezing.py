"""torch's option `freezing`: weights are constants of the compiled steps, but never those of an adaptor in training."""

from collections.abc import Callable

import pytest
import torch
from helpers.compiling import small_unet
from torch import Tensor

from clockwork.adaptors import NO_HISTORY, FeatureDims, ResNet
from clockwork.sampling.compiled import CompiledSteps
from clockwork.sampling.steps import EAGER, AdaptorInputs, StepFunctions, full_step
from clockwork.unet.split import SplitUNet


@pytest.mark.slow
@pytest.mark.usefixtures("empty_caches")
@torch.no_grad()
def test_frozen_weights_are_constants_and_those_of_an_adaptor_in_training_are_not() -> None:
    unet = small_unet()
    split = SplitUNet(unet, "layer1")
    call = split.arguments(torch.ones(2, 4, 8, 8), 5, torch.ones(2, 4, 16))
    features = full_step(split, call)
    dims = FeatureDims(features.r_in.shape[1], features.r_out.shape[1], features.t_emb.shape[1], 0)
    adaptor = ResNet(dims, 8, 1, ("r_in", "r_out_prev", "t_emb")).requires_grad_(False)
    for weight in adaptor.parameters():
        torch.nn.init.normal_(weight, std=0.1)  # the last ones are zero
    history = NO_HISTORY.after(adaptor, 1, features.r_in, features.r_out, features.output, full=True)
    inputs = AdaptorInputs(None, None, 2, history)
    frozen = CompiledSteps({"options": {"freezing": True}}).functions
    steps: dict[str, Callable[[StepFunctions], Tensor]] = {
        "full": lambda functions: functions.full(split, call).output,
        "adaptor": lambda functions: functions.adaptor(split, adaptor, call, inputs).output,
    }

    def is_eager(name: str) -> bool:
        """Whether a frozen step still computes what the uncompiled one does."""
        return steps[name](frozen).allclose(steps[name](EAGER), atol=1e-5)

    assert is_eager("full") and is_eager("adaptor")
    for weight in adaptor.parameters():
        weight.mul_(2)
    assert not is_eager("adaptor")
    adaptor.requires_grad_(True)
    assert is_eager("adaptor")
    for weight in adaptor.parameters():
        weight.mul_(2)
    assert is_eager("adaptor")
    unet.conv_in.weight.mul_(2)
    assert not is_eager("full")
