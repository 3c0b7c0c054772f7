"""Prompts with ids, and prompts from caption files. A prompt's id also seeds its noise."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from clockwork.data.caption_files import read_captions
from clockwork.errors import UserError, check_whole
from clockwork.io.fingerprint import digest

Item = TypeVar("Item")
_Numbered = tuple[int, tuple[str, str | None]]  # position in the file, caption and category


@dataclass(frozen=True)
class Prompt:
    """A text with an id.

    Attributes:
        id: Number that is unique in a list of prompts. It seeds the prompt's noise.
        text: The text.
        category: By which reports split the figures; None if it has none. It changes no image and no hash.
    """

    id: int
    text: str
    category: str | None = field(default=None, kw_only=True)


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    """Computes the fingerprint of prompts, which depends on ids, texts and order.

    Args:
        prompts: The prompts.

    Returns:
        Twelve hexadecimal digits.
    """
    return digest([(prompt.id, prompt.text) for prompt in prompts])


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Cuts a sequence into consecutive parts.

    Args:
        items: The sequence.
        size: Length of each part; the last may be shorter.

    Yields:
        The parts, in order.
    """
    for start in range(0, len(items), size):
        yield items[start : start + size]


def captions(
    path: str | Path,
    count: int | None = None,
    column: str | None = None,
    sample: int | None = None,
    category: str | None = None,
    quotes: bool | None = None,
) -> list[Prompt]:
    """Reads prompts from a caption file, in one pass and without holding the whole file in memory.

    Args:
        path: A file that `read_captions` reads.
        count: Number of captions; all of them by default.
        column: Column of the captions; see `read_captions`.
        sample: Seed with which `count` captions are chosen at random; by default the first `count` are used.
        category: Column of the captions' categories; see `read_captions`.
        quotes: Whether fields of a csv or tsv file may be quoted; see `read_captions`.

    Returns:
        The prompts in the order of the file. A prompt's id is the position of its caption in the file, from 0.

    Raises:
        UserError: The file has no captions or fewer than `count`, or cannot be read (`read_captions`).
    """
    if count is not None:
        check_whole("prompts.count", count, 1)
    numbered: Iterable[_Numbered] = enumerate(read_captions(Path(path), column, category, quotes))
    if count is not None:
        numbered = _sampled(numbered, count, random.Random(sample)) if sample is not None else islice(numbered, count)
    prompts = [Prompt(i, text, category=group) for i, (text, group) in sorted(numbered, key=itemgetter(0))]
    if count is not None and count > len(prompts):
        raise UserError(f"{path} holds {len(prompts)} captions, fewer than the {count} asked for: lower prompts.count")
    return prompts


def _sampled(items: Iterable[_Numbered], count: int, rng: random.Random) -> list[_Numbered]:
    """Chooses `count` items, each equally likely, in one pass (reservoir sampling; Vitter 1985, algorithm R)."""
    reservoir: list[_Numbered] = []
    for index, item in enumerate(items):
        if index < count:
            reservoir.append(item)
        elif (slot := rng.randrange(index + 1)) < count:
            reservoir[slot] = item
    return reservoir
