"""What adaptor examples hold of the past, and whose roll-out they come from."""

from dataclasses import fields, replace

import pytest
import torch
from helpers.linear import linear_sampler, random_linear
from helpers.models import small_teacher
from torch import Tensor

from clockwork.adaptors import NO_HISTORY, Adaptor, FeatureDims, Residual, ResNet, Taylor
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.sampling.denoisers import FullDenoiser
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.guidance import cfg_batch
from clockwork.sampling.rollout import StepRecord
from clockwork.sampling.sampler import Sampler
from clockwork.teachers import Teacher
from clockwork.training.adaptor_example import AdaptorExample
from clockwork.training.datamodule import Epoch, OnlineDataModule
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.noised import NoisedExamples

PROMPTS = [Prompt(i, f"a red circle {i}") for i in range(3)]
CAPTIONS = [prompt.text for prompt in PROMPTS]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return small_teacher("bk_sdm_tiny", guidance=3.0)


@pytest.fixture(scope="module", params=["bk_sdm_tiny", "guided"])
def any_teacher(request: pytest.FixtureRequest, teacher: Teacher) -> Teacher:
    """With two UNet calls per step, or one."""
    return teacher if request.param == "bk_sdm_tiny" else small_teacher("guided", guidance=3.0)


def records(sampler: Sampler, adaptor: Adaptor | None, seed: int) -> list[StepRecord]:
    """A roll-out of the adaptor, or without one of the teacher."""
    denoiser = None if adaptor is not None else FullDenoiser(sampler.split)
    return list(sampler.rollout(CAPTIONS, sampler.teacher.noise([p.id for p in PROMPTS], seed), denoiser))


def joined(source: TrajectoryExamples) -> AdaptorExample:
    batch: AdaptorExample = source(PROMPTS, 1)
    return batch


def held(batch: AdaptorExample) -> set[str]:
    return {field.name for field in fields(batch) if getattr(batch, field.name) is not None}


PAPER = {"r_in", "r_out_prev", "t_emb", "text_emb", "r_out", "step", "conditional"}


def test_examples_hold_what_the_adaptor_declares_and_nothing_else(teacher: Teacher) -> None:
    class ReadsStep(Adaptor, kind="reads_step"):
        def __init__(self, dims: FeatureDims) -> None:
            super().__init__(dims, ("r_out_prev", "step"))

    sampler = linear_sampler(teacher)
    dims = feature_dims(teacher, "stage1")
    past = {"past_steps", "r_in_prev", "full_r_in", "full_r_out"}
    assert sampler.adaptor is not None
    resnet = ResNet(dims, 8, 1, ("r_in", "r_out_prev", "t_emb"))
    for adaptor, more in (
        (resnet, set()),
        (ReadsStep(dims), {"past_steps"}),
        (Residual(Taylor(dims), ResNet(dims, 8, 1, ("r_out_prev",))), {"past_steps", "full_r_out"}),
        (sampler.adaptor, past),
        (Residual(sampler.adaptor, resnet), past),
    ):
        for with_latents in (False, True):
            source = TrajectoryExamples(replace(sampler, adaptor=adaptor), with_latents=with_latents)
            batch = joined(source)
            assert held(batch) == PAPER | more | ({"latents", "timestep", "captions"} if with_latents else set())
            tensors = [x for name in held(batch) if isinstance(x := getattr(batch, name), Tensor)]
            assert source.example_bytes() == sum(x[0].numel() * x.element_size() for x in tensors)


@pytest.mark.parametrize(("rollout", "joint"), [("teacher", False), ("adaptor", False), ("adaptor", True)])
def test_the_estimate_on_examples_is_that_of_the_roll_out(any_teacher: Teacher, rollout: str, joint: bool) -> None:
    """In a batch of all steps, with clock 4, so that estimates are read, too. On the adaptor's roll-out it is the
    denoiser's own `r_out`, on the teacher's that of its denoiser for the teacher's features."""
    sampler = linear_sampler(any_teacher, "clock4", 6, joint=joint)
    adaptor = sampler.adaptor
    assert adaptor is not None and adaptor.reads_both_halves == joint
    batch = joined(TrajectoryExamples(sampler, rollout, with_latents=True))
    assert batch.past_steps is not None and set(batch.past_steps) == {(2, 1), (3, 1), (4, 1), (6, 5, 1)}
    assert batch.full_r_in is not None and not batch.full_r_in[:, 1][batch.step < 5].any()
    two_passes = any_teacher.unet_calls_per_step(3.0) == 2
    estimates = batch.estimate(adaptor, two_passes)
    if not joint:  # else the halves of an example are where the batch has them
        mixed = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
        assert torch.allclose(select(batch, mixed).estimate(adaptor, two_passes), estimates[mixed], atol=1e-5)
    for record in records(sampler, adaptor if rollout == "adaptor" else None, seed=1):
        rows = batch.step == record.step
        if rollout == "adaptor" and rows.any():
            assert torch.equal(batch.r_in[rows], record.denoised.r_in)
            torch.testing.assert_close(estimates[rows], record.denoised.r_out)
            torch.testing.assert_close(low_res_path(sampler, batch, rows), batch.r_out[rows])
        elif rows.any():
            assert torch.equal(batch.r_in[rows], record.denoised.r_in)
            assert torch.equal(batch.r_out[rows], record.denoised.r_out)


def select(batch: AdaptorExample, index: Tensor) -> AdaptorExample:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    rows = {n: x[index] if isinstance(x, Tensor) else x and tuple(x[i] for i in index) for n, x in values.items()}
    return AdaptorExample(**rows)


def low_res_path(sampler: Sampler, batch: AdaptorExample, rows: Tensor) -> Tensor:
    """`r_out` of the full UNet on the latents of examples."""
    assert batch.latents is not None and batch.timestep is not None
    latents, t, condition = batch.latents[rows], batch.timestep[rows], cfg_batch(*sampler.conditions(CAPTIONS))
    return FullDenoiser(sampler.split)(latents, t, condition, 1, NO_HISTORY).r_out


def test_on_the_teachers_roll_out_the_past_is_the_teachers(teacher: Teacher) -> None:
    """Bit for bit what the clocked denoiser computes when every step begins with the teacher's features."""
    sampler = linear_sampler(teacher, "clock4", 6)
    batch, teachers = joined(TrajectoryExamples(sampler)), records(sampler, None, seed=1)
    assert batch.r_in_prev is not None and batch.full_r_out is not None and batch.full_r_in is not None
    for step in (2, 3, 4, 6):
        rows, previous = batch.step == step, teachers[step - 2].denoised
        assert torch.equal(batch.r_in_prev[rows], previous.r_in) and torch.equal(batch.r_out_prev[rows], previous.r_out)
        full = teachers[4 if step == 6 else 0].denoised
        assert torch.equal(batch.full_r_in[rows, 0], full.r_in) and torch.equal(batch.full_r_out[rows, 0], full.r_out)
    assert torch.equal(batch.full_r_out[batch.step == 6, 1], teachers[0].denoised.r_out)


def test_on_the_adaptors_roll_out_examples_follow_the_adaptor(teacher: Teacher) -> None:
    """Later examples change with the adaptor, but validation examples do not."""
    sampler = linear_sampler(teacher, "clock2", 6)
    assert sampler.adaptor is not None
    other = replace(sampler, adaptor=random_linear(sampler.adaptor.dims, (2, 4, 6), 0.05))
    sources = [TrajectoryExamples(each, "adaptor") for each in (sampler, other)]
    first, second = map(joined, sources)
    for step in (2, 4, 6):
        rows = first.step == step
        assert torch.equal(first.r_out[rows], second.r_out[rows]) == (step == 2)
    validation = [joined(source.for_validation()) for source in sources]
    assert torch.equal(validation[0].r_out, validation[1].r_out)
    assert torch.equal(validation[0].r_out, joined(TrajectoryExamples(sampler)).r_out)


def test_an_epochs_batches_hold_the_past_of_their_examples(teacher: Teacher) -> None:
    sampler = linear_sampler(teacher)
    assert sampler.adaptor is not None
    data = OnlineDataModule(TrajectoryExamples(sampler, with_latents=True), PROMPTS, 3, 1, 6, 2)
    for batch in Epoch(data, 0):
        assert isinstance(batch, AdaptorExample) and batch.past_steps is not None and batch.captions is not None
        assert [past[0] for past in batch.past_steps] == batch.step.tolist()
        assert len(batch.captions) == len(batch) and set(batch.captions) <= set(CAPTIONS)
        assert batch.estimate(sampler.adaptor, True).shape == batch.r_out.shape


def test_what_has_no_roll_out_is_refused(teacher: Teacher) -> None:
    with pytest.raises(UserError, match="reads full_steps and r_in_prev: use data=trajectories"):
        NoisedExamples(linear_sampler(teacher))
    with pytest.raises(UserError, match="rollout=student is not known: use teacher or adaptor"):
        TrajectoryExamples(linear_sampler(teacher), "student")
