"""Saving and loading adaptors: a folder with `adaptor.safetensors`, `config.json` and a model card."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any

from safetensors.torch import save

from clockwork.adaptors.base import Adaptor
from clockwork.adaptors.building import WEIGHTS, build_adaptor, check_sizes
from clockwork.adaptors.hub import fetch
from clockwork.adaptors.model_card import model_card
from clockwork.deprecated import with_hashed_keys
from clockwork.errors import MissingFileError, UserError
from clockwork.io.atomic import atomic_write
from clockwork.io.fingerprint import file_hash, weights_hash
from clockwork.io.foreign import read_json
from clockwork.io.paths import can_be_folder, check_file
from clockwork.operating_point import OperatingPoint, is_measured_at
from clockwork.schedule import Schedule

FORMAT = 1  # of `config.json`; a version that changes what its fields mean counts on
_FIELDS = ("kind", "adaptor", "operating_point", "format", "sha256")  # what is not metadata
_TYPES: dict[str, type] = {
    **dict.fromkeys(("kind", "sha256"), str),
    **dict.fromkeys(("adaptor", "operating_point", "row", "row_labels", "openclip", "calibration", "training"), dict),
}
_NAMES: dict[type, str] = {str: "text", dict: "object"}


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
        UserError: If there is no operating point, or the folder holds files of something else.
    """
    adaptor = getattr(adaptor, "_orig_mod", adaptor)  # which torch.compile has wrapped
    if not isinstance(folder, (str, Path)) or not isinstance(adaptor, Adaptor):
        kinds = f"{type(folder).__name__} and {type(adaptor).__name__}"
        raise UserError(f"save_adaptor takes a folder, then an adaptor, not {kinds}: exchange or replace them")
    point, folder = point or adaptor.point, Path(folder)
    if not isinstance(point, OperatingPoint | None):
        raise UserError(f"{point!r:.50} is no operating point: pass a clockwork.OperatingPoint")
    if point is None:
        raise UserError("the adaptor's operating point is unknown: pass it to save_adaptor")
    check_adaptor_folder(folder)
    weights = save({name: weight.detach().contiguous().cpu() for name, weight in adaptor.state_dict().items()})
    sha256 = hashlib.sha256(weights).hexdigest()[:12]
    metadata = {"calibration": getattr(adaptor, "calibration", None), **metadata}
    given = {name: value for name, value in metadata.items() if value is not None}
    config: dict[str, Any] = {"kind": adaptor.kind, "adaptor": adaptor.config(), "operating_point": asdict(point)}
    config |= {"format": FORMAT, "sha256": sha256, **_saved_metadata(folder, sha256), **given}
    card = _card(folder, config)
    _write(folder, {**_config_files(config, card), WEIGHTS: weights})


def check_adaptor_folder(folder: Path) -> None:
    """Checks that saving an adaptor replaces nothing but an adaptor.

    Args:
        folder: The folder to save it in.

    Raises:
        UserError: If a file is there instead, or a config or README.md of something else is in it.
    """
    if not can_be_folder(folder):
        raise UserError(f"{folder} is no folder to write to: choose another path")
    for name, mark in ((WEIGHTS, None), ("config.json", '"operating_point"'), ("README.md", "library_name: clockwork")):
        check_file(folder / name, mark)


def _saved_metadata(folder: Path, sha256: str) -> dict[str, Any]:
    """Returns the metadata in a folder if it holds an adaptor with the same weights, else nothing."""
    if not (folder / "config.json").is_file() or not (folder / WEIGHTS).is_file():
        return {}
    config = read_config(folder)
    if config.get("sha256", file_hash(folder / WEIGHTS)) != sha256:
        return {}
    return {name: value for name, value in config.items() if name not in _FIELDS}


def add_row(folder: str | Path, row: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> None:
    """Adds measurements to an adaptor's config and model card.

    They are added only if they were made at the adaptor's operating point, and on at least as many images as those that
    the folder already has. No figure that the folder has is removed: figures on the same images are joined, and those
    on more images take their place only if none is missing.

    Args:
        folder: The adaptor's folder.
        row: The row of an evaluation, as a mapping.
        labels: Labels of its measurements in the model card, by their names in the row; the names by default.
    """
    config = read_config(folder)
    if not is_measured_at(row, config["operating_point"]):
        return
    saved = config.get("row") or {}
    joined, labels = dict(row), {**config.get("row_labels", {}), **(labels or {})}
    if all(saved.get(name) == row.get(name) for name in ("images", "prompts", "seed", "precision")):
        known = {name: value for name, value in row.items() if value is not None}
        joined = {**saved, **known, "metrics": {**_metrics(saved), **_metrics(row)}}
    if row["images"] >= saved.get("images", 0) and _metrics(saved).keys() <= _metrics(joined).keys():
        config = {**config, "row": joined, "row_labels": labels}
        _write(Path(folder), _config_files(config, _card(Path(folder), config)))


def _metrics(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of a row; in rows of earlier versions `metrics` is a text."""
    metrics = row.get("metrics")
    return metrics if isinstance(metrics, Mapping) else {}


def _card(folder: Path, config: Mapping[str, Any]) -> str:
    """Returns the model card, before anything is written: records of a config from elsewhere may not fit in it."""
    try:
        return model_card(config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder / 'config.json'} has records that a model card cannot show ({type(error).__name__}: {error}): "
            "remove row and calibration from it"
        ) from error


def _config_files(config: Mapping[str, Any], card: str) -> dict[str, bytes]:
    """Returns the contents of `config.json` and the model card."""
    return {"config.json": (json.dumps(config, indent=2) + "\n").encode(), "README.md": card.encode()}


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files; the last one first. None is replaced before there was room for all of them."""
    with ExitStack() as files:
        for name, content in contents.items():
            files.enter_context(atomic_write(folder / name)).write_bytes(content)


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads and checks the `config.json` of an adaptor's folder.

    Args:
        folder: The folder.

    Raises:
        MissingFileError: If the folder has no `config.json`.
        UserError: If it is not an adaptor's, or damaged.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise MissingFileError(
            f"{folder} is not an adaptor folder, because it has no config.json: make one with scripts/calibrate.py or "
            "scripts/train.py"
        )
    config = read_json(file)
    if config.get("format", FORMAT) != FORMAT:
        raise UserError(f"{file} is of a newer version of Clockwork: install one that reads format {config['format']}")
    for name in ("kind", "adaptor", "operating_point"):
        if name not in config:
            raise UserError(f"{file} is not an adaptor's config, because it has no {name}: make it again")
    for name, of in _TYPES.items():
        value = config.get(name)
        if not isinstance(value, of) and (name in _FIELDS or value is not None) and name in config:
            raise UserError(f"{file} is not an adaptor's config, because its {name} is no {_NAMES[of]}: make it again")
    return config


def check_adaptor(folder: Path) -> tuple[dict[str, Any], OperatingPoint]:
    """Checks an adaptor's folder without reading the weights.

    Args:
        folder: The folder.

    Returns:
        Its `config.json`, and the operating point that the adaptor was made for.

    Raises:
        MissingFileError: If there is no such folder or it is incomplete.
        UserError: If a file is damaged or of a newer version, or the files do not belong together.
    """
    config = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise MissingFileError(f"{folder} is not a complete adaptor folder, because it has no {WEIGHTS}: make it again")
    try:
        point = OperatingPoint.from_dict(config["operating_point"])
        Schedule.parse(point.schedule)
    except UserError as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error
    check_sizes(folder, config)
    return config, point


def load_adaptor(source: str | Path) -> tuple[Adaptor, OperatingPoint]:
    """Loads an adaptor.

    Args:
        source: A folder that `save_adaptor` wrote, or a name on the hub.

    Returns:
        The adaptor in eval mode without gradients, and the operating point that it was trained for.

    Raises:
        MissingFileError: If there is no such folder or it is incomplete, or the hub does not have it.
        UserError: If no class of the adaptor's kind has been imported, or a file is damaged or of a newer version.
    """
    folder = fetch(source)
    config, point = check_adaptor(folder)
    adaptor = build_adaptor(folder, config)
    if config.get("sha256", "") not in ("", file_hash(folder / WEIGHTS)):
        raise UserError(
            f"{folder} holds the weights of one adaptor and the config of another, as of a run that was stopped while "
            "it saved them: run it again"
        )
    adaptor.point = point
    return adaptor.eval().requires_grad_(False), point


def adaptor_hash(adaptor: Adaptor | None) -> str | None:
    """Returns the fingerprint of an adaptor's class, arguments and weights; None for None.

    Arguments that are defaults are left out, so that it stays the same when a later version adds others.

    Args:
        adaptor: The adaptor, if any.
    """
    if adaptor is None:
        return None
    parameters = signature(type(adaptor).__init__).parameters
    given = {k: v for k, v in adaptor.config().items() if k not in parameters or parameters[k].default != v}
    given = with_hashed_keys(given)
    return weights_hash(adaptor, about=json.dumps([type(adaptor).__name__, given], sort_keys=True))
