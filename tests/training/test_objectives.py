"""Objectives: each target against the arithmetic that it stands for, computed a second way; then the chain of them."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from helpers.models import small_teacher
from helpers.objectives import PROMPTS, sampler

from clockwork.miniature.prompts import scene_images as scenes
from clockwork.sampling.denoisers import FullDenoiser
from clockwork.sampling.guidance import cfg_batch
from clockwork.sampling.rollout import rollout
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Teacher, load_teacher
from clockwork.teachers.surgery import without_top_attention
from clockwork.training.ddim import DDIM
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.latents import NoisedLatents, NoisyLatents, UnrolledLatents
from clockwork.training.noised import NoisedExamples, add_noise
from clockwork.training.objectives.base import mean_square, predict
from clockwork.training.objectives.features import FeatureDistillation, block_outputs, relative_error
from clockwork.training.objectives.guidance import GuidanceDistillation
from clockwork.training.objectives.progressive import ProgressiveDistillation, halvings
from clockwork.unet.split import SplitUNet

ROOT = Path(__file__).parents[2]


# --- noised pictures ----------------------------------------------------------------------------------------


def test_a_noised_pair_is_what_a_rollout_computes_from_the_same_latents(teacher: Teacher) -> None:
    """Fed with the latents of a roll-out in the pictures' place, the pair is the unrolled example, bit for bit."""
    made = sampler(teacher, schedule="clock2")
    unrolled = TrajectoryExamples(made)(PROMPTS, 5)
    conditions = teacher.conditions([p.text for p in PROMPTS], 3.0)
    noise = teacher.noise([p.id for p in PROMPTS], 5)
    solver = make_solver("dpm++", teacher.noise_schedule)
    records = list(rollout(FullDenoiser(made.split), solver, 4, noise, *conditions, 3.0))
    entering = [noise * solver.init_noise_sigma, *(record.latents for record in records)]
    for step, rows in ((2, slice(0, 6)), (4, slice(6, 12))):
        pair = NoisedExamples(made).example(entering[step - 2], entering[step - 1], step, cfg_batch(*conditions))
        for name in ("r_in", "r_out_prev", "t_emb", "text_emb", "r_out", "step", "conditional"):
            assert torch.equal(getattr(pair, name), getattr(unrolled, name)[rows]), name


@pytest.mark.parametrize("solver", ["dpm++", "pndm", "ddim"])
def test_pictures_are_noised_to_the_solvers_timesteps(teacher: Teacher, solver: str) -> None:
    """√ᾱ x + √(1 − ᾱ) ε, with ᾱ the product of 1 − β up to t; as many examples as a roll-out gives."""
    made = sampler(teacher, solver, schedule="2,4")
    pairs = NoisedExamples(made)
    assert len(pairs(scenes("train", 2), 0)) == len(TrajectoryExamples(made)(PROMPTS[:2], 0))
    c = teacher.noise_schedule
    betas = torch.linspace(c["beta_start"] ** 0.5, c["beta_end"] ** 0.5, c["num_train_timesteps"]) ** 2
    products = (1 - betas).cumprod(0)
    x, e = teacher.noise([1, 2]), teacher.noise([3, 4])
    for t in pairs.timesteps:
        a = products[int(t)]
        torch.testing.assert_close(add_noise(made, x, e, t.expand(2)), a.sqrt() * x + (1 - a).sqrt() * e)


def test_latents_of_pictures_decode_to_them(teacher: Teacher) -> None:
    from clockwork.data.captioned_images import pixels

    images = pixels(scenes("test", 8), 32)
    error = (teacher.decode(teacher.encode_images(images)).float() - images.float()).square().mean()
    assert 10 * torch.log10(255**2 / error) > 25  # dB


# --- recover ------------------------------------------------------------------------------------------------


def states(teacher: Teacher, **options: Any) -> NoisyLatents:
    return UnrolledLatents(sampler(teacher, **options))(PROMPTS, 1)


def test_recovering_begins_at_the_surgerys_error(teacher: Teacher) -> None:
    """By hand: the outputs' mean square error in both halves, and the blocks' in units of the teacher's."""
    module = FeatureDistillation(teacher, FeatureDistillation.init_student(teacher), 4, outputs=2.0, features=0.5)
    asked = states(teacher)
    loss, untrained = module.losses(asked, untrained=True)
    assert untrained is not None and torch.equal(loss.detach(), untrained)
    both = cfg_batch(*teacher.conditions(list(asked.captions), 3.0, with_text_emb=False))
    x, t = (torch.cat([v, v]) for v in (asked.latents, asked.timestep))
    light = without_top_attention(teacher.unet)
    with torch.no_grad(), block_outputs(teacher.unet) as theirs, block_outputs(light) as ours:
        wanted = 2.0 * mean_square(
            light(x, t, both.prompt_embeds).sample, teacher.unet(x, t, both.prompt_embeds).sample
        )
    assert len(ours) == len(theirs) == 9  # four down, the middle, four up
    wanted = wanted + 0.5 * torch.stack([relative_error(a, b) for a, b in zip(ours, theirs, strict=True)]).mean()
    torch.testing.assert_close(loss.detach(), wanted)
    assert not teacher.unet.conv_in.weight.requires_grad and module.unet.conv_in.weight.requires_grad
    assert {name.split(".")[0] for name in module.state_dict()} == {"unet"}


def test_states_are_those_that_enter_the_steps(teacher: Teacher) -> None:
    asked, solver = states(teacher), make_solver("dpm++", teacher.noise_schedule)
    conditions, noise = teacher.conditions([p.text for p in PROMPTS], 3.0), teacher.noise([p.id for p in PROMPTS], 1)
    records = list(rollout(FullDenoiser(SplitUNet(teacher.unet)), solver, 4, noise, *conditions, 3.0))
    solver.set_timesteps(4)
    assert asked.timestep.tolist() == [int(t) for t in solver.timesteps for _ in PROMPTS]
    assert torch.equal(asked.latents, torch.cat([noise, *(record.latents for record in records[:-1])]))
    assert list(asked.captions) == [p.text for p in PROMPTS] * 4
    varied = UnrolledLatents(sampler(teacher), scales=(1.0, 8.0), step_counts=(2, 6))
    counts = {len(varied(PROMPTS[:1], seed)) for seed in range(8)}
    scales = {float(varied(PROMPTS[:1], seed).guidance[0]) for seed in range(4)}
    assert len(counts) > 2 and counts <= set(range(2, 7)) and len(scales) == 4 and min(scales) >= 1
    images = NoisedLatents(sampler(teacher, "ddim", 4), step_stride=2)(scenes("train", 3), 1)
    assert len(images) == 6 and images.timestep.unique().tolist() == sorted(asked.timestep.tolist())[3::6]


# --- guidance -----------------------------------------------------------------------------------------------


def test_the_guidance_target_is_the_rollouts_arithmetic(teacher: Teacher) -> None:
    """A solver's step with the target leads where the roll-out's own guided step led, bit for bit."""
    made = sampler(teacher, "ddim")
    asked = UnrolledLatents(made)(PROMPTS, 1)
    module = GuidanceDistillation(teacher, GuidanceDistillation.init_student(teacher), 4)
    target, alone = module.target(asked)
    solver = make_solver("ddim", teacher.noise_schedule)
    solver.set_timesteps(4)
    after = torch.cat(
        [
            solver.step(output, t, x).prev_sample
            for output, t, x in zip(target.split(3), solver.timesteps, asked.latents.split(3), strict=True)
        ]
    )
    torch.testing.assert_close(after[:-3], asked.latents[3:], rtol=0, atol=1e-5)  # a batch of 24, and of 6
    positive = teacher.encode(list(asked.captions), False)
    torch.testing.assert_close(
        alone, teacher.unet(asked.latents, asked.timestep, positive.prompt_embeds).sample, rtol=0, atol=2e-5
    )
    loss, untrained = module.losses(asked, untrained=True)
    assert untrained is not None
    torch.testing.assert_close(loss.detach(), untrained)  # a new input for the scale changes nothing yet
    doubled = module.target(replace(asked, guidance=torch.full((12,), 5.0)))[0]
    torch.testing.assert_close(doubled - target, (target - alone), rtol=1e-3, atol=1e-4)  # 3 → 5: by (3 − 1) more


# --- progressive --------------------------------------------------------------------------------------------


def ddim_solver(prediction: str, steps: int) -> DDIMScheduler:
    solver = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
    )
    solver.set_timesteps(steps)
    return solver


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_step_is_diffusers_ddim(prediction: str) -> None:
    solver = ddim_solver(prediction, 8)
    ddim = DDIM(solver.config)
    z, output = torch.randn(2, 1, 4, 6, 6, generator=torch.Generator().manual_seed(0)).unbind(0)
    for t in solver.timesteps:  # the last one leads past 0
        ours = ddim.step(ddim.clean(output, z, t[None]), z, t[None], t[None] - 125)
        torch.testing.assert_close(ours, solver.step(output, t, z).prev_sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_one_student_step_to_the_target_is_two_of_the_teachers(prediction: str) -> None:
    """With diffusers' own scheduler on both sides: two steps of 8 with the teacher, one of 4 with the target."""
    guided = small_teacher("guided", guidance=1.0)
    teacher = guided.with_components("guided", scheduler=ddim_solver(prediction, 4))
    module = ProgressiveDistillation(teacher, copy.deepcopy(teacher.unet), 4)
    fine, coarse = ddim_solver(prediction, 8), ddim_solver(prediction, 4)
    assert coarse.timesteps.tolist() == fine.timesteps.tolist()[::2]
    z, captions = teacher.noise([0, 1]), ("a red circle", "a star")
    condition, _ = teacher.conditions(list(captions), 2.5)
    for i, t in enumerate(coarse.timesteps):
        target, _ = module.target(z, t.expand(2), condition)
        two = z
        for s in fine.timesteps[2 * i : 2 * i + 2]:
            two = fine.step(predict(teacher.unet, two, s, condition), s, two).prev_sample
        alpha, sigma = (float(x) for x in module.ddim.alpha_sigma(t[None]))
        output = (alpha * z - target) / sigma if prediction == "v_prediction" else (z - alpha * target) / sigma
        one = coarse.step(output, t, z).prev_sample
        torch.testing.assert_close(one, two, rtol=2e-3, atol=2e-3 * float(two.abs().max()))
        z = two


def test_a_teacher_that_knows_the_target_has_no_loss() -> None:
    """Where the teacher says the same clean latent at both steps, that is the target: two steps of it are one."""
    ddim = DDIM(ddim_solver("epsilon", 4).config)
    z, clean = torch.randn(2, 2, 4, 6, 6, generator=torch.Generator().manual_seed(0)).unbind(0)
    t, middle, end = (torch.tensor([s, s - 500]) for s in (999, 874, 749))
    there = ddim.step(clean, ddim.step(clean, z, t, middle), middle, end)
    torch.testing.assert_close(there, ddim.step(clean, z, t, end), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ddim.clean_between(z, there, t, end), clean, rtol=1e-4, atol=1e-4)


def test_halvings() -> None:
    assert halvings(16, 4) == [8, 4] and halvings(8, 1) == [4, 2, 1]
    for start, end in ((16, 5), (16, 16), (12, 2), (4, 8)):
        with pytest.raises(ValueError, match="halves"):
            halvings(start, end)


def test_what_an_objective_cannot_begin_with_is_refused(teacher: Teacher) -> None:
    with pytest.raises(ValueError, match="objective=guidance first"):
        ProgressiveDistillation.check_teacher(teacher)
    with pytest.raises(ValueError, match="one pass per step already"):
        GuidanceDistillation.check_teacher(small_teacher("guided"))
    with pytest.raises(ValueError, match="no transformer blocks"):
        FeatureDistillation.init_student(load_teacher("miniature", device="cpu"))
