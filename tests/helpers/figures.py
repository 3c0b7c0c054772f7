"""What figures and grids of images show."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from torch import Tensor

from clockwork.data.image_files import read_image

Panels = dict[str, dict[str, list[list[float]]]]  # per title of the vertical axis, x and y of points by curve


@contextmanager
def saved_figures() -> Iterator[dict[str, Panels]]:
    """Collects what matplotlib draws into files inside the context, by file name."""
    figures: dict[str, Panels] = {}
    save = Figure.savefig

    def savefig(self: Figure, file: Path, **options: Any) -> None:
        panels = {
            axis.get_ylabel(): {str(line.get_label()): np.array(line.get_xydata()).tolist() for line in axis.lines}
            for axis in self.axes
        }
        # It is written under a temporary name.
        figures[file.name.rsplit(".", 2)[0]] = panels
        save(self, file, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield figures


def shows(file: Path, image: Tensor, scale: int = 2) -> bool:
    """Whether an image file shows an image somewhere, enlarged by whole pixels.

    Args:
        file: The image file.
        image: 8-bit image, `3 × height × width`.
        scale: Width of its pixels in the file.
    """
    sheet = read_image(file)
    part = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    (height, width), (rows, columns) = part.shape[1:], (sheet.shape[1] - part.shape[1], sheet.shape[2] - part.shape[2])
    middle = sheet[:, height // 2 : height // 2 + rows + 1, width // 2 : width // 2 + columns + 1]
    places = (middle == part[:, height // 2, width // 2, None, None]).all(0).nonzero().tolist()
    return any(bool((sheet[:, y : y + height, x : x + width] == part).all()) for y, x in places)
