"""Captioned scenes drawn from a seed: unlimited training data with no files and no licence.

A scene is one to three *things* (eight shapes, ten colours, two spoken sizes, three textures) in a stated
position or relation, on a plain, gradient or striped background. Its caption says all that is to be seen.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

SIZE = 32  # pixels a side
SUPERSAMPLE = 2
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
TEXTURES = ("", "striped", "dotted", "checkered")
BACKGROUNDS = ("plain", "gradient", "striped")
# Where the things of a scene lie, in units of half the picture, x to the right and y down.
POSITIONS = {
    "in the center": (0.0, 0.0),
    "on the left": (-0.4, 0.0),
    "on the right": (0.4, 0.0),
    "at the top": (0.0, -0.4),
    "at the bottom": (0.0, 0.4),
}
RELATIONS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}


@dataclass(frozen=True)
class Thing:
    shape: str
    colour: str
    size: str  # "large", "small" or "" for in between
    texture: str
    x: float  # centre, in [-1, 1]
    y: float
    radius: float  # pixels

    @property
    def caption(self) -> str:
        words = " ".join(w for w in (self.size, self.texture, self.colour, self.shape) if w)
        return f"an {words}" if words[0] in "aeiou" else f"a {words}"


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    relation: str  # a key of POSITIONS for one thing, of RELATIONS for more
    background: str
    background_colour: str

    @property
    def caption(self) -> str:
        first, *rest = (thing.caption for thing in self.things)
        what = f"{first} {self.relation} {' and '.join(rest)}".strip()
        return f"{what} on a {self.background} {self.background_colour} background"

    def recoloured(self, colour: str) -> "Scene":
        """The same scene with its first thing in another colour: an edit whose right answer is known."""
        return replace(self, things=(replace(self.things[0], colour=colour), *self.things[1:]))


def scene(split: str, index: int) -> Scene:
    """The `index`-th scene of a split ("train", "validation", "test"): always the same one."""
    rng = random.Random(f"{split}/{index}")
    count = rng.choices((1, 2, 3), (0.6, 0.3, 0.1))[0]
    *colours, background_colour = rng.sample(list(COLOURS), count + 1)
    if count == 1:
        relation, centre = rng.choice(list(POSITIONS.items()))
        centres = [centre]
    else:
        relation, (dx, dy) = rng.choice(list(RELATIONS.items()))
        apart = 0.45
        first, opposite = (dx * apart, dy * apart), (-dx * apart, -dy * apart)
        if count == 2:
            centres = [first, opposite]
        else:  # the second and third side by side, left to right or top to bottom
            aside = (abs(dy) * apart, abs(dx) * apart)
            centres = [
                first,
                (opposite[0] - aside[0], opposite[1] - aside[1]),
                (opposite[0] + aside[0], opposite[1] + aside[1]),
            ]
    radii = {1: (7.0, 9.0, 11.5), 2: (5.0, 6.2, 7.5), 3: (4.6, 5.6, 6.8)}[count]
    things = []
    for (x, y), colour in zip(centres, colours, strict=True):
        size = rng.randrange(3)
        room = 1 - radii[size] / (SIZE / 2)  # nothing is cut off by the border
        x, y = (min(max(c + rng.uniform(-0.06, 0.06), -room), room) for c in (x, y))
        texture = rng.choices(TEXTURES, (0.49, 0.17, 0.17, 0.17))[0]
        shape = rng.choice(list(SHAPES))
        things.append(Thing(shape, colour, ("small", "", "large")[size], texture, x, y, radii[size]))
    return Scene(tuple(things), relation, rng.choice(BACKGROUNDS), background_colour)


# --- drawing -----------------------------------------------------------------------------------------------


def _star(x: Array, y: Array) -> NDArray[np.bool_]:
    corner, inner = np.pi / 5, 0.42
    angle = np.abs((np.arctan2(x, y) + corner) % (2 * corner) - corner)
    u, v = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    # below the straight edge from the tip (1, 0) to the inner corner
    cx, cy = inner * np.cos(corner), inner * np.sin(corner)
    return (u - 1) * cy + v * (1 - cx) < 0


# Each takes coordinates in units of the radius, y up, and says which points lie inside.
SHAPES: dict[str, Callable[[Array, Array], NDArray[np.bool_]]] = {
    "circle": lambda x, y: x**2 + y**2 < 0.95,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.82,
    "triangle": lambda x, y: (y > -0.75) & (abs(x) < (0.95 - y) * 0.56),
    "diamond": lambda x, y: abs(x) + abs(y) < 1.05,
    "star": _star,
    "heart": lambda x, y: ((1.2 * x) ** 2 + (1.15 * y + 0.1) ** 2 - 1) ** 3 < (1.2 * x) ** 2 * (1.15 * y + 0.1) ** 3,
    "ring": lambda x, y: (x**2 + y**2 < 0.98) & (x**2 + y**2 > 0.27),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 0.95),
}


def _second_colour(colour: Array) -> Array:
    """What a texture is drawn with: dark on light colours, light on dark ones."""
    return colour * 0.3 if colour.mean() > 110 else colour * 0.4 + 150


def _texture(kind: str, x: Array, y: Array) -> NDArray[np.bool_]:
    """Where the second colour goes; coordinates in pixels from the thing's centre."""
    if kind == "striped":
        return (y + 1) % 4 < 2
    if kind == "dotted":
        return ((x + 2) % 4 - 2) ** 2 + ((y + 2) % 4 - 2) ** 2 < 1.3
    if kind == "checkered":
        return ((x // 3).astype(int) + (y // 3).astype(int)) % 2 == 0
    return np.zeros_like(x, dtype=bool)


def _background(kind: str, colour: Array, x: Array, y: Array) -> Array:
    if kind == "gradient":
        shade = 1.1 - 0.75 * (y + 1) / 2
        return (colour[None, None] + 25 * (colour.mean() < 60)) * shade[..., None]
    if kind == "striped":
        light = ((x + 1) * SIZE / 2 % 8 < 4)[..., None]
        return np.where(light, colour, colour * 0.7 + 20)
    return np.broadcast_to(colour, (*x.shape, 3))


def draw(scene: Scene) -> NDArray[np.uint8]:
    """The picture of a scene: SIZE × SIZE × 3, 8 bits."""
    n = SIZE * SUPERSAMPLE
    axis = (np.arange(n) + 0.5) / n * 2 - 1
    x, y = np.meshgrid(axis, axis)
    canvas = _background(scene.background, np.array(COLOURS[scene.background_colour], float), x, y)
    for thing in scene.things:
        px, py = (x - thing.x) * SIZE / 2, (y - thing.y) * SIZE / 2
        inside = SHAPES[thing.shape](px / thing.radius, -py / thing.radius)
        colour = np.array(COLOURS[thing.colour], float)
        fill = np.where(_texture(thing.texture, px, py)[..., None], _second_colour(colour), colour)
        canvas = np.where(inside[..., None], fill, canvas)
    small = canvas.reshape(SIZE, SUPERSAMPLE, SIZE, SUPERSAMPLE, 3).mean((1, 3))
    return np.clip(small.round(), 0, 255).astype(np.uint8)


def batch(split: str, start: int, count: int) -> tuple[list[str], Tensor]:
    """Captions and pictures of scenes start … start + count − 1.

    Returns the captions and images `count × 3 × SIZE × SIZE` in [−1, 1].
    """
    scenes = [scene(split, i) for i in range(start, start + count)]
    pixels = torch.from_numpy(np.stack([draw(s) for s in scenes]))
    return [s.caption for s in scenes], pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
