"""Procedurally generated images with captions: unlimited training data without files or licences.

A scene has one to three objects (eight shapes, ten colours, three sizes, four textures) in a position or relation that
the caption names, on a plain, gradient or striped background. The caption describes the scene completely.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clockwork.miniature.shapes import SHAPES, TEXTURES, Array, pattern_colour, texture_mask

IMAGE_SIZE = 32  # width and height of an image in pixels
SUPERSAMPLE = 2  # samples per pixel and axis when a scene is rendered
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 80, 225),
    "yellow": (245, 215, 50),
    "orange": (245, 140, 30),
    "purple": (140, 60, 180),
    "pink": (250, 150, 190),
    "cyan": (60, 210, 220),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
BACKGROUNDS = ("plain", "gradient", "striped")
# Centre of a single object: x to the right and y down, from −1 to 1 across the image.
POSITIONS = {
    "in the center": (0.0, 0.0),
    "on the left": (-0.4, 0.0),
    "on the right": (0.4, 0.0),
    "at the top": (0.0, -0.4),
    "at the bottom": (0.0, 0.4),
}
# Direction from the image centre to the first object; the others are on the opposite side.
RELATIONS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}


# Radius in pixels of a small, medium and large object, by the number of objects in the scene.
RADII = {1: (7.0, 9.0, 11.5), 2: (5.0, 6.2, 7.5), 3: (4.6, 5.6, 6.8)}
DISTANCE = 0.45  # of the objects from the image centre, in units of half the image


@dataclass(frozen=True)
class SceneObject:
    """One shape in a scene.

    Attributes:
        shape: A key of `SHAPES`.
        colour: A key of `COLOURS`.
        size: `large`, `small`, or an empty string for medium.
        texture: One of `TEXTURES`.
        x: Horizontal centre, from −1 (left) to 1 (right).
        y: Vertical centre, from −1 (top) to 1 (bottom).
        radius: Radius in pixels.
    """

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float

    @property
    def caption(self) -> str:
        """Description such as `a large striped red circle`."""
        words = " ".join(w for w in (self.size, self.texture, self.colour, self.shape) if w)
        return f"an {words}" if words[0] in "aeiou" else f"a {words}"


@dataclass(frozen=True)
class Scene:
    """Everything that is visible in an image.

    Attributes:
        objects: One to three objects.
        relation: A key of `POSITIONS` for one object, or of `RELATIONS` for several.
        background: One of `BACKGROUNDS`.
        background_colour: A key of `COLOURS`.
    """

    objects: tuple[SceneObject, ...]
    relation: str
    background: str
    background_colour: str

    @property
    def caption(self) -> str:
        """Description such as `a red circle above a small blue star on a plain green background`."""
        first, *others = (obj.caption for obj in self.objects)
        objects = f"{first} {self.relation} {' and '.join(others)}".strip()
        return f"{objects} on a {self.background} {self.background_colour} background"

    def recoloured(self, colour: str) -> "Scene":
        """Changes the colour of the first object: an edit with a known ground truth.

        Args:
            colour: A key of `COLOURS`.

        Returns:
            The edited scene.
        """
        return replace(self, objects=(replace(self.objects[0], colour=colour), *self.objects[1:]))


def sample_scene(split: str, index: int) -> Scene:
    """Samples a scene. The same arguments always give the same scene.

    Args:
        split: `train`, `validation` or `test`.
        index: Index of the scene in its split.

    Returns:
        The scene.
    """
    rng = random.Random(f"{split}/{index}")
    count = rng.choices((1, 2, 3), (0.6, 0.3, 0.1))[0]
    *colours, background_colour = rng.sample(list(COLOURS), count + 1)
    relation, centres = _sample_layout(rng, count)
    pairs = zip(centres, colours, strict=True)
    objects = tuple(_sample_object(rng, centre, colour, RADII[count]) for centre, colour in pairs)
    return Scene(objects, relation, rng.choice(BACKGROUNDS), background_colour)


def _sample_layout(rng: random.Random, count: int) -> tuple[str, list[tuple[float, float]]]:
    """Samples a position (one object) or relation (several), and returns it with the centres of the objects."""
    if count == 1:
        position, centre = rng.choice(list(POSITIONS.items()))
        return position, [centre]
    relation, (dx, dy) = rng.choice(list(RELATIONS.items()))
    first, (x, y) = (dx * DISTANCE, dy * DISTANCE), (-dx * DISTANCE, -dy * DISTANCE)
    if count == 2:
        return relation, [first, (x, y)]
    # The second and third are next to each other, perpendicular to the relation.
    offset_x, offset_y = abs(dy) * DISTANCE, abs(dx) * DISTANCE
    return relation, [first, (x - offset_x, y - offset_y), (x + offset_x, y + offset_y)]


def _sample_object(rng: random.Random, centre: tuple[float, float], colour: str, radii: Sequence[float]) -> SceneObject:
    """Samples size, texture and shape of an object, and moves it a little within the image."""
    size = rng.randrange(3)
    limit = 1 - radii[size] / (IMAGE_SIZE / 2)  # the border must not cut it off
    x, y = (min(max(c + rng.uniform(-0.06, 0.06), -limit), limit) for c in centre)
    texture = rng.choices(TEXTURES, (0.49, 0.17, 0.17, 0.17))[0]
    shape = rng.choice(list(SHAPES))
    return SceneObject(shape, colour, ("small", "", "large")[size], texture, x, y, radii[size])


def _background(kind: str, colour: Array, x: Array, y: Array) -> Array:
    """Returns the background's colours, `height × width × 3`, at coordinates from −1 to 1."""
    if kind == "gradient":
        shade = 1.1 - 0.75 * (y + 1) / 2
        return (colour[None, None] + 25 * (colour.mean() < 60)) * shade[..., None]
    if kind == "striped":
        light = ((x + 1) * IMAGE_SIZE / 2 % 8 < 4)[..., None]
        return np.where(light, colour, colour * 0.7 + 20)
    return np.broadcast_to(colour, (*x.shape, 3))


def render(scene: Scene) -> NDArray[np.uint8]:
    """Renders a scene.

    Args:
        scene: The scene.

    Returns:
        An 8-bit image, `IMAGE_SIZE × IMAGE_SIZE × 3`.
    """
    side = IMAGE_SIZE * SUPERSAMPLE
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(axis, axis)
    canvas = _background(scene.background, np.array(COLOURS[scene.background_colour], float), x, y)
    for obj in scene.objects:
        px, py = (x - obj.x) * IMAGE_SIZE / 2, (y - obj.y) * IMAGE_SIZE / 2
        inside = SHAPES[obj.shape](px / obj.radius, -py / obj.radius)
        colour = np.array(COLOURS[obj.colour], float)
        fill = np.where(texture_mask(obj.texture, px, py)[..., None], pattern_colour(colour), colour)
        canvas = np.where(inside[..., None], fill, canvas)
    averaged = canvas.reshape(IMAGE_SIZE, SUPERSAMPLE, IMAGE_SIZE, SUPERSAMPLE, 3).mean((1, 3))
    return np.clip(averaged.round(), 0, 255).astype(np.uint8)


def render_batch(split: str, start: int, count: int) -> tuple[list[str], Tensor]:
    """Renders consecutive scenes of a split.

    Args:
        split: `train`, `validation` or `test`.
        start: Index of the first scene.
        count: Number of scenes.

    Returns:
        The captions, and the images in [−1, 1], `count × 3 × IMAGE_SIZE × IMAGE_SIZE`.
    """
    scenes = [sample_scene(split, i) for i in range(start, start + count)]
    pixels = torch.from_numpy(np.stack([render(s) for s in scenes]))
    return [s.caption for s in scenes], pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
