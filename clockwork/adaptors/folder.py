"""An adaptor on disk: a folder with safetensors weights and `config.json`, its operating point included."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from clockwork.adaptors.base import Adaptor, Widths
from clockwork.adaptors.identity import Identity
from clockwork.adaptors.resnet import ResNet
from clockwork.adaptors.unet import UNet
from clockwork.operating_point import OperatingPoint
from clockwork.weights import weights_hash

KINDS: dict[str, type[Adaptor]] = {"identity": Identity, "resnet": ResNet, "unet": UNet}


def save_adaptor(folder: str | Path, adaptor: Adaptor, point: OperatingPoint, **about: Any) -> None:
    """Writes the weights and then the config; `about` is whatever else the config should tell (training, row)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().contiguous().cpu() for name, weight in adaptor.state_dict().items()}
    save_file(weights, folder / "adaptor.partial")
    (folder / "adaptor.partial").replace(folder / "adaptor.safetensors")
    kind = next(name for name, cls in KINDS.items() if type(adaptor) is cls)
    config = {"kind": kind, "adaptor": adaptor.config(), "operating_point": asdict(point), **about}
    (folder / "config.partial").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "config.partial").replace(folder / "config.json")


def load_adaptor(folder: str | Path) -> tuple[Adaptor, OperatingPoint]:
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} is no adaptor folder: it has no config.json; train one with scripts/train.py"
        )
    config = json.loads((folder / "config.json").read_text())
    if config.get("kind") not in KINDS:
        raise ValueError(
            f"{folder} holds an adaptor of kind {config.get('kind')!r}: this version knows {', '.join(KINDS)}"
        )
    arguments = dict(config["adaptor"])
    arguments["widths"] = Widths(**arguments["widths"])
    if config["kind"] == "identity":
        del arguments["inputs"]
    else:
        arguments["inputs"] = tuple(arguments["inputs"])
    adaptor = KINDS[config["kind"]](**arguments)
    adaptor.load_state_dict(load_file(folder / "adaptor.safetensors"))
    return adaptor.eval().requires_grad_(False), OperatingPoint(**config["operating_point"])


def check_point(trained: OperatingPoint, wanted: OperatingPoint) -> None:
    """An adaptor belongs to one operating point (paper, Section 6): another one warns, another teacher refuses."""
    if trained.teacher_hash != wanted.teacher_hash or trained.cut != wanted.cut:
        raise ValueError(
            f"this adaptor was trained for teacher {trained.teacher} ({trained.teacher_hash}) at cut {trained.cut}, "
            f"not {wanted.teacher} ({wanted.teacher_hash}) at cut {wanted.cut}: "
            "train one for it, or use adaptor=identity"
        )
    if differences := wanted.differences(trained):
        warnings.warn(
            f"adaptor used away from the operating point it was trained for: {'; '.join(differences)}", stacklevel=2
        )


def adaptor_hash(adaptor: Adaptor | None) -> str | None:
    if adaptor is None:
        return None
    return weights_hash(adaptor, about=json.dumps([type(adaptor).__name__, adaptor.config()], sort_keys=True))
