"""Benchmarks of editing: pictures with what they show and what they shall show.

ImageNet-R-TI2I and Wild-TI2I, real and fake, come as one yaml format (arXiv 2211.12572); the miniature's are scenes
whose first thing gets another colour, so that the right answer is known.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml
from torch import Tensor

from clockwork.editing.edit import read_picture
from clockwork.errors import MissingFileError, UserError
from clockwork.io.fingerprint import digest
from clockwork.miniature import scenes as drawn
from clockwork.sampling.sampler import Setup
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet


@dataclass(frozen=True)
class Pair:
    """An edit to be made; the pairs of one picture lie side by side."""

    id: str  # also its file's name
    picture_id: str
    source: str
    target: str
    picture: Callable[[], Tensor]  # 8 bits, 3 × height × width
    right: Callable[[], Tensor] | None = None  # where the right answer is known


def pairs_hash(pairs: Sequence[Pair]) -> str:
    """Of prompts and pictures; reads every picture, so that one that can't be read is found before work begins."""
    first = {pair.picture_id: pair for pair in pairs}
    pictures = {name: hashlib.sha256(pair.picture().numpy().tobytes()).hexdigest() for name, pair in first.items()}
    return digest([(pair.id, pair.source, pair.target, pictures[pair.picture_id]) for pair in pairs])


def scenes(teacher: Teacher, count: int, split: str = "test") -> list[Pair]:
    """The miniature's: "a red circle …" → "a blue circle …"."""
    pairs = []
    for index in range(count):
        scene = drawn.scene(split, index)
        used = {scene.background_colour, *(thing.colour for thing in scene.things)}
        free = [colour for colour in drawn.COLOURS if colour not in used]
        edited = scene.recoloured(free[index % len(free)])
        name = f"{split}-{index}"
        pairs.append(Pair(name, name, scene.caption, edited.caption, partial(_draw, scene), partial(_draw, edited)))
    return pairs


def _draw(scene: drawn.Scene) -> Tensor:
    return torch.from_numpy(drawn.draw(scene)).permute(2, 0, 1)


def ti2i(teacher: Teacher, file: str, images: str, source_prompt: str | None = None) -> list[Pair]:
    """The pairs of a yaml file, whose `init_img` are looked for beneath `images`, by as much of their path as is there.

    An entry without `source_prompt` gets "a <style> of a <class>" from `<class>/<style>_<number>.jpg`, else the
    argument; one without `init_img` gets the picture that its prompt names so, or, with a `seed`, the teacher's own
    (the fake sets): `scale` is its guidance, by `ddim_steps` DDIM steps. Pictures of another size are brought to the
    teacher's by their middle square.
    """
    for path, what in ((Path(file), "benchmark file"), (Path(images), "folder of pictures")):
        if not path.exists():
            raise MissingFileError(f"no {what} at {path}: give benchmark.file and benchmark.images")
    try:
        entries = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file} is no yaml that can be read: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{file} holds no list of entries with target_prompts")
    pairs = []
    for number, entry in enumerate(entries, 1):
        try:
            pairs += _pairs(teacher, f"{number:03}", entry, Path(images), source_prompt)
        except ValueError as error:
            raise UserError(f"{Path(file).name}, entry {number} ({_name(entry)}): {error}") from error
    return pairs


def _pairs(teacher: Teacher, number: str, entry: Any, images: Path, source_prompt: str | None) -> list[Pair]:
    if not isinstance(entry, dict):
        raise UserError("not a mapping with target_prompts")
    targets = entry.get("target_prompts")
    if not isinstance(targets, list) or not targets:
        raise UserError("no target_prompts: list at least one")
    for text in (*targets, *([entry["source_prompt"]] if "source_prompt" in entry else [])):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"prompt {text!r} is no text: write one")
    source = entry.get("source_prompt")
    if "init_img" not in entry and "seed" in entry:
        if source is None:
            raise UserError("a picture to be made from a seed needs its source_prompt")
        picture: Callable[[], Tensor] = cache(partial(_paint, teacher, source, entry))
    else:
        file = _file(images, entry)
        source = source or _derived(file) or source_prompt
        if source is None:
            raise UserError("no source_prompt, and the file's name tells none: add it, or say benchmark.source_prompt")
        picture = cache(partial(read_picture, file, teacher.resolution))  # once, and so is its notice
    return [Pair(f"{number}-{i}", number, source, target, picture) for i, target in enumerate(targets, 1)]


def _file(images: Path, entry: Mapping[str, Any]) -> Path:
    """Of an entry's picture: by its path, or as its source prompt names it."""
    if isinstance(entry.get("init_img"), str):
        parts = PurePosixPath(entry["init_img"]).parts
        for start in range(len(parts)):
            if (found := images.joinpath(*parts[start:])).is_file() and parts[start] != "/":
                return found
        if len(parts) > 1 and not (images / parts[-2]).is_dir():
            known = ", ".join(sorted(folder.name for folder in images.iterdir() if folder.is_dir())) or "no folder"
            raise UserError(f"unknown class {parts[-2]!r}: {images} has {known}")
        raise UserError(f"no such picture beneath {images}")
    named = re.fullmatch(r"an? (\S+) of an? (.+)", entry.get("source_prompt") or "")
    if named is None:
        raise UserError('no init_img, and no source_prompt such as "a cartoon of a panda" to find the picture by')
    fitting = sorted((images / named[2].replace(" ", "_")).glob(f"{named[1]}_*"))
    if len(fitting) != 1:
        raise UserError(f"no init_img, and {len(fitting)} pictures {named[2]}/{named[1]}_* beneath {images}: name one")
    return fitting[0]


def _derived(file: Path) -> str | None:
    """ "a sketch of a penguin" for penguin/sketch_8.jpg (Table 7's "a <style> of an <instance>")."""
    style = re.fullmatch(r"(.+)_\d+", file.stem)
    return None if style is None else f"{_article(style[1])} of {_article(file.parent.name)}".replace("_", " ")


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _paint(teacher: Teacher, prompt: str, entry: Mapping[str, Any]) -> Tensor:
    steps, scale = int(entry.get("ddim_steps", 50)), float(entry.get("scale", 7.5))
    setup = Setup(teacher, SplitUNet(teacher.unet), Schedule(), "ddim", steps, scale)
    return teacher.decode(setup.latents([prompt], teacher.noise([0], int(entry["seed"]))))[0]


def _name(entry: Any) -> str:
    given = entry if isinstance(entry, dict) else {}
    return str(given.get("init_img") or given.get("source_prompt") or "without a name")
