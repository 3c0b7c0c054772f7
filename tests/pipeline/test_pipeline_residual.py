"""A correction of a linear adaptor in a pipeline: the latents are those of the roll-out, in both precisions."""

from dataclasses import replace

import pytest
import torch
from helpers.linear import linear_sampler
from helpers.models import small_teacher

import clockwork
from clockwork.adaptors import Residual, ResNet
from clockwork.sampling.solvers import make_solver


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_pipeline_gives_the_latents_of_the_roll_out(dtype: torch.dtype) -> None:
    teacher = small_teacher("bk_sdm_tiny", guidance=3.0)
    teacher.pipe.to(dtype)
    sampler = linear_sampler(teacher, "clock4", 6)
    assert sampler.adaptor is not None
    resnet = ResNet(sampler.adaptor.dims, 8, 1, ("r_in", "r_out_prev", "t_emb"))
    torch.nn.init.normal_(resnet.up.weight, std=0.01)
    adaptor = Residual(sampler.adaptor, resnet).to(dtype).eval()
    base = replace(sampler, adaptor=adaptor.base)
    noise = teacher.noise([1, 2])
    captions = ["a red circle", "a blue star"]
    pipe = teacher.pipe
    pipe.scheduler = make_solver("dpm++", teacher.noise_schedule)
    clockwork.enable(pipe, "clock4", adaptor, cut="stage1")
    side = 16 * pipe.vae_scale_factor
    call = {"num_inference_steps": 6, "guidance_scale": 3.0, "height": side, "width": side, "output_type": "latent"}
    latents = pipe(captions, latents=noise.to(dtype), **call).images
    clockwork.disable(pipe)
    with_correction = replace(sampler, adaptor=adaptor)
    expected, of_base = (each.latents(captions, noise.to(dtype)) for each in (with_correction, base))
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    error, of_base_alone = ((latents.float() - other).norm() / other.norm() for other in (expected, of_base))
    assert error < tolerance and of_base_alone > 1e-4
