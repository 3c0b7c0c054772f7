"""The noise that LCM's solver adds on each step: one's own for each image, the same with and without a clock."""

import pytest
import torch
from diffusers import LCMScheduler
from helpers.models import small_teacher

from clockwork.adaptors import Identity
from clockwork.errors import UserError
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet

CAPTIONS = ["a red circle", "a star", "two squares"]


@pytest.fixture(scope="module")
def lcm() -> Teacher:
    scheduler = LCMScheduler(beta_start=0.00085, beta_end=0.012, steps_offset=1)
    return small_teacher("guided").with_components("lcm", scheduler=scheduler)


def sampler(lcm: Teacher, schedule: str = "full", steps: int = 4) -> Sampler:
    adaptor = None if schedule == "full" else Identity(feature_dims(lcm, "stage1"))
    return Sampler(lcm, SplitUNet(lcm.unet), Schedule.parse(schedule), "lcm", steps, 3.0, adaptor)


def test_an_image_has_its_own_noise(lcm: Teacher) -> None:
    noise, full = lcm.noise([1, 2, 3]), sampler(lcm)
    together = full.latents(CAPTIONS, noise)
    alone = torch.cat([full.latents([text], noise[i : i + 1]) for i, text in enumerate(CAPTIONS)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_a_clock_does_not_change_the_noise(lcm: Teacher) -> None:
    """Up to the first adaptor step, the last one of four, both roll-outs are equal bit by bit."""
    noise = lcm.noise([1, 2, 3])
    full, clocked = ([r.latents for r in sampler(lcm, s).rollout(CAPTIONS, noise)] for s in ("full", "4"))
    assert all(torch.equal(a, b) for a, b in zip(full[:3], clocked[:3], strict=True))
    assert not torch.equal(full[3], clocked[3])


def test_more_steps_than_the_grid_has_are_refused(lcm: Teacher) -> None:
    with pytest.raises(UserError, match="at most 50 steps, not 51"):
        sampler(lcm, steps=51)
