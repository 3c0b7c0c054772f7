"""Builds the pages that have no file of their own: the home page from README.md, the API reference from docstrings."""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent


def on_config(config: MkDocsConfig) -> None:
    """Adds one reference page per room to the navigation."""
    pages = [{room: f"reference/{room}.md"} for room in rooms()]
    nav: list[Any] = [*(config.nav or []), {"API reference": pages}]
    config.nav = nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    home = re.sub(r"\]\((notebooks/|CITATION\.cff|CONTRIBUTING\.md|CHANGELOG\.md)\)", "]", readme)
    files.append(File.generated(config, "index.md", content=re.sub(r"\]\(docs/", "](", home)))
    for room, modules in rooms().items():
        parts = [f"# clockwork.{room}", *(f"::: {module}" for module in modules)]
        files.append(File.generated(config, f"reference/{room}.md", content="\n\n".join(parts) + "\n"))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """README.md is the home page here."""
    return markdown.replace("](../README.md", "](index.md")


def rooms() -> dict[str, list[str]]:
    """The package's rooms, each with its modules that define something public."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "clockwork").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if any(part.startswith("_") for part in parts) or not _defines_public_names(file):
            continue
        room = parts[1] if len(parts) > 2 else "core"
        found.setdefault(room, []).append(".".join(parts))
    return found


def _defines_public_names(file: Path) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in ast.parse(file.read_text()).body)
