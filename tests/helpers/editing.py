"""An editor around a teacher, and a scene to edit."""

from dataclasses import replace
from typing import Any

import torch

from clockwork.adaptors import Adaptor, Identity
from clockwork.editing.edit import Editor
from clockwork.miniature import scenes
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet

SOURCE = scenes.sample_scene("test", 0)
PICTURE = torch.from_numpy(scenes.render(SOURCE)).permute(2, 0, 1)


def editor(
    teacher: Teacher,
    inversion: int = 8,
    generation: int = 4,
    clock: str = "full",
    adaptor: Adaptor | None = None,
    **settings: Any,
) -> Editor:
    """With a clock and no adaptor, the identity."""
    split = SplitUNet(teacher.unet)
    if clock != "full" and adaptor is None:
        adaptor = Identity(feature_dims(teacher, "stage1"))
    name = "none" if adaptor is None else adaptor.kind
    sampler = Sampler(teacher, split, Schedule.parse(clock), "ddim", generation, 3.0, adaptor, name)
    return Editor(replace(sampler, solver="ddim_inverse", steps=inversion, guidance=1.0), sampler, **settings)
