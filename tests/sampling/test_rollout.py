"""Roll-outs against diffusers' own pipeline and the DeepCache package: bit for bit."""

import warnings

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from helpers.shapes import SHAPES
from torch import Tensor

from clockwork.adaptors import FeatureDims, Identity
from clockwork.flops.cost import image_flops, step_flops
from clockwork.miniature import WEIGHTS
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoiser, FullDenoiser
from clockwork.sampling.rollout import StepRecord, rollout
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import SOLVERS, make_solver
from clockwork.sampling.step_noise import step_noise
from clockwork.schedule import Schedule
from clockwork.teachers import Condition, Teacher, load_teacher
from clockwork.unet.chain import Cut
from clockwork.unet.split import SplitUNet

CAPTIONS = ["a large red circle in the center on a plain blue background", "a green star on a striped white background"]
NOBODY = FeatureDims(0, 0, 0, 0)


@pytest.fixture(scope="module")
def loaded() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(WEIGHTS / "miniature", safety_checker=None)


@pytest.fixture
def teacher(loaded: StableDiffusionPipeline) -> Teacher:
    pipe = StableDiffusionPipeline(**loaded.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return Teacher("miniature", pipe, guidance=3.0)


def records(teacher: Teacher, denoiser: Denoiser, solver: str, steps: int, guidance: float = 3.0) -> list[StepRecord]:
    noise = teacher.noise([0, 1])
    condition, negative = teacher.encode(CAPTIONS), teacher.encode([""])
    made = make_solver(solver, teacher.noise_schedule)
    return list(rollout(denoiser, made, steps, noise, condition, negative, guidance))


def pipeline(teacher: Teacher, solver: str, steps: int, guidance: float = 3.0) -> Tensor:
    pipe = teacher.pipe
    pipe.scheduler = make_solver(solver, teacher.noise_schedule)
    noise = teacher.noise([0, 1])
    return pipe(
        CAPTIONS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=noise,
        output_type="latent",
        **step_noise(pipe.scheduler, noise),
    ).images


@pytest.mark.parametrize(("guidance", "calls"), [(0.0, 1), (0.7, 1), (1.0, 1), (1.01, 2), (3.0, 2)])
def test_up_to_a_scale_of_1_there_is_no_guidance(teacher: Teacher, guidance: float, calls: int) -> None:
    """As in diffusers: in the conditions, in the roll-out and in the FLOPs."""
    sampler = Sampler(teacher, SplitUNet(teacher.unet), Schedule(), "dpm++", 2, guidance)
    assert teacher.unet_calls_per_step(guidance) == calls
    assert (teacher.conditions(CAPTIONS, guidance)[1] is None) == (calls == 1)
    record = records(teacher, FullDenoiser(SplitUNet(teacher.unet)), "dpm++", 2, guidance)[-1]
    assert len(record.denoised.output) == calls * len(CAPTIONS)
    assert image_flops(sampler).full == 2 * calls * step_flops(sampler)[0].full


@pytest.mark.parametrize("solver", list(SOLVERS))
@pytest.mark.parametrize("guidance", [0.5, 1.0, 3.0])
def test_a_full_rollout_is_the_pipeline(teacher: Teacher, solver: str, guidance: float) -> None:
    teacher.flow = solver == "flow"
    ours = records(teacher, FullDenoiser(SplitUNet(teacher.unet)), solver, 6, guidance)[-1].latents
    assert torch.equal(ours, pipeline(teacher, solver, 6, guidance))


def test_no_deprecation_warning_while_a_teacher_is_loaded_and_sampled() -> None:
    """Neither of `torch_dtype` nor of the solver `dpm`; the filter leaves the caller's own warnings alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        teacher = load_teacher("miniature", device="cpu")
        records(teacher, FullDenoiser(SplitUNet(teacher.unet)), "dpm", 2)
        with pytest.raises(FutureWarning, match="dpmsolver"):
            DPMSolverMultistepScheduler(algorithm_type="dpmsolver", final_sigmas_type="sigma_min")


def test_pndm_makes_one_call_more_than_steps(teacher: Teacher) -> None:
    made = records(
        teacher, ClockworkDenoiser(SplitUNet(teacher.unet), Identity(NOBODY), Schedule.parse("clock2")), "pndm", 8
    )
    assert [r.step for r in made] == list(range(1, 10))
    assert [r.denoised.full for r in made] == [step % 2 == 1 for step in range(1, 10)]


def test_the_identity_feeds_the_last_full_step_on(teacher: Teacher) -> None:
    made = records(
        teacher, ClockworkDenoiser(SplitUNet(teacher.unet), Identity(NOBODY), Schedule.parse("clock4")), "dpm++", 8
    )
    for record in made:
        full = made[(record.step - 1) // 4 * 4]
        assert torch.equal(record.denoised.r_out, full.denoised.r_out)


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_the_identity_at_fine_cuts_is_deepcache(teacher: Teacher, branch: int) -> None:
    from DeepCache import DeepCacheSDHelper

    torch.manual_seed(0)
    unet = UNet2DConditionModel(norm_num_groups=4, cross_attention_dim=64, sample_size=16, **SHAPES["sd15"]).eval()
    pipe = StableDiffusionPipeline(**{**teacher.pipe.components, "unet": unet}, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    small = Teacher("random", pipe)
    clocked = ClockworkDenoiser(SplitUNet(unet, Cut(branch, branch + 1)), Identity(NOBODY), Schedule.parse("clock2"))
    ours = records(small, clocked, "dpm++", 7)[-1].latents
    assert not torch.equal(ours, pipeline(small, "dpm++", 7))
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2, cache_branch_id=branch)
    helper.enable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pipeline(small, "dpm++", 7)
    assert torch.equal(ours, theirs)


def test_an_image_is_the_same_in_any_batch(teacher: Teacher) -> None:
    """A prompt's seed is its own: alone, or at another place among others, it gives the same latents."""
    captions = {3: CAPTIONS[0], 7: CAPTIONS[1], 1 << 30: CAPTIONS[0]}
    denoiser = ClockworkDenoiser(SplitUNet(teacher.unet), Identity(NOBODY), Schedule.parse("clock2"))

    def latents(ids: list[int], seed: int = 0) -> Tensor:
        conditions = teacher.encode([captions[i] for i in ids]), teacher.encode([""])
        solver = make_solver("dpm++", teacher.noise_schedule)
        *_, last = rollout(denoiser, solver, 4, teacher.noise(ids, seed), *conditions, 3.0)
        return last.latents

    together = latents([3, 7, 1 << 30])
    for place, number in enumerate(captions):  # but for the rounding of a batched convolution
        torch.testing.assert_close(latents([number])[0], together[place], rtol=0, atol=1e-3)
    torch.testing.assert_close(latents([1 << 30, 3])[1], together[0], rtol=0, atol=1e-3)
    assert (together[0] - together[2]).abs().max() > 0.1  # of the same caption
    assert (latents([7], seed=1)[0] - together[1]).abs().max() > 0.1


def test_no_text_embedder_is_loaded_where_none_is_named(teacher: Teacher) -> None:
    condition: Condition = teacher.encode(CAPTIONS)
    assert condition.text_emb is None
