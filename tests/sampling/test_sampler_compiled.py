"""A teacher whose roll-outs are compiled: the same latents, and rows of its own."""

from collections.abc import Callable

import pytest
import torch
from helpers.editing import editor
from helpers.models import small_teacher
from hydra import initialize_config_dir
from hydra.utils import instantiate

from clockwork.adaptors import Identity
from clockwork.analysis.drift import drift
from clockwork.analysis.perturbation import Perturbation
from clockwork.errors import UserError
from clockwork.experiments.build import make_sampler
from clockwork.experiments.config_files import FOLDER
from clockwork.experiments.configs import compose_config
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.unet.split import SplitUNet


@pytest.mark.slow
def test_a_compiled_teacher_samples_the_same_latents() -> None:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        configs = [
            compose_config("evaluate", ["schedule=clock2", "steps=2", "adaptor=identity", f"teacher.compile={value}"])
            for value in ("false", "{backend: eager}")
        ]
    samplers = [make_sampler(cfg, instantiate(cfg.teacher), Identity(), "identity") for cfg in configs]
    noise = samplers[0].teacher.noise([0, 1], 0)
    latents = [sampler.latents(["a red circle", "a green star"], noise) for sampler in samplers]
    assert torch.equal(*latents)
    identities = [sampler.identity() for sampler in samplers]
    assert "compile" not in identities[0] and identities[1]["compile"] == "{'backend': 'eager'}"


def sampler_with(compile: object) -> Sampler:
    teacher = small_teacher("efficient", guidance=1.0, compile=compile)
    return Sampler(teacher, SplitUNet(teacher.unet), Schedule(), "ddim", 2, 1.0)


USES: dict[str, Callable[[], object]] = {
    "editing": lambda: editor(sampler_with({"backend": "eager"}).teacher),
    "drift": lambda: drift(sampler_with({"backend": "eager"}), [], ["stage1"]),
    "perturbation": lambda: Perturbation.each(sampler_with({"backend": "eager"}), "bottleneck", [0], 0.5),
}


@pytest.mark.parametrize("task", USES)
def test_what_changes_hooks_on_every_step_is_not_compiled(task: str) -> None:
    with pytest.raises(UserError, match=f"^{task} .*teacher.compile=false"):
        USES[task]()


def test_a_mistake_is_told_when_the_operating_point_is_built() -> None:
    with pytest.raises(UserError, match="Unrecognized mode=fastest"):
        sampler_with({"mode": "fastest"})


@pytest.mark.parametrize(
    ("command", "override", "message"),
    [
        ("bench", "compile=[{mode:fastest}]", r"compile\[0\].mode=fastest .* one of default, reduce-overhead"),
        ("evaluate", "teacher.compile={modes:default}", "did you mean teacher.compile.mode?"),
        ("train", "teacher.compile=fast", "use true or false"),
    ],
)
def test_a_mistake_in_a_config_is_told_before_anything_is_loaded(command: str, override: str, message: str) -> None:
    with initialize_config_dir(str(FOLDER), version_base="1.3"), pytest.raises(UserError, match=message):
        compose_config(command, [override])
