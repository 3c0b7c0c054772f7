"""A linear adaptor with random maps for a teacher, which reads all of the past."""

from collections.abc import Sequence

import torch

from clockwork.adaptors import FeatureDims, Linear
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet


def random_linear(dims: FeatureDims, steps: Sequence[int], scale: float = 0.01, joint: bool = False) -> Linear:
    """With small maps, so that the estimate is near `r_out_prev`."""
    torch.manual_seed(0)
    adaptor = Linear(dims, steps, joint=joint)
    for weight in adaptor.parameters():
        torch.nn.init.normal_(weight, std=scale)
    return adaptor.requires_grad_(False)


def linear_sampler(
    teacher: Teacher, schedule: str = "clock2", steps: int = 4, guidance: float = 3.0, joint: bool = False
) -> Sampler:
    """An operating point with such an adaptor, which knows its point."""
    clock = Schedule.parse(schedule)
    adaptor = random_linear(feature_dims(teacher, "stage1"), clock.adaptor_steps(steps), joint=joint)
    sampler = Sampler(teacher, SplitUNet(teacher.unet), clock, "dpm++", steps, guidance, adaptor, "linear")
    adaptor.point = sampler.point
    return sampler
