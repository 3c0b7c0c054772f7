"""Changes that make an adaptor's folder wrong, by name, each with what the sentence says."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers.adaptors import SMALL
from safetensors.torch import save_file

from clockwork.adaptors import Adaptor, Linear, Residual, ResNet, Taylor

SIZED = ResNet(SMALL, 16, 1)
LARGE = 10**9
Change = Callable[[Path], object]


def config(**values: Any) -> Change:
    """Replaces values of config.json by dotted keys; `...` removes one."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        for key, value in values.items():
            *above, name = key.split("__")
            part = content
            for each in above:
                part = part[each]
            part.pop(name) if value is ... else part.update({name: value})
        (folder / "config.json").write_text(json.dumps(content))

    return change


def text(content: bytes, name: str = "config.json") -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str, share: float) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def header(change: Callable[[dict[str, Any]], object]) -> Change:
    """Changes the header of the weights, with the data behind it as it is."""

    def changed(folder: Path) -> None:
        content = (folder / "adaptor.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        tensors = json.loads(content[8 : 8 + size])
        change(tensors)
        encoded = json.dumps(tensors).encode()
        (folder / "adaptor.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + size :])

    return changed


def weights(**tensors: torch.Tensor) -> Change:
    return lambda folder: save_file(tensors, folder / "adaptor.safetensors")


def as_type(dtype: torch.dtype, value: float | None = None) -> Change:
    state = {name: weight.detach().to(dtype) for name, weight in SIZED.state_dict().items()}
    filled = {name: torch.full_like(x, value) for name, x in state.items()} if value is not None else state
    return lambda folder: (save_file(filled, folder / "adaptor.safetensors"), config(sha256=...)(folder))


def nested(depth: int) -> dict[str, Any]:
    arguments: dict[str, Any] = SIZED.config()
    for _ in range(depth):
        part = {"kind": "residual", "adaptor": arguments}
        arguments = {"base": part, "correction": {"kind": "resnet", "adaptor": SIZED.config()}}
    return arguments


def replaced_by_folder(folder: Path) -> None:
    (folder / "adaptor.safetensors").unlink()
    (folder / "adaptor.safetensors").mkdir()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4665\n"
DEEP = b'{"kind": "resnet", "adaptor": ' + b'{"base": ' * 50_000 + b"1" + b"}" * 50_000 + b"}"
WRONG: dict[str, tuple[Change, str]] = {
    # files
    "empty config": (text(b""), "not a complete JSON file"),
    "config cut off": (cut("config.json", 0.5), "not a complete JSON file"),
    "config of notes": (text(b"an adaptor"), "not a complete JSON file"),
    "config as a pointer": (text(POINTER), "config.json is a git-lfs pointer instead of the file itself: run"),
    "config not in UTF-8": (text('{"kind": "é"}'.encode("latin-1")), "not a complete JSON file"),
    "config in UTF-16": (text('{"kind": "resnet"}'.encode("utf-16")), "not a complete JSON file"),
    "config of a list": (text(b"[]"), "holds no JSON object but a list"),
    "config of null": (text(b"null"), "holds no JSON object"),
    "config that is a number": (text(b"9" * 5000), "not a complete JSON file"),
    "config nested deeply": (text(DEEP), "not a complete JSON file"),
    "config of 20 MiB": (text(b" " * (20 << 20)), "more than 16 MiB"),
    "no weights": (lambda folder: (folder / "adaptor.safetensors").unlink(), "has no adaptor.safetensors"),
    "weights as a folder": (
        replaced_by_folder,
        "has no adaptor.safetensors",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "empty weights": (text(b"", "adaptor.safetensors"), "not a complete safetensors file"),
    "weights cut off": (cut("adaptor.safetensors", 0.9), "not a complete safetensors file"),
    "weights' header cut off": (cut("adaptor.safetensors", 0.01), "not a complete safetensors file"),
    "weights as a pointer": (text(POINTER, "adaptor.safetensors"), "safetensors is a git-lfs pointer"),
    "weights of notes": (text(b"these are weights", "adaptor.safetensors"), "not a complete safetensors file"),
    "a header of 16 EiB": (text(b"\xff" * 64, "adaptor.safetensors"), "not a complete safetensors file"),
    "a page in place of weights": (text(b"<!DOCTYPE html>" * 9, "adaptor.safetensors"), "not a complete safetensors"),
    # what config.json says
    "no kind": (config(kind=...), "has no kind"),
    "a kind of a newer version": (config(kind="transformer"), "of kind 'transformer', which is not one of"),
    "a kind that is a list": (config(kind=["resnet"]), "its kind is no text"),
    "a kind that is null": (config(kind=None), "its kind is no text"),
    "a newer format": (config(format=2), "of a newer version of Clockwork: install one that reads format 2"),
    "no arguments": (config(adaptor=...), "has no adaptor"),
    "arguments that are a list": (config(adaptor=[1]), "its adaptor is no object"),
    "an unknown argument": (config(adaptor__heads=4), "does not describe a resnet adaptor.*heads"),
    "a missing argument": (config(adaptor__inputs=...), "does not describe a resnet adaptor.*inputs"),
    "unknown inputs": (config(adaptor__inputs=["r_in", "depth"]), "does not describe.*depth"),
    "no inputs": (config(adaptor__inputs=[]), "does not describe"),
    "inputs that are null": (config(adaptor__inputs=None), "does not describe"),
    "inputs in one text": (config(adaptor__inputs="r_in"), "does not describe"),
    "width as text": (config(adaptor__width="16"), "does not describe"),
    "width of null": (config(adaptor__width=None), "does not describe"),
    "width that is not whole": (config(adaptor__width=16.5), "does not describe"),
    "a negative width": (config(adaptor__width=-16), "does not describe"),
    "a width of zero": (config(adaptor__width=0), "does not describe|another adaptor"),
    "another width": (config(adaptor__width=32), "weights of another adaptor than config.json describes: .* has shape"),
    "an absurd width": (config(adaptor__width=LARGE), "does not describe|another adaptor"),
    "a width past all numbers": (config(adaptor__width=10**30), "does not describe"),
    "more blocks": (config(adaptor__blocks=2), "another adaptor"),
    "an absurd number of blocks": (config(adaptor__blocks=LARGE), "more layers than there are weights"),
    "a negative number of blocks": (config(adaptor__blocks=-1), "does not describe a resnet adaptor .blocks='-1'"),
    "no dims": (config(adaptor__dims=...), "does not describe.*dims"),
    "dims that are a list": (config(adaptor__dims=[1, 2]), "does not describe"),
    "dims with a new field": (config(adaptor__dims__depth=3), "does not describe.*depth"),
    "dims without a field": (config(adaptor__dims__r_in=...), "does not describe.*r_in"),
    "absurd channels": (config(adaptor__dims__r_in=LARGE), "another adaptor|does not describe"),
    "channels past all numbers": (config(adaptor__dims__r_out=10**30), "does not describe.*r_out"),
    "negative channels": (config(adaptor__dims__r_in=-8), "does not describe.*r_in=-8"),
    "channels as text": (config(adaptor__dims__r_in="8"), "does not describe.*r_in='8'"),
    "an absurd text width": (config(adaptor__dims__text_emb=LARGE), "another adaptor|does not describe"),
    # the operating point
    "no operating point": (config(operating_point=...), "has no operating_point"),
    "a text for an operating point": (config(operating_point="clock2"), "its operating_point is no object"),
    "an operating point without steps": (config(operating_point__steps=...), "operating point has no steps"),
    "a field of a newer version": (config(operating_point__eta=1.0), "operating point has the unknown field eta"),
    "steps as text": (config(operating_point__steps="8"), "steps=8 of the operating point is of another type"),
    "no steps": (config(operating_point__steps=0), "steps=0"),
    "absurd steps": (config(operating_point__steps=LARGE), f"steps={LARGE}"),
    "steps that are true": (config(operating_point__steps=True), "steps=True"),
    "guidance that is no number": (config(operating_point__guidance=float("nan")), "guidance=nan"),
    "infinite guidance": (config(operating_point__guidance=float("inf")), "guidance=inf"),
    "guidance past all numbers": (config(operating_point__guidance=10**400), "guidance=1000"),
    "an unknown schedule": (config(operating_point__schedule="every2"), "schedule 'every2' is not known"),
    "a schedule that is a list": (config(operating_point__schedule=[2, 4]), r"schedule=\[2, 4\]"),
    "a teacher that is null": (config(operating_point__teacher=None), "teacher=None"),
    # records
    "a row that is a list": (config(row=[1]), "its row is no object"),
    "a calibration that is a text": (config(calibration="good"), "its calibration is no object"),
    # weights
    "weights that are not finite": (as_type(torch.float32, float("nan")), "that are not finite"),
    "infinite weights": (as_type(torch.float16, float("inf")), "that are not finite"),
    "whole numbers for weights": (as_type(torch.int32), "not as floating-point numbers"),
    "bytes for weights": (as_type(torch.uint8), "not as floating-point numbers"),
    "weights of one more layer": (weights(extra=torch.zeros(3)), "another adaptor"),
    "weights of nothing": (weights(), "another adaptor"),
    "a weight of no numbers": (weights(**{"up.bias": torch.zeros(0)}), "another adaptor"),
    "a weight by another name": (header(lambda t: t.update({"up.bia": t.pop("up.bias")})), "another adaptor"),
    "a missing weight": (header(lambda t: t.pop("up.bias")), "safetensors"),
    "a weight that is larger than the file": (
        header(lambda t: t["up.bias"].update(shape=[10**12], data_offsets=[0, 4 * 10**12])),
        "not a complete safetensors file",
    ),
    "a shape that does not fit its data": (header(lambda t: t["up.bias"].update(shape=[LARGE])), "not a complete safe"),
    "another order of the shape": (header(lambda t: t["down.weight"]["shape"].reverse()), "another adaptor"),
    "a type of a newer version": (header(lambda t: t["up.bias"].update(dtype="F3")), "not a complete safetensors file"),
    "config and weights of two adaptors": (config(sha256="0" * 12), "weights of one adaptor and the config of another"),
    "a hash that is a number": (config(sha256=5), "its sha256 is no text"),
}
OF_LINEAR: dict[str, tuple[Change, str]] = {
    "an absurd rank": (config(adaptor__rank=LARGE), "another adaptor|does not describe"),
    "a negative rank": (config(adaptor__rank=-1), "does not describe"),
    "a million steps": (config(adaptor__steps=list(range(1, 10**6))), "another adaptor|does not describe"),
    "steps as text": (config(adaptor__steps="24"), "does not describe"),
    "steps that are not whole": (config(adaptor__steps=[2.0, 4.0]), "does not describe"),
    "a step twice": (config(adaptor__steps=[2, 2]), "does not describe"),
    "a step of zero": (config(adaptor__steps=[0, 4]), "does not describe"),
    "unknown terms": (config(adaptor__terms=["depth"]), "does not describe"),
    "halves past two": (config(adaptor__num_halves=LARGE), "does not describe"),
    "joint as text": (config(adaptor__joint="no"), "another adaptor|of another type"),
}
OF_RESIDUAL: dict[str, tuple[Change, str]] = {
    "a base of an unknown kind": (config(adaptor__base__kind="transformer"), "does not describe.*transformer"),
    "no base": (config(adaptor__base=...), "does not describe.*base"),
    "a correction that is a text": (config(adaptor__correction="resnet"), "does not describe"),
    "an absurd base": (config(adaptor__base__adaptor__width=LARGE), "another adaptor|does not describe"),
    "300 adaptors in each other": (config(adaptor=nested(300)), "does not describe"),
}
OF_TAYLOR: dict[str, tuple[Change, str]] = {
    "an order past two": (config(adaptor__order=LARGE), "does not describe"),
    "an order that is true": (config(adaptor__order=True), "does not describe"),
    "weights of another": (weights(scale=torch.ones(())), "another adaptor"),
}
KINDS: list[tuple[Adaptor, dict[str, tuple[Change, str]]]] = [
    (SIZED, WRONG),
    (Linear(SMALL, [2, 4], rank=3), OF_LINEAR),
    (Residual(ResNet(SMALL, 16, 1), ResNet(SMALL, 16, 1)), OF_RESIDUAL),
    (Taylor(), OF_TAYLOR),
]
