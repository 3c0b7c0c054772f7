"""Saving and loading adaptors: a folder with `adaptor.safetensors`, `config.json` and a model card."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from clockwork.adaptors.base import KINDS, Adaptor
from clockwork.adaptors.hub import fetch
from clockwork.adaptors.model_card import model_card
from clockwork.deprecated import with_new_keys
from clockwork.errors import MissingFileError, UserError
from clockwork.io.atomic import atomic_write
from clockwork.io.fingerprint import weights_hash
from clockwork.operating_point import OperatingPoint, is_measured_at


def save_adaptor(folder: str | Path, adaptor: Adaptor, point: OperatingPoint | None = None, **metadata: Any) -> None:
    """Saves an adaptor: its weights, its config and a model card.

    If the folder already holds an adaptor with the same weights, its metadata is kept unless it is given again.

    Args:
        folder: The folder, which is created if it does not exist.
        adaptor: The adaptor.
        point: The operating point that it was trained for; by default `adaptor.point`.
        metadata: Further entries of `config.json`; None values are ignored. `openclip` is the text embedder's config,
            `base_model` the teacher's name on the hub, `row` the adaptor's measurements, `training` or `calibration`
            figures of how it was made; those of `clockwork.calibrate` are saved without being passed.

    Raises:
        UserError: If there is no operating point.
    """
    point, folder = point or adaptor.point, Path(folder)
    if point is None:
        raise UserError("the adaptor's operating point is unknown: pass it to save_adaptor")
    metadata = {"calibration": getattr(adaptor, "calibration", None), **metadata}
    given = {name: value for name, value in metadata.items() if value is not None}
    config = {"kind": adaptor.kind, "adaptor": adaptor.config(), "operating_point": asdict(point)}
    config |= {**_saved_metadata(folder, adaptor), **given}
    weights = {name: weight.detach().contiguous().cpu() for name, weight in adaptor.state_dict().items()}
    with atomic_write(folder / "adaptor.safetensors") as partial:
        save_file(weights, partial)
    _write_config(folder, config)


def _saved_metadata(folder: Path, adaptor: Adaptor) -> dict[str, Any]:
    """Returns the metadata in a folder if it holds an adaptor with the same weights, else nothing."""
    if not (folder / "config.json").is_file() or not (folder / "adaptor.safetensors").is_file():
        return {}
    weights, saved = adaptor.state_dict(), load_file(folder / "adaptor.safetensors")
    if weights.keys() != saved.keys() or not all(torch.equal(saved[name], weights[name].cpu()) for name in saved):
        return {}
    return {k: v for k, v in read_config(folder).items() if k not in ("kind", "adaptor", "operating_point")}


def add_row(folder: str | Path, row: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> None:
    """Adds measurements to an adaptor's config and model card.

    They are added only if they were made at the adaptor's operating point, and on at least as many images as those that
    the folder already has.

    Args:
        folder: The adaptor's folder.
        row: The row of an evaluation, as a mapping.
        labels: Labels of its measurements in the model card, by their names in the row; the names by default.
    """
    config = read_config(folder)
    same_point = is_measured_at(row, config["operating_point"])
    if same_point and row["images"] >= (config.get("row") or {"images": 0})["images"]:
        _write_config(Path(folder), {**config, "row": dict(row), "row_labels": dict(labels or {})})


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes `config.json` and the model card."""
    for name, text in (("README.md", model_card(config)), ("config.json", json.dumps(config, indent=2) + "\n")):
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads the `config.json` of an adaptor's folder.

    Args:
        folder: The folder.

    Raises:
        MissingFileError: If the folder has no `config.json`.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise MissingFileError(
            f"{folder} is not an adaptor folder, because it has no config.json: make one with scripts/calibrate.py or "
            "scripts/train.py"
        )
    return dict(json.loads(file.read_text(encoding="utf-8")))


def load_adaptor(source: str | Path) -> tuple[Adaptor, OperatingPoint]:
    """Loads an adaptor.

    Args:
        source: A folder that `save_adaptor` wrote, or a name on the hub.

    Returns:
        The adaptor in eval mode without gradients, and the operating point that it was trained for.

    Raises:
        MissingFileError: If there is no such folder or it is incomplete, or the hub does not have it.
        UserError: If no class of the adaptor's kind has been imported.
    """
    folder = fetch(source)
    config = read_config(folder)
    if config.get("kind") not in KINDS:
        raise UserError(
            f"the adaptor in {folder} is of kind {config.get('kind')!r}, which is not one of {', '.join(KINDS)}: "
            "import the module that defines it first"
        )
    adaptor = KINDS[config["kind"]].from_config(with_new_keys(config["adaptor"]))
    adaptor.load_state_dict(load_file(folder / "adaptor.safetensors"))
    adaptor.point = OperatingPoint(**config["operating_point"])
    return adaptor.eval().requires_grad_(False), adaptor.point


def check_teacher(trained: OperatingPoint, teacher: str, teacher_hash: str, cut: str) -> None:
    """Checks that an adaptor was trained for a teacher and a cut.

    Args:
        trained: The operating point that the adaptor was trained for.
        teacher: Name of the teacher, for the message.
        teacher_hash: Fingerprint of its UNet's weights.
        cut: The cut, `down,up`.

    Raises:
        UserError: If the adaptor was trained for another teacher or cut.
    """
    if trained.teacher_hash != teacher_hash or trained.cut != cut:
        raise UserError(
            f"this adaptor was trained for teacher {trained.teacher} ({trained.teacher_hash}) at cut {trained.cut}, "
            f"not {teacher} ({teacher_hash}) at cut {cut}: train one for it, or use the identity adaptor"
        )


def check_text_embedder(folder: str | Path, embedder: Mapping[str, Any] | None) -> None:
    """Checks that an adaptor that reads text was trained with the teacher's text embedder.

    Args:
        folder: The adaptor's folder, whose config names its text embedder under `openclip`.
        embedder: Config of the teacher's text embedder (`OpenCLIP.config`); None if the teacher has none.

    Raises:
        UserError: If the adaptor was trained with another text embedder.
    """
    config = read_config(folder)
    trained = config.get("openclip")
    if "text_emb" in config["adaptor"].get("inputs", ()) and trained is not None and trained != embedder:
        name, tag = (trained.get(key) for key in ("name", "tag"))
        current = "none" if embedder is None else " ".join(filter(None, (embedder["name"], embedder["tag"])))
        raise UserError(
            f"the adaptor in {folder} reads text of {' '.join(filter(None, (name, tag)))}, but the teacher's text "
            f"embedder is {current}: pass teacher.openclip={name} teacher.openclip_tag={tag or 'null'}, "
            "or train another adaptor"
        )


def warn_if_mismatched(trained: OperatingPoint, current: OperatingPoint) -> None:
    """Warns if an adaptor is used at another operating point than it was trained for (paper, Section 6).

    Args:
        trained: The operating point that the adaptor was trained for.
        current: The operating point at which it is used.

    Raises:
        UserError: If the teacher or the cut differs.
    """
    check_teacher(trained, current.teacher, current.teacher_hash, current.cut)
    if differences := current.differences(trained):
        warnings.warn(mismatch_message(differences), stacklevel=2)


def mismatch_message(differences: list[str]) -> str:
    """Returns the warning for an adaptor that is used at another operating point than it was trained for.

    Args:
        differences: The differences, from `OperatingPoint.differences`.
    """
    return f"adaptor used away from the operating point it was trained for: {'; '.join(differences)}"


def adaptor_hash(adaptor: Adaptor | None) -> str | None:
    """Returns the fingerprint of an adaptor's class, arguments and weights; None for None.

    Args:
        adaptor: The adaptor, if any.
    """
    if adaptor is None:
        return None
    return weights_hash(adaptor, about=json.dumps([type(adaptor).__name__, adaptor.config()], sort_keys=True))
