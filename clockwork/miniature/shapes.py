"""The shapes and textures of the objects in a scene."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TEXTURES = ("", "striped", "dotted", "checkered")


def _star(x: Array, y: Array) -> NDArray[np.bool_]:
    """Tests whether points lie inside a five-pointed star with one tip at (0, 1)."""
    corner, inner = np.pi / 5, 0.42
    angle = np.abs((np.arctan2(x, y) + corner) % (2 * corner) - corner)
    u, v = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    # Inside means below the straight edge from the tip (1, 0) to the inner corner.
    cx, cy = inner * np.cos(corner), inner * np.sin(corner)
    return (u - 1) * cy + v * (1 - cx) < 0


# Tests whether points lie inside a shape; coordinates in units of the radius, with y up.
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


def pattern_colour(colour: Array) -> Array:
    """Returns the colour of a texture's pattern: darker on light colours, lighter on dark ones.

    Args:
        colour: Colour of the object, RGB from 0 to 255.

    Returns:
        Colour of the pattern, RGB from 0 to 255.
    """
    return colour * 0.3 if colour.mean() > 110 else colour * 0.4 + 150


def texture_mask(kind: str, x: Array, y: Array) -> NDArray[np.bool_]:
    """Tests which points have the pattern's colour.

    Args:
        kind: One of `TEXTURES`.
        x: Horizontal coordinates in pixels from the object's centre.
        y: Vertical coordinates of the same shape.

    Returns:
        A mask of the same shape.
    """
    if kind == "striped":
        return (y + 1) % 4 < 2
    if kind == "dotted":
        return ((x + 2) % 4 - 2) ** 2 + ((y + 2) % 4 - 2) ** 2 < 1.3
    if kind == "checkered":
        return ((x // 3).astype(int) + (y // 3).astype(int)) % 2 == 0
    return np.zeros_like(x, dtype=bool)
