"""The loss on the UNet's guided output: its value, its gradient, and that the teacher stays as it was."""

from functools import partial

import pytest
import torch
from helpers.linear import linear_sampler
from helpers.models import small_teacher
from torch import Tensor

from clockwork.adaptors import Residual, ResNet
from clockwork.data.prompts import Prompt
from clockwork.metrics.similarity import distance
from clockwork.sampling.denoisers import FullDenoiser
from clockwork.sampling.guidance import apply_guidance, cfg_batch
from clockwork.sampling.sampler import Sampler
from clockwork.teachers import Teacher
from clockwork.training.adaptor_example import AdaptorExample
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.objectives.adaptor import AdaptorDistillation
from clockwork.training.objectives.guided_output import GuidedOutput

PROMPTS = [Prompt(i, f"a red circle {i}") for i in range(2)]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return small_teacher("bk_sdm_tiny", guidance=3.0)


def operating_point(teacher: Teacher) -> tuple[Sampler, float, AdaptorExample]:
    """Of which steps 2 and 4 of 4 are the adaptor's; with the scale with which two passes are combined."""
    sampler = linear_sampler(teacher)
    batch: AdaptorExample = TrajectoryExamples(sampler, with_latents=True)(PROMPTS, 1)
    return sampler, 3.0 if teacher.unet_calls_per_step(3.0) == 2 else 1.0, grouped(batch)


def grouped(batch: AdaptorExample) -> AdaptorExample:
    """In the order of training: the negative half of all steps first."""
    order = batch.conditional.argsort(stable=True)
    assert batch.past_steps is not None and batch.captions is not None
    tensors = {name: x[order] for name, x in vars(batch).items() if isinstance(x, Tensor)}
    tuples = {name: tuple(getattr(batch, name)[i] for i in order) for name in ("past_steps", "captions")}
    return AdaptorExample(**tensors, **tuples)


@pytest.mark.parametrize("shape", ["bk_sdm_tiny", "sdxl", "guided"])
def test_the_error_is_that_of_the_denoisers_output(shape: str) -> None:
    """On the previous step's features: the difference of two outputs of the UNet, guided as in a roll-out."""
    teacher = small_teacher(shape, guidance=3.0)
    sampler, guidance, batch = operating_point(teacher)
    error = GuidedOutput(sampler).error(batch.r_out_prev, batch.r_out, batch)
    noise = teacher.noise([prompt.id for prompt in PROMPTS], 1)
    captions = [prompt.text for prompt in PROMPTS]
    records = sampler.rollout(captions, noise, FullDenoiser(sampler.split, sampler.adaptor))
    expected = []
    for record in records:
        if not sampler.schedule.is_full(record.step):
            output = record.denoised.output
            rows = batch.step == record.step
            other = output_of(sampler, batch, rows, captions)
            pair = (apply_guidance(x, guidance) if guidance != 1 else x for x in (other, output))
            expected.append(distance(*pair))
    torch.testing.assert_close(error, torch.cat(expected), rtol=1e-4, atol=1e-5)


def output_of(sampler: Sampler, batch: AdaptorExample, rows: Tensor, captions: list[str]) -> Tensor:
    """The UNet's output with the previous step's features in place of the low-res path's."""
    assert batch.latents is not None and batch.timestep is not None
    both = cfg_batch(*sampler.conditions(captions))
    embedded = sampler.split.embed(batch.latents[rows], batch.timestep[rows], both.prompt_embeds, **both.unet_kwargs)
    return sampler.split.high_out(batch.r_out_prev[rows], sampler.split.high_in(embedded), embedded)


def test_it_is_zero_only_for_the_target_and_the_teacher_gets_no_gradient(teacher: Teacher) -> None:
    sampler, _, batch = operating_point(teacher)
    loss = GuidedOutput(sampler)
    assert not loss.error(batch.r_out, batch.r_out, batch).any()
    estimate = (batch.r_out + 1e-3 * torch.randn(batch.r_out.shape)).requires_grad_()
    error = loss.error(estimate, batch.r_out, batch)
    assert (error > 0).all() and error.dtype == torch.float32
    error.sum().backward()
    assert estimate.grad is not None and estimate.grad.flatten(1).any(1).all()
    assert all(p.grad is None and not p.requires_grad for p in teacher.unet.parameters())


def test_only_the_correction_learns(teacher: Teacher) -> None:
    """A step with all three losses, and its figures."""
    sampler, guidance, batch = operating_point(teacher)
    assert sampler.adaptor is not None
    resnet = ResNet(sampler.adaptor.dims, 8, 1, ("r_in", "r_out_prev", "t_emb"))
    adaptor = Residual(sampler.adaptor, resnet)
    output = GuidedOutput(sampler)
    options = {"guided": 1.0, "output": output, "output_loss": 0.5, "optimizer": partial(torch.optim.Adam, lr=1e-2)}
    module = AdaptorDistillation(adaptor, (2, 4), guidance, **options)
    before = {name: weight.clone() for name, weight in adaptor.state_dict().items()}
    optimizer = module.configure_optimizers()
    losses = []
    for _ in range(4):
        losses.append(module.training_step(batch))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    changed = {name for name, weight in adaptor.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed and all(name.startswith("correction.") for name in changed)
    means = module.means.read()
    assert means["output"][1] == 4 * len(batch) // 2
    without = AdaptorDistillation(adaptor, (2, 4), guidance, guided=1.0, output=output, output_loss=0.0)
    estimate, target, _ = without.features(batch)
    difference = module.training_step(batch) - without.training_step(batch)
    torch.testing.assert_close(difference, 0.5 * output.error(estimate, target, batch).mean())


def test_a_half_precision_teacher_runs_it_in_float32() -> None:
    half = small_teacher("bk_sdm_tiny", guidance=3.0)
    half.pipe.to(torch.bfloat16)
    sampler, _, batch = operating_point(half)
    loss = GuidedOutput(sampler)
    assert loss.split.unet is not half.unet and half.unet.dtype == torch.bfloat16
    estimate = batch.r_out_prev.float().requires_grad_()
    loss.error(estimate, batch.r_out.float(), batch).mean().backward()
    assert estimate.grad is not None and estimate.grad.dtype == torch.float32 and estimate.grad.isfinite().all()
