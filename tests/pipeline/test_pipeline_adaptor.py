"""Trained adaptors on pipelines: their operating point, and their teacher."""

import importlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pipelines import GIVEN, PROMPT, counts, generate, make, miniature_pipeline, reasons, steps

import clockwork
from clockwork.io.fingerprint import weights_hash
from clockwork.pipeline.enable import enabled_hook
from clockwork.sampling.rollout import rollout
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Teacher


def test_at_its_own_point_it_is_silent_and_the_rollout(teacher: Teacher, trained: Path) -> None:
    """The roll-out is handed the captions; the pipeline's are found behind its text features."""
    pipe = miniature_pipeline(teacher)
    noise = teacher.noise([0, 1])
    captions = [PROMPT, "a green star"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        clockwork.enable(pipe, adaptor=trained)
        ours = generate(pipe, **GIVEN, prompt=captions, latents=noise)
    assert steps(pipe) == "FaFa" and not reasons(pipe)
    adaptor, point = clockwork.load_adaptor(trained)
    denoiser = clockwork.ClockworkDenoiser(
        clockwork.SplitUNet(teacher.unet), adaptor, clockwork.Schedule.parse(point.schedule)
    )
    made = make_solver("dpm++", teacher.noise_schedule)
    *_, last = rollout(denoiser, made, 4, noise, teacher.encode(captions), teacher.encode([""]), 3.0)
    assert torch.allclose(last.latents, ours, atol=1e-4)  # the text is embedded in another batch: its last bit
    report = clockwork.summary(pipe)
    assert report.trained == point == report.ran and report.differences == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"steps": 6}, r"steps 6, not 4"),
        ({"guidance_scale": 5.0}, r"guidance 5\.0, not 3\.0"),
        ({"height": 48, "width": 48}, "resolution 48, not 32"),
        ({"height": 48, "width": 32}, "resolution 48 × 32, not 32"),
        ({"height": 32, "width": 48}, "resolution 32 × 48, not 32"),
        ({"guidance_rescale": 0.7}, r"guidance_rescale 0\.7, not 0\.0"),
        ({"timesteps": [900, 600, 300, 100]}, r"timesteps \[900\.0, 600\.0, 300\.0, 100\.0\], not those of the solver"),
    ],
)
def test_another_point_warns_once(arguments: dict[str, Any], said: str, teacher: Teacher, trained: Path) -> None:
    pipe = miniature_pipeline(teacher)
    clockwork.enable(pipe, adaptor=trained)
    with pytest.warns(UserWarning, match=said):
        generate(pipe, **{**GIVEN, **arguments})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        generate(pipe, **{**GIVEN, **arguments})
    assert clockwork.summary(pipe).differences


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"use_karras_sigmas": True}, "use_karras_sigmas True, not as by default"),
        ({"solver_order": 3}, "solver_order 3, not as by default"),
        ({"timestep_spacing": "linspace"}, "timestep_spacing"),
        ({"final_sigmas_type": "sigma_min"}, "final_sigmas_type sigma_min"),
        ({"beta_end": 0.03}, r"beta_end 0\.03"),
    ],
)
def test_other_settings_of_the_solver_warn(
    settings: dict[str, Any], warning: str, teacher: Teacher, trained: Path
) -> None:
    pipe = miniature_pipeline(teacher)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **settings)
    clockwork.enable(pipe, adaptor=trained)
    with pytest.warns(UserWarning, match=warning):
        generate(pipe, **GIVEN)
    [difference] = clockwork.summary(pipe).differences
    assert difference.startswith(warning.replace("\\", ""))


def test_settings_of_an_earlier_adaptor_are_not_known(
    teacher: Teacher, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its config has no `solver_settings`: nothing is said to agree that was not compared."""
    config = json.loads((trained / "config.json").read_text())
    del config["operating_point"]["solver_settings"]
    earlier = shutil.copytree(trained, tmp_path / "earlier")
    (earlier / "config.json").write_text(json.dumps(config))
    pipe = miniature_pipeline(teacher)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, use_karras_sigmas=True)
    clockwork.enable(pipe, adaptor=earlier)
    generate(pipe, **GIVEN)
    assert clockwork.summary(pipe).differences == []
    assert "the solver's settings were not compared" in capsys.readouterr().out


def test_another_schedule_and_solver_warn(teacher: Teacher, trained: Path) -> None:
    pipe = miniature_pipeline(teacher)
    pipe.scheduler = make_solver("ddim", teacher.noise_schedule)
    clockwork.enable(pipe, adaptor=trained, schedule="2,3")
    with pytest.warns(UserWarning, match=r"schedule 2,3, not clock2; solver ddim, not dpm\+\+"):
        generate(pipe, **GIVEN)


def test_another_teacher_is_refused_unless_forced(teacher: Teacher, trained: Path) -> None:
    pipe = miniature_pipeline(teacher)
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1.5)
    with pytest.raises(ValueError, match=r"trained for teacher miniature.*force=True"):
        clockwork.enable(pipe, adaptor=trained)
    clockwork.enable(pipe, adaptor=trained, force=True)
    with pytest.warns(UserWarning, match=f"teacher_hash {weights_hash(pipe.unet)}, not"):
        generate(pipe, **GIVEN)
    assert counts(pipe) == (2, 2)
    with pytest.raises(ValueError, match="at cut 0,1"):
        clockwork.enable(pipe, adaptor=trained, cut="layer1", force=True)
    other, _ = make()
    with pytest.raises(ValueError, match=r"unknown cut|at cut|choose the cut"):
        clockwork.enable(other, adaptor=trained, force=True)
        with pytest.warns(UserWarning):
            generate(other)


def test_the_teacher_is_fingerprinted_once(teacher: Teacher, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a trained adaptor is enabled, and never while images are generated."""
    hashed: list[Any] = []
    module = importlib.import_module("clockwork.pipeline.parts")
    monkeypatch.setattr(module, "weights_hash", lambda unet: hashed.append(unet) or teacher.hash)
    pipe = miniature_pipeline(teacher)
    clockwork.enable(pipe, adaptor=trained)
    generate(pipe, **GIVEN)
    generate(pipe, **GIVEN)
    clockwork.summary(pipe)
    assert hashed == [pipe.unet]


@pytest.mark.parametrize("kind", ["StableDiffusionPipeline", "StableDiffusionXLControlNetPipeline"])
@pytest.mark.parametrize("cut", ["stage1", "stage2"])
def test_the_identitys_cheapest_cut_gives_the_same_images(kind: str, cut: str) -> None:
    """Bit for bit, at fewer FLOPs. It is the default, in place of stage1."""
    pipe, arguments = make(kind)
    images, flops = [], []
    split = clockwork.SplitUNet(pipe.unet, cut)
    cheapest = split.cut.cheapest_for_identity(split.chain)
    for chosen in (cut, cheapest):
        clockwork.enable(pipe, "clock3", cut=chosen)
        images.append(generate(pipe, steps=5, **arguments))
        flops.append(clockwork.summary(pipe).flops.full)
    assert torch.equal(*images) and flops[1] < flops[0]
    if cut == "stage1":
        clockwork.enable(pipe, "clock3")
        assert enabled_hook(pipe).denoiser.split.cut == cheapest
