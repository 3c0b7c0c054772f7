"""Training through whole roll-outs: the loss, its gradient, and what is trained."""

from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.commands import config
from helpers.linear import linear_sampler
from helpers.models import small_teacher

from clockwork.adaptors import Linear, load_adaptor, save_adaptor
from clockwork.data.prompts import Prompt
from clockwork.experiments.train import train_adaptor
from clockwork.metrics.similarity import distance
from clockwork.sampling.denoisers import FullDenoiser
from clockwork.sampling.sampler import Sampler
from clockwork.teachers import Teacher, load_teacher
from clockwork.training.ends import RolloutEnds, RolloutEndSource
from clockwork.training.objectives.rollout import RolloutDistillation

PROMPTS = [Prompt(i, f"a red circle {i}") for i in range(2)]
CAPTIONS = [prompt.text for prompt in PROMPTS]


@pytest.fixture
def teacher() -> Teacher:
    return small_teacher("bk_sdm_tiny", guidance=3.0)


def operating_point(teacher: Teacher) -> tuple[Sampler, Linear, RolloutEnds]:
    sampler = linear_sampler(teacher)
    assert isinstance(sampler.adaptor, Linear)
    source = RolloutEndSource(sampler)
    batch: RolloutEnds = source(PROMPTS, 1)
    assert source.example_bytes() == 2 * batch.noise[0].numel() * 4
    return sampler, sampler.adaptor.requires_grad_(True), batch


@pytest.mark.parametrize("shape", ["bk_sdm_tiny", "sdxl", "guided"])
def test_the_loss_is_the_distance_of_the_final_latents(shape: str) -> None:
    teacher = small_teacher(shape, guidance=3.0)
    sampler, _, batch = operating_point(teacher)
    noise = teacher.noise([prompt.id for prompt in PROMPTS], 1)
    clocked, full = (sampler.latents(CAPTIONS, noise, d) for d in (None, FullDenoiser(sampler.split)))
    assert torch.equal(batch.noise, noise) and torch.equal(batch.latents, full) and batch.captions == tuple(CAPTIONS)
    torch.testing.assert_close(RolloutDistillation(sampler).distances(batch), distance(clocked, full))


def test_the_gradient_passes_through_all_steps_and_only_to_the_adaptor(teacher: Teacher) -> None:
    """Against finite differences of the maps of the first and of the last adaptor step."""
    sampler, adaptor, batch = operating_point(teacher)
    module = RolloutDistillation(sampler)
    module.training_step(batch).backward()
    assert adaptor.bias.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in teacher.unet.parameters())
    assert set(dict(module.named_parameters())) == {"adaptor.weight", "adaptor.bias"}
    for index in (0, 1):
        direction = torch.zeros_like(adaptor.bias)
        direction[index] = torch.randn(direction[index].shape, generator=torch.Generator().manual_seed(0))
        losses = []
        with torch.no_grad():
            for sign in (1, -1):
                adaptor.bias += sign * 1e-2 * direction
                losses.append(module.distances(batch).mean())
                adaptor.bias -= sign * 1e-2 * direction
        slope = (losses[0] - losses[1]) / 2e-2
        torch.testing.assert_close(slope, (adaptor.bias.grad * direction).sum(), rtol=0.02, atol=1e-4)


def test_the_roll_out_comes_nearer_to_the_teachers(teacher: Teacher) -> None:
    sampler, _, batch = operating_point(teacher)
    module = RolloutDistillation(sampler, optimizer=partial(torch.optim.Adam, lr=1e-3))
    optimizer = module.configure_optimizers()
    losses = []
    for _ in range(5):
        losses.append(module.training_step(batch))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    means = torch.stack(losses).detach()
    assert means[-1] < means[0]
    assert module.means.read()["loss"] == (pytest.approx(means.mean().item(), rel=1e-5), 5 * len(batch))


def test_a_half_precision_teachers_roll_out_is_trained_in_float32() -> None:
    half = small_teacher("bk_sdm_tiny", guidance=3.0)
    half.pipe.to(torch.bfloat16)
    sampler, adaptor, batch = operating_point(half)
    loss = RolloutDistillation(sampler).training_step(batch)
    loss.backward()
    assert loss.dtype == torch.float32 and adaptor.weight.grad is not None and adaptor.weight.grad.isfinite().all()
    assert half.unet.dtype == torch.bfloat16


def test_the_command_tunes_a_linear_adaptor(tmp_path: Path) -> None:
    sampler = linear_sampler(load_teacher("miniature", guidance=3.0, device="cpu"))
    assert isinstance(sampler.adaptor, Linear)
    save_adaptor(tmp_path / "base", sampler.adaptor, sampler.point)
    words = [
        "steps=4",
        "adaptor=linear",
        f"base={tmp_path / 'base'}",
        "loss=latents",
        "learning_rate=1e-3",
        "keep=best",
    ]
    folder, trainer = train_adaptor(config(tmp_path / "run", *words, "prompts_per_epoch=2", "val_prompts=2"))
    tuned, _ = load_adaptor(folder)
    assert isinstance(tuned, Linear) and trainer is not None and trainer.callback_metrics["val/loss"] > 0
    assert not torch.equal(tuned.weight, sampler.adaptor.weight) and not torch.equal(tuned.bias, sampler.adaptor.bias)
