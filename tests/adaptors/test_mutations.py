"""Adaptor folders with random mutations: a sentence or an adaptor that works, never a crash or a hang."""

import json
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.adaptors import POINT, SMALL
from helpers.mutations import PROFILE, mutated_bytes, mutated_json
from hypothesis import given
from hypothesis import strategies as st

from clockwork.adaptors import Adaptor, Hermite, Linear, Residual, ResNet, add_row, load_adaptor, save_adaptor
from clockwork.errors import UserError

ROW = {**vars(POINT), "images": 10, "seed": 0, "prompts": "a", "device": "cpu", "versions": "", "metrics": {"fid": 1.5}}
ADAPTORS = [ResNet(SMALL, 16, 1), Linear(SMALL, [2, 4], rank=3), Residual(Linear(SMALL, [2]), ResNet(SMALL, 8, 1))]
ADAPTORS.append(Hermite())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One of each adaptor, with records."""
    made = [tmp_path_factory.mktemp(adaptor.kind) for adaptor in ADAPTORS]
    for folder, adaptor in zip(made, ADAPTORS, strict=True):
        save_adaptor(folder, adaptor, POINT, training={"loss": 0.5}, calibration={"seconds": 1.0, "steps": []})
        add_row(folder, ROW)
    return made


def loads_or_refuses(folder: Path) -> None:
    try:
        adaptor, point = load_adaptor(folder)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(folder) in str(error)
        return
    assert len(point.schedule) > 0 and all(weight.isfinite().all() for weight in adaptor.parameters())
    works(adaptor)
    try:
        add_row(folder, ROW)
        save_adaptor(folder, adaptor)
    except UserError:
        return
    assert load_adaptor(folder)[1] == point


def works(adaptor: Adaptor) -> None:
    """On features of the dims that it names, if they are small enough to make."""
    dims = adaptor.dims
    if max(dims.r_in, dims.r_out, dims.t_emb, dims.text_emb) > 1000 or "full_steps" in adaptor.inputs:
        return
    features = [torch.zeros(2, channels, 4, 4) for channels in (dims.r_in, dims.r_out)]
    with torch.no_grad():
        result = adaptor(*features, torch.zeros(2, dims.t_emb), torch.zeros(2, dims.text_emb))
    assert result.shape[:2] == (2, dims.r_out)


@PROFILE
@given(kind=st.sampled_from(range(4)), data=st.data())
def test_a_mutated_config(folders: list[Path], kind: int, data: st.DataObject) -> None:
    content = json.loads((folders[kind] / "config.json").read_text())
    for name in data.draw(st.sampled_from([(), ("sha256",)])):  # of earlier versions, without the weights' hash
        del content[name]
    change(folders[kind], "config.json", json.dumps(data.draw(mutated_json(content))).encode())


@PROFILE
@given(kind=st.sampled_from(range(4)), name=st.sampled_from(["config.json", "adaptor.safetensors"]), data=st.data())
def test_mutated_bytes(folders: list[Path], kind: int, name: str, data: st.DataObject) -> None:
    change(folders[kind], name, data.draw(mutated_bytes((folders[kind] / name).read_bytes())))


@PROFILE
@given(kind=st.sampled_from(range(4)), data=st.data())
def test_a_mutated_header_of_the_weights(folders: list[Path], kind: int, data: st.DataObject) -> None:
    content = (folders[kind] / "adaptor.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header: Any = data.draw(mutated_json(json.loads(content[8 : 8 + size])))
    encoded = json.dumps(header).encode()
    change(folders[kind], "adaptor.safetensors", struct.pack("<Q", len(encoded)) + encoded + content[8 + size :])


def change(folder: Path, name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as copy:
        target = Path(copy) / "adaptor"
        shutil.copytree(folder, target)
        (target / name).write_bytes(content)
        if name != "config.json":  # else its hash would be all that is looked at
            config = json.loads((target / "config.json").read_text())
            (target / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "sha256"}))
        loads_or_refuses(target)
