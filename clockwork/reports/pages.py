"""HTML pages of this folder's templates."""

from pathlib import Path
from typing import Any

from clockwork.io.outputs import check_outputs, write_output


def page_template(name: str) -> Any:
    """Loads a jinja template of this folder.

    Args:
        name: Name of the file.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("clockwork.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def write_page(file: Path, page: str) -> None:
    """Writes a page of one of this folder's templates, atomically.

    Args:
        file: The file to write.
        page: The page.

    Raises:
        UserError: A file of something else is there.
    """
    with write_output(file) as partial:
        partial.write_text(page, encoding="utf-8")


def check_page(file: Path) -> None:
    """Checks that writing a page replaces nothing but a page.

    Args:
        file: The file to write.

    Raises:
        UserError: A file of something else is there.
    """
    check_outputs(file.parent, file.name)
