"""A GPU's rules on the CPU: a real-size UNet of fake tensors on cuda:0, where mixing devices or precisions raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from helpers.pipelines import reasons, solver, steps
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

import clockwork
from clockwork.adaptors import FeatureDims, ResNet, UNet
from clockwork.pipeline.enable import enabled_hook

GPU = torch.device("cuda:0")
WIDTHS = FeatureDims(320, 640, 1280, 0)  # SD v1.5 at stage1
INPUTS = ("r_in", "r_out_prev", "t_emb")


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Modules are built in it, as `from_pretrained(torch_dtype=…)` does."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def sd15(dtype: torch.dtype) -> UNet2DConditionModel:
    """Of SD v1.5's size."""
    with precision(dtype), GPU:
        return UNet2DConditionModel(cross_attention_dim=768).eval().requires_grad_(False)


ADAPTORS: dict[str, Any] = {
    "identity": lambda: None,
    "ResNet": lambda: ResNet(WIDTHS, 64, 1, INPUTS),
    "UNet": lambda: UNet(WIDTHS, 64, inputs=INPUTS),
}


class RealTimesteps(DPMSolverMultistepScheduler):
    """Sets its timesteps outside the mode, which numpy needs."""

    def set_timesteps(self, *arguments: Any, **options: Any) -> None:
        with unset_fake_temporarily():
            super().set_timesteps(*arguments, **options)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("ResNet", torch.float16),
        *(pytest.param(kind, torch.float16, marks=pytest.mark.slow) for kind in ("identity", "UNet")),
        pytest.param("ResNet", torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_a_float32_adaptor_on_a_gpu_in_half_precision(kind: str, dtype: torch.dtype) -> None:
    scheduler = solver(RealTimesteps)
    scheduler.set_timesteps(4)
    timesteps = list(scheduler.timesteps)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        pipe, adaptor = SimpleNamespace(unet=sd15(dtype), scheduler=scheduler), ADAPTORS[kind]()
        clockwork.enable(pipe, adaptor=adaptor)
        sample, text = (torch.empty(size, device=GPU, dtype=dtype) for size in ((2, 4, 64, 64), (2, 77, 768)))
        for t in timesteps:
            output = pipe.unet(sample, t, text).sample
            assert (output.shape, output.dtype, output.device) == (sample.shape, dtype, GPU)
        assert steps(pipe) == "FaFa" and not reasons(pipe)
        ran = enabled_hook(pipe).denoiser.adaptor
        assert {(w.device, w.dtype) for w in ran.parameters()} <= {(GPU, dtype)}
        if adaptor is not None:
            assert {(w.device.type, w.dtype) for w in adaptor.parameters()} == {("cpu", torch.float32)}
