"""The menu of `clockwork.tune` as one HTML file, with the images side by side."""

from pathlib import Path

from torch import Tensor

from clockwork.pipeline.menu import COLUMNS, Menu
from clockwork.reports.html import image_url
from clockwork.reports.pages import page_template, write_page


def write_menu(menu: Menu, file: str | Path) -> Path:
    """Writes the menu as an HTML file that needs no others.

    Args:
        menu: The result of `clockwork.tune`.
        file: The file to write.

    Returns:
        The file.

    Raises:
        UserError: A file of something else is there.
    """
    without: tuple[str, ...] = ("", "no clock", "full", "100%", "100%", "100%", "0", "0", "")
    rows = [(without, _urls(menu.images))]
    rows += [(cells, _urls(entry.images)) for cells, entry in zip(menu.cells(), menu.entries, strict=True)]
    chosen = None if menu.chosen is None else menu.entries.index(menu.chosen) + 1
    page = page_template("menu.html.jinja").render(columns=COLUMNS, prompts=menu.prompts, rows=rows, chosen=chosen)
    file = Path(file)
    write_page(file, page)
    return file


def _urls(images: Tensor) -> list[str]:
    """Encodes 8-bit images, or videos, as data URLs."""
    from PIL import Image

    videos = images if images.dim() == 5 else images[:, None]
    return [image_url(*(Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in video)) for video in videos]
