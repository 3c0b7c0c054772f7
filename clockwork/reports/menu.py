"""The menu of `clockwork.tune` as one HTML file, with the images side by side."""

import base64
import io
from pathlib import Path

from torch import Tensor

from clockwork.io.atomic import atomic_write
from clockwork.pipeline.menu import COLUMNS, Menu
from clockwork.reports.html import SIDE, page_template


def write_menu(menu: Menu, file: str | Path) -> Path:
    """Writes the menu as an HTML file that needs no others.

    Args:
        menu: The result of `clockwork.tune`.
        file: The file to write.

    Returns:
        The file.
    """
    without: tuple[str, ...] = ("", "no clock", "full", "100%", "100%", "100%", "0", "0", "")
    rows = [(without, _urls(menu.images))]
    rows += [(cells, _urls(entry.images)) for cells, entry in zip(menu.cells(), menu.entries, strict=True)]
    chosen = None if menu.chosen is None else menu.entries.index(menu.chosen) + 1
    page = page_template("menu.html.jinja").render(columns=COLUMNS, prompts=menu.prompts, rows=rows, chosen=chosen)
    file = Path(file)
    with atomic_write(file) as partial:
        partial.write_text(page, encoding="utf-8")
    return file


def _urls(images: Tensor) -> list[str]:
    """Encodes 8-bit images as data URLs, of at most `SIDE` pixels."""
    from PIL import Image

    urls = []
    for pixels in images:
        image, content = Image.fromarray(pixels.permute(1, 2, 0).numpy()), io.BytesIO()
        kind = "PNG" if max(image.size) <= SIDE else "WEBP"
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        image.save(content, kind)
        urls.append(f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}")
    return urls
