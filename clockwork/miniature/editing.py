"""The miniature's editing benchmark: the first object of a scene changes its colour, so the ground truth is known."""

from functools import partial

import torch
from torch import Tensor

from clockwork.editing.benchmark import EditPair
from clockwork.miniature import scenes
from clockwork.teachers import Teacher


def scene_pairs(teacher: Teacher, count: int, split: str = "test") -> list[EditPair]:
    """Creates the benchmark: "a red circle …" becomes "a blue circle …".

    Args:
        teacher: Not used; benchmarks are called with the teacher.
        count: Number of scenes.
        split: Split of the scenes.

    Returns:
        One pair per scene.
    """
    pairs = []
    for index in range(count):
        scene = scenes.sample_scene(split, index)
        used = {scene.background_colour, *(shape.colour for shape in scene.objects)}
        unused = [colour for colour in scenes.COLOURS if colour not in used]
        edited = scene.recoloured(unused[index % len(unused)])
        name = f"{split}-{index}"
        pairs.append(
            EditPair(name, name, scene.caption, edited.caption, partial(_render, scene), partial(_render, edited))
        )
    return pairs


def _render(scene: scenes.Scene) -> Tensor:
    """Renders a scene, 8-bit, `3 × height × width`."""
    return torch.from_numpy(scenes.render(scene)).permute(2, 0, 1)
