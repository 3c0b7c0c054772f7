"""An adaptor on disk: a folder with safetensors weights and `config.json`, its operating point included."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from clockwork.adaptors.base import KINDS, Adaptor, FeatureDims
from clockwork.adaptors.hub import fetch
from clockwork.adaptors.model_card import model_card
from clockwork.deprecated import with_new_keys
from clockwork.errors import MissingFileError, UserError
from clockwork.io.atomic import atomic_write
from clockwork.io.fingerprint import weights_hash
from clockwork.operating_point import OperatingPoint


def save_adaptor(folder: str | Path, adaptor: Adaptor, point: OperatingPoint, **about: Any) -> None:
    """Writes the weights, then the config and its model card.

    A folder that holds the same weights keeps what its config tells besides what is given here; of other weights it
    keeps nothing.

    Args:
        folder: Where to; made if it is not there.
        adaptor: What is saved.
        point: What it was trained for.
        about: Whatever else the config should tell: `openclip`, the model of its text; `base_model`, the teacher's
            name on the hub; `row`, the row it was measured with; `training`, figures of it.
    """
    folder = Path(folder)
    about = {**_records(folder, adaptor), **{name: value for name, value in about.items() if value is not None}}
    weights = {name: weight.detach().contiguous().cpu() for name, weight in adaptor.state_dict().items()}
    with atomic_write(folder / "adaptor.safetensors") as partial:
        save_file(weights, partial)
    _write_config(
        folder, {"kind": adaptor.kind, "adaptor": adaptor.config(), "operating_point": asdict(point), **about}
    )


def _records(folder: Path, adaptor: Adaptor) -> dict[str, Any]:
    """What the config of a folder with these very weights tells besides the adaptor and its point."""
    if not (folder / "config.json").is_file() or not (folder / "adaptor.safetensors").is_file():
        return {}
    here, there = adaptor.state_dict(), load_file(folder / "adaptor.safetensors")
    if here.keys() != there.keys() or not all(torch.equal(there[name], here[name].cpu()) for name in there):
        return {}
    return {k: v for k, v in read_config(folder).items() if k not in ("kind", "adaptor", "operating_point")}


def add_row(folder: str | Path, row: Mapping[str, Any]) -> None:
    """Puts a row into the config and the card, if it was measured at the adaptor's operating point and on no fewer
    images than the one that is there."""
    config = read_config(folder)
    at_home = all(row[name] == value for name, value in config["operating_point"].items())
    if at_home and row["images"] >= (config.get("row") or {"images": 0})["images"]:
        _write_config(Path(folder), {**config, "row": dict(row)})


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    for name, text in (("README.md", model_card(config)), ("config.json", json.dumps(config, indent=2) + "\n")):
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def read_config(folder: str | Path) -> dict[str, Any]:
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise MissingFileError(f"{folder} is no adaptor folder: it has no config.json; train one with scripts/train.py")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def load_adaptor(source: str | Path) -> tuple[Adaptor, OperatingPoint]:
    """From a folder, or by its name on the hub."""
    folder = fetch(source)
    config = read_config(folder)
    if config.get("kind") not in KINDS:
        known = ", ".join(KINDS)
        raise UserError(
            f"{folder} holds an adaptor of kind {config.get('kind')!r}: known are {known}; "
            "import the file that defines another first"
        )
    arguments = with_new_keys(config["adaptor"])
    dims, inputs = FeatureDims(**arguments.pop("dims")), tuple(arguments.pop("inputs"))
    if config["kind"] != "identity":  # which takes no inputs
        arguments["inputs"] = inputs
    make: Callable[..., Adaptor] = KINDS[config["kind"]]
    adaptor = make(dims, **arguments)
    adaptor.load_state_dict(load_file(folder / "adaptor.safetensors"))
    return adaptor.eval().requires_grad_(False), OperatingPoint(**config["operating_point"])


def check_teacher(trained: OperatingPoint, teacher: str, teacher_hash: str, cut: str) -> None:
    if trained.teacher_hash != teacher_hash or trained.cut != cut:
        raise UserError(
            f"this adaptor was trained for teacher {trained.teacher} ({trained.teacher_hash}) at cut {trained.cut}, "
            f"not {teacher} ({teacher_hash}) at cut {cut}: train one for it, or use the identity adaptor"
        )


def check_text_embedder(folder: str | Path, at_hand: Mapping[str, Any] | None) -> None:
    """Refuses an adaptor that reads text of another embedder than the teacher's.

    Args:
        folder: The adaptor's; its config names the OpenCLIP model that it was trained with under `openclip`.
        at_hand: The same of the teacher's text embedder; None where it has none.
    """
    config = read_config(folder)
    trained = config.get("openclip")
    if "text_emb" in config["adaptor"].get("inputs", ()) and trained is not None and trained != at_hand:
        name, tag = (trained.get(key) for key in ("name", "tag"))
        here = "none" if at_hand is None else " ".join(filter(None, (at_hand["name"], at_hand["tag"])))
        raise UserError(
            f"the adaptor in {folder} reads text of {' '.join(filter(None, (name, tag)))}, and the teacher's text "
            f"embedder is {here}: pass teacher.openclip={name} teacher.openclip_tag={tag or 'null'}, or train another"
        )


def warn_if_mismatched(trained: OperatingPoint, wanted: OperatingPoint) -> None:
    """An adaptor belongs to one operating point (paper, Section 6): another one warns, another teacher refuses."""
    check_teacher(trained, wanted.teacher, wanted.teacher_hash, wanted.cut)
    if differences := wanted.differences(trained):
        warnings.warn(mismatch_message(differences), stacklevel=2)


def mismatch_message(differences: list[str]) -> str:
    """The warning."""
    return f"adaptor used away from the operating point it was trained for: {'; '.join(differences)}"


def adaptor_hash(adaptor: Adaptor | None) -> str | None:
    if adaptor is None:
        return None
    return weights_hash(adaptor, about=json.dumps([type(adaptor).__name__, adaptor.config()], sort_keys=True))
