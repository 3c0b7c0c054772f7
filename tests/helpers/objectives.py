"""Prompts and a sampler for the objectives."""

from clockwork.adaptors import ResNet
from clockwork.miniature.prompts import scene_prompts
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet

PROMPTS = scene_prompts("train", 3)


def sampler(teacher: Teacher, solver: str = "dpm++", steps: int = 4, schedule: str = "full") -> Sampler:
    adaptor = None if schedule == "full" else ResNet(feature_dims(teacher, "stage1"), 16, 1)
    made = SplitUNet(teacher.unet)
    return Sampler(teacher, made, Schedule.parse(schedule), solver, steps, teacher.guidance, adaptor, "resnet")
