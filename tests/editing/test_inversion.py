"""DDIM inversion: the way back, exactly where the noise is known; and what is kept of it."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from helpers.editing import PICTURE, SOURCE, editor
from torch import Tensor

from clockwork.adaptors import History
from clockwork.editing.inversion import LatentsOnDisk, inverse_solver, invert, read_latents, save_latents, timesteps
from clockwork.sampling.denoisers import Denoised
from clockwork.sampling.rollout import rollout
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition, Teacher


class Constant:
    """A denoiser whose output does not look at the sample: DDIM and its inverse are then each other's inverse."""

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        output = torch.linspace(-1, 1, sample.numel()).reshape(sample.shape)
        return Denoised(output, output, output, output, full=True)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_inversion_goes_the_way_back(spacing: str) -> None:
    """The timesteps in reverse, and with the noise known the source again: exactly, whatever the step count."""
    schedule = dict(DDIMScheduler(beta_schedule="scaled_linear", set_alpha_to_one=False, steps_offset=1).config)
    schedule |= {"timestep_spacing": spacing, "prediction_type": "epsilon"}
    there, back = (make_solver(name, schedule) for name in ("ddim_inverse", "ddim"))
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = Condition(torch.zeros(1, 1, 1))
    inverted = list(rollout(Constant(), there, 20, x, condition))
    again = list(rollout(Constant(), back, 20, inverted[-1].latents, condition))
    assert [int(r.timestep) for r in again] == [int(r.timestep) for r in inverted][::-1]
    assert all(len(r.denoised.output) == 1 for r in inverted)  # no guidance: the batch stays single
    assert torch.allclose(again[-1].latents, x, atol=1e-5)
    for before, after in zip(inverted[-2::-1], again, strict=False):
        assert torch.allclose(before.latents, after.latents, atol=1e-4)


def test_more_steps_of_inversion_reconstruct_better(teacher: Teacher) -> None:
    errors = []
    for steps in (2, 6, 18):
        ours = editor(teacher, steps, steps)
        again = ours.reconstruct(ours.invert(PICTURE, SOURCE.caption), SOURCE.caption)
        errors.append(float((again.float() - PICTURE.float()).square().mean()))
    assert errors[0] > errors[1] > errors[2]


def test_as_many_steps_as_timesteps(teacher: Teacher) -> None:
    """SD v1.5's `leading` timesteps are offset by one, so that a thousand of them would end at 1000."""
    pipe = copy.copy(teacher.pipe)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading", steps_offset=1)
    ours = editor(Teacher("leading", pipe), 1000, 50)
    assert timesteps(inverse_solver(ours.inversion), 1000) == list(range(1000))
    assert ours.visited == list(range(981, 0, -20))
    for steps in (50, 100, 200, 500):  # the paper's
        editor(Teacher("leading", pipe), steps, 50)


def test_more_generation_than_inversion_is_refused(teacher: Teacher) -> None:
    for inversion, generation in ((4, 8), (20, 50), (10, 4)):
        with pytest.raises(ValueError, match=f"{generation} generation steps .* {inversion} inversion steps"):
            editor(teacher, inversion, generation)


def test_latents_on_disk(teacher: Teacher, tmp_path: Path) -> None:
    sampler = editor(teacher, 4, 2).inversion
    latents = invert(sampler, teacher.encode_images(PICTURE[None]), SOURCE.caption)
    assert list(latents) == timesteps(inverse_solver(sampler), 4)
    save_latents(tmp_path / "kept" / "a.safetensors", latents)
    kept = LatentsOnDisk(tmp_path / "kept" / "a.safetensors")
    assert list(kept) == list(latents) and len(kept) == 4
    assert all(torch.equal(kept[t], latents[t]) for t in kept)
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_damaged_latents_are_not_taken(share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.safetensors"
    assert read_latents(file) is None
    save_latents(file, {1: torch.ones(1, 4, 2, 2), 21: torch.zeros(1, 4, 2, 2)})
    kept = read_latents(file)
    assert kept is not None and list(kept) == [1, 21]
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert read_latents(file) is None and "is inverted again" in capsys.readouterr().out
