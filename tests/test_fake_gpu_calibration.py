"""Calibration of SD v1.5 and SDXL in float16 on a GPU that is not there (`helpers/fake_gpu.py`): devices, precisions,
what the host waits for, memory.

The sums and the equations are run, too. What depends on values, the choice of a ridge and the figures, is left out.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.fake_gpu import GPU
from helpers.real_size import CAPTIONS, RealSize, alone, few_layers, switched_on

from clockwork.adaptors import Identity
from clockwork.calibration import denoiser as calibrating
from clockwork.calibration.fit import Calibrated, calibrate_sampler
from clockwork.calibration.least_squares import NormalEquations, StepFit, error_weights
from clockwork.calibration.options import FitOptions
from clockwork.calibration.statistics import Moments
from clockwork.data.prompts import Prompt


def solve(
    step: int,
    fitted: Moments,
    held_out: Moments,
    guidance: Sequence[float],
    weight: float,
    _: Any,
    kind: type[NormalEquations],
) -> Any:
    """What `fit_step` does with one ridge, without its figures."""
    for sums in (fitted, held_out):
        widths = [fitted.num_branches * (fitted.num_inputs + channels) for channels in (640, 4)]  # of r_out, of latents
        assert (sums.products.device, sums.products.dtype) == (GPU, torch.float64) and len(sums.products) in widths
    equations = kind.of(fitted + held_out, error_weights(guidance, weight))
    maps = equations.of_branches(equations.solve(1e-3))
    return maps, equations, StepFit(step, 1e-3, False, 0.5, 1.0, fitted.count + held_out.count)


def calibrate(real: RealSize, num_prompts: int, **options: Any) -> Calibrated:
    """Calibrates with two prompts that are repeated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrating, "fit_step", solve)
        patch.setattr(Moments, "is_finite", lambda sums: True)
        sampler = replace(real.sampler, adaptor=Identity(real.dims), adaptor_name="identity")
        prompts = [Prompt(i, CAPTIONS[i % 2]) for i in range(num_prompts)]
        return calibrate_sampler(sampler, prompts, options=FitOptions(**{"held_out_every": 2, **options}))


@pytest.mark.parametrize(
    ("name", "rank"), [("sdxl", 64), *(pytest.param(name, None, marks=pytest.mark.slow) for name in ("sd15", "sdxl"))]
)
def test_a_calibration_and_the_roll_out_of_its_adaptor(name: str, rank: int | None) -> None:
    """The adaptor in float32 beside the UNet in float16. The host waits for the GPU for the maps, once per step."""
    with switched_on(few_layers(name)) as real:
        result = calibrate(real, 4, batch=2, rank=rank)
        assert real.gpu.host_reads == ["_to_copy"] * (2 if rank is None else 3)  # weights, biases, second factors
        assert {(p.device, p.dtype) for p in result.adaptor.parameters()} == {(GPU, torch.float32)}
        assert result.fits[0].observations == 4 * (real.teacher.resolution // 16) ** 2
        half = replace(result.sampler, adaptor=result.adaptor.to(GPU, torch.float16))  # as `build_sampler` loads it
        latents = half.latents(CAPTIONS, real.noise)
        assert (latents.device, latents.dtype, latents.shape) == (GPU, torch.float32, real.noise.shape)


@pytest.mark.parametrize("name", ["sd15", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_an_adaptor_of_the_positive_half(name: str) -> None:
    """The kept layers run on half of the batch, and the negative half's map in the adaptor's precision, on the GPU."""
    with switched_on(few_layers(name)) as real:
        result = calibrate(real, 4, batch=2, positive_only=True)
        assert real.gpu.host_reads == ["_to_copy"] * 4  # weights and biases of both kinds of map
        assert {(p.device, p.dtype) for p in result.adaptor.parameters()} == {(GPU, torch.float32)}
        for dtype in (torch.float32, torch.float16):  # as in training, and as `build_sampler` loads it
            sampler = replace(result.sampler, adaptor=copy.deepcopy(result.adaptor).to(GPU, dtype))
            _, step = sampler.rollout(CAPTIONS, real.noise)
            denoised = step.denoised
            assert (step.latents.device, step.latents.dtype) == (GPU, torch.float32)
            assert (denoised.output.device, denoised.output.dtype, len(denoised.output)) == (GPU, torch.float16, 4)
            assert not denoised.full and len(denoised.r_out) == len(CAPTIONS)
        assert real.gpu.host_reads == ["_to_copy"] * 4


BARS = {"sd15": 5.5, "sdxl": 15}  # GiB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_calibration_with_the_default_batch_fits(name: str) -> None:
    """All layers, and 64 captions as `clockwork.calibrate` has them; weights included."""
    with alone(name) as real:
        calibrate(real, 64)
        peak = real.gpu.peak_bytes / 2**30
    print(f"{name}: {peak:.1f} GiB")
    assert peak < BARS[name]
