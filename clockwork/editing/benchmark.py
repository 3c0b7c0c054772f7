"""Benchmarks of editing: images with descriptions of what they show and of what their edits should show.

ImageNet-R-TI2I and Wild-TI2I, with real and fake images, share one YAML format (arXiv 2211.12572).
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from torch import Tensor

from clockwork.deprecated import renamed
from clockwork.editing.source_image import read_source_image
from clockwork.errors import MissingFileError, UserError
from clockwork.io import distributed
from clockwork.io.fingerprint import digest
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet

__getattr__ = renamed(__name__)

NUMBERED = r"(.+)_\d+"  # the name of an image of a class, without its ending


@dataclass(frozen=True)
class EditPair:
    """One edit to make. The pairs of an image are consecutive in a benchmark.

    Attributes:
        id: Identifier, which is also the name of the edited image's file.
        image_id: Identifier of the source image.
        source: Description of the source image.
        target: Description of the edited image.
        image: Returns the source image, 8-bit, `3 × height × width`.
        ground_truth: Returns the ground truth, 8-bit, `3 × height × width`; None if it is not known.
    """

    id: str
    image_id: str
    source: str
    target: str
    image: Callable[[], Tensor]
    ground_truth: Callable[[], Tensor] | None = None


def pairs_hash(pairs: Sequence[EditPair]) -> str:
    """Hashes the prompts and source images. It reads every image, so that errors occur before any work.

    Args:
        pairs: The pairs.

    Returns:
        A digest.
    """
    by_image = {pair.image_id: pair for pair in pairs}
    hashes = {name: hashlib.sha256(pair.image().numpy().tobytes()).hexdigest() for name, pair in by_image.items()}
    return digest([(pair.id, pair.source, pair.target, hashes[pair.image_id]) for pair in pairs])


def read_ti2i(teacher: Teacher, file: str, images: str, source_prompt: str | None = None) -> list[EditPair]:
    """Reads a benchmark in the YAML format of ImageNet-R-TI2I and Wild-TI2I.

    The file is a list of entries with `target_prompts` and these optional keys:

    - `init_img`: path of the source image. Leading folders that do not exist in `images` are ignored; if none of them
      exists, the only image of this name in `images` or a folder inside it is taken (Wild-TI2I's own files name folders
      of their authors). Without it, the image is found by the source prompt, or generated from `seed`.
    - `source_prompt`: description of the source image. Without it, `<class>/<style>_<number>.jpg` is described as "a
      <style> of a <class>".
    - `seed`, `scale`, `ddim_steps`: seed, guidance scale and DDIM steps with which the teacher generates the source
      image (the fake sets).

    Args:
        teacher: The teacher, at whose resolution images are read or generated. Others are cropped and resized.
        file: The YAML file.
        images: Folder of the source images.
        source_prompt: Description of images that have no other; Wild-TI2I's authors use the empty text.

    Returns:
        One pair per target prompt.

    Raises:
        MissingFileError: If the file or the folder does not exist.
        UserError: If the file or one of its entries is not valid.
    """
    entries = _read_entries(Path(file), Path(images))
    pairs = []
    for number, entry in enumerate(entries, 1):
        try:
            pairs += _pairs(teacher, f"{number:03}", entry, Path(images), source_prompt)
        except ValueError as error:
            raise UserError(f"{Path(file).name}, entry {number} ({_entry_name(entry)}): {error}") from error
    return pairs


def _read_entries(file: Path, images: Path) -> list[Any]:
    """Reads the list of entries."""
    for path, kind in ((file, "benchmark file"), (images, "image folder")):
        if not path.exists():
            raise MissingFileError(f"no {kind} at {path}: set benchmark.file and benchmark.images")
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{file} does not contain a list of entries: use a list of mappings with target_prompts")
    return entries


def _pairs(teacher: Teacher, number: str, entry: Any, images: Path, source_prompt: str | None) -> list[EditPair]:
    """Creates the pairs of an entry."""
    if not isinstance(entry, dict):
        raise UserError("the entry is not a mapping: use a mapping with target_prompts")
    targets = entry.get("target_prompts")
    if not isinstance(targets, list) or not targets:
        raise UserError("the entry has no target_prompts: add a list with at least one")
    for text in (*targets, *([entry["source_prompt"]] if "source_prompt" in entry else [])):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"prompt {text!r} is not a text: use a non-empty string")
    source = entry.get("source_prompt")
    if "init_img" not in entry and "seed" in entry:
        if source is None:
            raise UserError("the entry has a seed but no source_prompt: add one")
        image: Callable[[], Tensor] = cache(partial(_generate, teacher, source, entry))
    else:
        file = _image_file(images, entry)
        source = source or _derived_prompt(file) or source_prompt
        if source == "":
            distributed.print_once(f"{images}: images without a prompt are inverted with the empty one")
        if source is None:
            raise UserError(
                "the entry has no source_prompt, and it cannot be derived from the file's name: "
                "add one or set benchmark.source_prompt"
            )
        image = cache(partial(read_source_image, file, teacher.resolution))  # reads and prints its notice once
    return [EditPair(f"{number}-{i}", number, source, target, image) for i, target in enumerate(targets, 1)]


def _image_file(images: Path, entry: Mapping[str, Any]) -> Path:
    """Finds an entry's image by its path, or without one by its source prompt."""
    if isinstance(entry.get("init_img"), str):
        return _file_at(images, PurePosixPath(entry["init_img"]).parts)
    match = re.fullmatch(r"an? ([^\s/]+) of an? ([^/]+)", entry.get("source_prompt") or "")
    if match is None or match[2] == "..":
        raise UserError('the entry has neither init_img nor a source_prompt such as "a cartoon of a panda": add one')
    style, folder = match[1], match[2].replace(" ", "_")
    files = sorted((images / folder).glob(f"{style}_*"))
    if len(files) != 1:
        raise UserError(
            f"the entry has no init_img, and {images} has {len(files)} images {match[2]}/{style}_*: add init_img"
        )
    return files[0]


def _file_at(images: Path, parts: Sequence[str]) -> Path:
    """Finds an image by the longest end of its path that exists in the folder."""
    parts = [part for i, part in enumerate(parts) if ".." not in parts[i:]] or ["no file"]  # images are in the folder
    for start in range(len(parts)):
        if (file := images.joinpath(*parts[start:])).is_file() and parts[start] != "/":
            return file
    # A name such as sketch_8.jpg says nothing without its class.
    files = [] if re.fullmatch(NUMBERED, PurePosixPath(parts[-1]).stem) else sorted(images.rglob(escape(parts[-1])))
    if len(files) > 1:
        raise UserError(f"{images} has {len(files)} images named {parts[-1]}: add the folder to init_img")
    if files:
        distributed.print_once(
            f"{images}: images are found by the names of their files, as the benchmark names other folders"
        )
        return files[0]
    if len(parts) > 1 and not (images / parts[-2]).is_dir():
        classes = ", ".join(sorted(folder.name for folder in images.iterdir() if folder.is_dir())) or "no folder"
        raise UserError(f"unknown class {parts[-2]!r}: {images} has {classes}")
    raise UserError(f"no such image in {images}: correct init_img")


def _derived_prompt(file: Path) -> str | None:
    """Derives "a sketch of a penguin" from penguin/sketch_8.jpg (Table 7's "a <style> of an <instance>")."""
    match = re.fullmatch(NUMBERED, file.stem)
    if match is None:
        return None
    return f"{_with_article(match[1])} of {_with_article(file.parent.name)}".replace("_", " ")


def _with_article(noun: str) -> str:
    """Prepends "a" or "an"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _generate(teacher: Teacher, prompt: str, entry: Mapping[str, Any]) -> Tensor:
    """Generates the source image of an entry of the fake sets, 8-bit, `3 × height × width`."""
    steps, scale = int(entry.get("ddim_steps", 50)), float(entry.get("scale", 7.5))
    sampler = Sampler(teacher, SplitUNet(teacher.unet), Schedule(), "ddim", steps, scale)
    return teacher.decode(sampler.latents([prompt], teacher.noise([0], int(entry["seed"]))))[0]


def _entry_name(entry: Any) -> str:
    """Names an entry in error messages."""
    fields = entry if isinstance(entry, dict) else {}
    return str(fields.get("init_img") or fields.get("source_prompt") or "without a name")
