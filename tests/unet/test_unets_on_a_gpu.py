"""Every class of UNet on a GPU that is not there (`helpers/fake_gpu.py`), in float16, with timesteps from the host.

A tensor on the wrong device or in the wrong precision raises.
"""

from typing import Any

import pytest
import torch
from helpers.fake_gpu import GPU, FakeGPU
from helpers.unets import UNETS
from torch import Tensor

from clockwork.unet.split import SplitUNet


def moved(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: item if name == "timestep" else moved(item) for name, item in value.items()}
    if isinstance(value, Tensor):
        return value.to(GPU, torch.float16 if value.is_floating_point() else value.dtype)
    return value


@pytest.mark.parametrize("kind", UNETS)
def test_a_full_pass(kind: str) -> None:
    unet, call = UNETS[kind]()
    gpu = FakeGPU()
    with gpu.on(), torch.no_grad():
        unet, call = unet.to(GPU, torch.float16), moved(call)
        plain = unet(**call).sample
        output = SplitUNet(unet, "layer2")(**call)
    assert (output.device, output.dtype, output.shape) == (plain.device, plain.dtype, plain.shape)
    assert output.device == GPU
