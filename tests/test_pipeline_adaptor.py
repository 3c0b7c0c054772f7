"""Trained adaptors on pipelines: their operating point, their teacher, and the text that they read."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from pipelines import PROMPT, make, paint
from test_pipeline import counts
from test_pipeline_state import reasons, steps

import clockwork
from clockwork.adaptors import ResNet
from clockwork.io.fingerprint import weights_hash
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.enable import enabled
from clockwork.pipeline.hook import NO_PROMPT
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import widths
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Teacher, load_teacher
from clockwork.teachers.text_embedder import OpenCLIP

GIVEN = {"steps": 4, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("miniature", guidance=3.0, device="cpu")


def pipeline(teacher: Teacher) -> StableDiffusionPipeline:
    pipe = copy.deepcopy(teacher.pipe)
    pipe.scheduler = make_solver("dpm++", teacher.noise_schedule)
    return pipe


@pytest.fixture(scope="module")
def trained(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random, with every input: text too."""
    torch.manual_seed(0)
    adaptor = ResNet(widths(teacher, "stage1"), 16, 1)
    for weight in adaptor.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    cut = str(clockwork.SplitUNet(teacher.unet).cut)
    point = OperatingPoint("miniature", teacher.hash, cut, "clock2", "dpm++", 4, 3.0, 32)
    folder = tmp_path_factory.mktemp("adaptor")
    assert teacher.pooled is not None
    clockwork.save_adaptor(folder, adaptor, point, openclip=teacher.pooled.config)
    return folder


def test_at_its_own_point_it_is_silent_and_the_rollout(teacher: Teacher, trained: Path) -> None:
    """The roll-out is handed the captions; the pipeline's are found behind its text features."""
    pipe = pipeline(teacher)
    noise = teacher.noise([0, 1])
    captions = [PROMPT, "a green star"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        clockwork.enable(pipe, adaptor=trained)
        ours = paint(pipe, **GIVEN, prompt=captions, latents=noise)
    assert steps(pipe) == "FaFa" and not reasons(pipe)
    adaptor, point = clockwork.load_adaptor(trained)
    denoiser = clockwork.Clocked(clockwork.SplitUNet(teacher.unet), adaptor, clockwork.Schedule.parse(point.schedule))
    made = make_solver("dpm++", teacher.noise_schedule)
    *_, last = rollout(denoiser, made, 4, noise, teacher.encode(captions), teacher.encode([""]), 3.0)
    assert torch.allclose(last.latents, ours, atol=1e-4)  # the text is embedded in another batch: its last bit
    told = clockwork.summary(pipe)
    assert told.trained == point == told.ran and told.differences == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"steps": 6}, r"steps 6, not 4"),
        ({"guidance_scale": 5.0}, r"guidance 5\.0, not 3\.0"),
        ({"height": 48, "width": 48}, "resolution 48, not 32"),
    ],
)
def test_another_point_warns_once(arguments: dict[str, Any], said: str, teacher: Teacher, trained: Path) -> None:
    pipe = pipeline(teacher)
    clockwork.enable(pipe, adaptor=trained)
    with pytest.warns(UserWarning, match=said):
        paint(pipe, **{**GIVEN, **arguments})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        paint(pipe, **{**GIVEN, **arguments})
    assert clockwork.summary(pipe).differences


def test_another_schedule_and_solver_warn(teacher: Teacher, trained: Path) -> None:
    pipe = pipeline(teacher)
    pipe.scheduler = make_solver("ddim", teacher.noise_schedule)
    clockwork.enable(pipe, adaptor=trained, schedule="2,3")
    with pytest.warns(UserWarning, match=r"schedule 2,3, not clock2; solver ddim, not dpm\+\+"):
        paint(pipe, **GIVEN)


def test_another_teacher_is_refused_unless_forced(teacher: Teacher, trained: Path) -> None:
    pipe = pipeline(teacher)
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1.5)
    with pytest.raises(ValueError, match=r"trained for teacher miniature.*force=True"):
        clockwork.enable(pipe, adaptor=trained)
    clockwork.enable(pipe, adaptor=trained, force=True)
    with pytest.warns(UserWarning, match=f"teacher_hash {weights_hash(pipe.unet)}, not"):
        paint(pipe, **GIVEN)
    assert counts(pipe) == (2, 2)
    with pytest.raises(ValueError, match="at cut 0,1"):
        clockwork.enable(pipe, adaptor=trained, cut="layer1", force=True)
    other, _ = make()
    with pytest.raises(ValueError, match=r"unknown cut|at cut|choose the cut"):
        clockwork.enable(other, adaptor=trained, force=True)
        with pytest.warns(UserWarning):
            paint(other)


def test_text_follows_the_prompt(teacher: Teacher, trained: Path) -> None:
    """A picture is that of a pipeline that saw no other prompt."""
    pipe = pipeline(teacher)
    clockwork.enable(pipe, adaptor=trained)
    for prompt in ("a green star", PROMPT, "a green star"):
        alone = pipeline(teacher)
        clockwork.enable(alone, adaptor=trained)
        arguments = {**GIVEN, "prompt": prompt, "num_images_per_prompt": 2, "negative_prompt": "a blue square"}
        assert torch.equal(paint(pipe, **arguments), paint(alone, **arguments))
        assert not reasons(pipe)
    hook = enabled(pipe).prompts
    assert hook is not None
    tokens = pipe.encode_prompt(["a green star", PROMPT], torch.device("cpu"), 1, False)[0]
    expected = OpenCLIP.miniature().encode_text(["a green star", PROMPT])
    assert torch.allclose(hook.text_emb(tokens), expected, atol=1e-6)
    assert not torch.equal(*expected.chunk(2))


def test_a_prompt_that_is_not_known_makes_full_steps(teacher: Teacher, trained: Path) -> None:
    pipe = pipeline(teacher)
    tokens, negative = pipe.encode_prompt(PROMPT, torch.device("cpu"), 1, True)
    arguments = {**GIVEN, "prompt": None, "prompt_embeds": tokens, "negative_prompt_embeds": negative}
    plain = paint(pipe, **arguments)
    clockwork.enable(pipe, adaptor=trained)
    assert torch.equal(paint(pipe, **arguments), plain)  # encoded before: nothing is known of it
    assert steps(pipe) == "FFFF" and reasons(pipe) == [NO_PROMPT] * 2
    tokens, negative = pipe.encode_prompt(PROMPT, torch.device("cpu"), 1, True)
    arguments |= {"prompt_embeds": tokens, "negative_prompt_embeds": negative}
    by_features = paint(pipe, **arguments)
    assert steps(pipe) == "FaFa"
    assert torch.equal(paint(pipe, **GIVEN), by_features)
    arguments["prompt_embeds"] = 0.9 * tokens  # as weighted prompts are
    paint(pipe, **arguments)
    assert steps(pipe) == "FFFF"


def test_text_of_two_encoders() -> None:
    """SDXL: features of two encoders side by side; no negative prompt is zeros there, and means the empty one."""
    pipe, _ = make("StableDiffusionXLPipeline")
    clip = OpenCLIP.miniature()
    from clockwork.pipeline.attach import attach
    from clockwork.pipeline.prompt_lookup import PromptHook

    hook = PromptHook(pipe.tokenizer, clip)
    attach(pipe.text_encoder, hook, hook.name)
    tokens, negative, *_ = pipe.encode_prompt(PROMPT)
    assert torch.allclose(hook.text_emb(torch.cat([negative, tokens])), clip.encode_text(["", PROMPT]), atol=1e-6)


def test_a_copy_and_offloading_keep_the_text(teacher: Teacher, trained: Path) -> None:
    import accelerate

    pipe = pipeline(teacher)
    clockwork.enable(pipe, adaptor=trained)
    expected = paint(pipe, **GIVEN)
    twin = copy.deepcopy(pipe)
    clockwork.disable(pipe)
    assert torch.equal(paint(twin, **GIVEN), expected)
    assert not reasons(twin)
    accelerate.cpu_offload_with_hook(pipe.text_encoder, torch.device("cpu"))
    clockwork.enable(pipe, adaptor=trained)
    assert torch.equal(paint(pipe, **GIVEN), expected)
    clockwork.disable(pipe)
    assert torch.equal(paint(pipe, **GIVEN), paint(pipeline(teacher), **GIVEN))


def test_an_adaptor_object_without_its_text_is_refused(teacher: Teacher, trained: Path) -> None:
    adaptor, _ = clockwork.load_adaptor(trained)
    with pytest.raises(ValueError, match="which OpenCLIP model"):
        clockwork.enable(pipeline(teacher), adaptor=adaptor)
    pipe = pipeline(teacher)
    silent = ResNet(adaptor.widths, 16, 1, ("r_in", "r_out_prev", "t_emb"))
    clockwork.enable(pipe, adaptor=silent)
    with_it = paint(pipe, **GIVEN)
    clockwork.enable(pipe)
    assert torch.equal(paint(pipe, **GIVEN), with_it)  # untrained, it is the identity


def test_half_precision(teacher: Teacher, trained: Path) -> None:
    """A copy in float16 is the same teacher; in bfloat16 its weights are others, so it is enabled before."""
    for dtype in (torch.float16, torch.bfloat16):
        pipe = pipeline(teacher)
        if dtype == torch.float16:
            pipe.to(dtype)
        clockwork.enable(pipe, adaptor=trained)
        paint(pipe.to(dtype), **GIVEN)
        assert steps(pipe) == "FaFa" and next(enabled(pipe).clocked.adaptor.parameters()).dtype == dtype


def test_openclip_by_config() -> None:
    shipped = OpenCLIP.miniature()
    assert shipped.config == {"name": "miniature", "tag": None}
    for clip in (shipped, OpenCLIP("ViT-g-14", "laion2b_s34b_b88k")):
        assert asdict_of(OpenCLIP.from_config(clip.config)) == asdict_of(clip)


def asdict_of(clip: OpenCLIP) -> tuple[str, str | None]:
    return clip.name, clip.tag
