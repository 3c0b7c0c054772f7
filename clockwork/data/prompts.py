"""Prompts: an id and a text each. The id also seeds the prompt's noise."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from clockwork.data.caption_files import read_captions
from clockwork.errors import UserError
from clockwork.io.fingerprint import digest

Item = TypeVar("Item")


@dataclass(frozen=True)
class Prompt:
    id: int
    text: str


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    return digest([(prompt.id, prompt.text) for prompt in prompts])


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def captions(
    path: str | Path, count: int | None = None, column: str | None = None, sample: int | None = None
) -> list[Prompt]:
    """The captions of a file (`captions.read_captions`): the first `count`, or with `sample` as a seed, a random
    `count` of them in the file's order, in one pass that never holds the whole file. A prompt's id is its place."""
    found: Iterable[tuple[int, str]] = enumerate(read_captions(Path(path), column))
    if count is not None:
        found = _sampled(found, count, random.Random(sample)) if sample is not None else islice(found, count)
    prompts = [Prompt(i, text) for i, text in sorted(found)]
    if count is not None and count > len(prompts):
        raise UserError(f"{path} holds {len(prompts)} captions, fewer than the {count} asked for: lower prompts.count")
    return prompts


def _sampled(items: Iterable[tuple[int, str]], count: int, rng: random.Random) -> list[tuple[int, str]]:
    """Reservoir sampling (Vitter 1985, algorithm R): every item equally likely, in one pass."""
    kept: list[tuple[int, str]] = []
    for seen, item in enumerate(items):
        if seen < count:
            kept.append(item)
        elif (place := rng.randrange(seen + 1)) < count:
            kept[place] = item
    return kept
