"""The miniature's scenes as prompts and as captioned images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clockwork.data.captioned_images import CaptionedImage
from clockwork.data.prompts import Prompt
from clockwork.miniature import scenes


@dataclass(frozen=True)
class SceneImage(CaptionedImage):
    """A scene, rendered when it is read.

    Attributes:
        split: Split of the scene; `id` is its index.
    """

    split: str

    @property
    def source(self) -> str:
        """The split."""
        return self.split

    def read(self) -> Tensor:
        """Renders the scene."""
        return torch.from_numpy(scenes.render(scenes.sample_scene(self.split, self.id))).permute(2, 0, 1)


def scene_prompts(split: str, count: int) -> list[Prompt]:
    """Returns the captions of scenes.

    Args:
        split: `train`, `validation` or `test`.
        count: Number of scenes, from the first.

    Returns:
        One prompt per scene; its id is the scene's index.
    """
    return [Prompt(i, scenes.sample_scene(split, i).caption) for i in range(count)]


def scene_images(split: str, count: int) -> list[CaptionedImage]:
    """Returns scenes with their captions.

    Args:
        split: `train`, `validation` or `test`.
        count: Number of scenes, from the first.

    Returns:
        One captioned image per scene.
    """
    return [SceneImage(i, scenes.sample_scene(split, i).caption, split) for i in range(count)]
