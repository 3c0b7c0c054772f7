"""Prompts: an id and a text each. The id also seeds the prompt's noise."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clockwork.operating_point import digest


@dataclass(frozen=True)
class Prompt:
    id: int
    text: str


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    return digest([(prompt.id, prompt.text) for prompt in prompts])


def chunks(prompts: Sequence[Prompt], size: int) -> Iterator[Sequence[Prompt]]:
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]


def miniature(split: str, count: int) -> list[Prompt]:
    """The captions of the miniature's scenes."""
    from clockwork.miniature.scenes import scene

    return [Prompt(i, scene(split, i).caption) for i in range(count)]


def captions(path: str | Path, count: int | None = None) -> list[Prompt]:
    """A text file of one caption a line; empty lines are passed over."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no caption file at {path}: give prompts.path=<a text file, one caption a line>")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = [Prompt(i, line) for i, line in enumerate(line for line in lines if line)]
    if not found:
        raise ValueError(f"{path} holds no captions: write one a line")
    if count is not None and count > len(found):
        raise ValueError(f"{path} holds {len(found)} captions, fewer than the {count} asked for: lower the count")
    return found[:count]
