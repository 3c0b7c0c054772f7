"""Adaptor folders that are damaged, of a newer version or hostile: one sentence, at once, and without much memory."""

import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.adaptors import POINT, SMALL
from helpers.wrong_folders import KINDS, SIZED, Change, as_type, config, text

from clockwork.adaptors import Adaptor, Identity, Linear, Taylor, UNet, load_adaptor, save_adaptor
from clockwork.errors import UserError

CASES = [(adaptor, *case) for adaptor, table in KINDS for case in table.values()]
NAMES = [f"{adaptor.kind}: {name}" for adaptor, table in KINDS for name in table]


@pytest.mark.parametrize(("adaptor", "change", "expected"), CASES, ids=NAMES)
def test_a_wrong_folder_is_one_sentence(adaptor: Adaptor, change: Change, expected: str, tmp_path: Path) -> None:
    save_adaptor(tmp_path, adaptor, POINT)
    change(tmp_path)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError, match=expected) as refused:
        load_adaptor(tmp_path)
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
    assert len(str(refused.value).splitlines()) == 1 and str(tmp_path) in str(refused.value)


RIGHT: dict[str, Change] = {
    "as it was saved": lambda folder: None,
    "a byte order mark": lambda folder: text(b"\xef\xbb\xbf" + (folder / "config.json").read_bytes())(folder),
    "Windows' line ends": lambda folder: text((folder / "config.json").read_bytes().replace(b"\n", b"\r\n"))(folder),
    "of a version without format and hash": config(format=..., sha256=...),
    "of a version without upscale": config(adaptor__dims__upscale=...),
    "of a version that wrote widths": lambda folder: text(
        (folder / "config.json").read_bytes().replace(b'"dims"', b'"widths"')
    )(folder),
    "records that are null": config(row=None, calibration=None, openclip=None),
    "further records": config(notes={"by": "somebody"}),
    "in half precision": as_type(torch.float16),
    "in bfloat16": as_type(torch.bfloat16),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_folder_is_loaded(name: str, tmp_path: Path) -> None:
    save_adaptor(tmp_path, SIZED, POINT)
    RIGHT[name](tmp_path)
    loaded, point = load_adaptor(tmp_path)
    assert point == POINT and loaded.dtype == torch.float32
    for weight, saved in zip(loaded.parameters(), SIZED.parameters(), strict=True):
        assert torch.allclose(weight, saved, atol=1e-2)


@pytest.mark.parametrize(
    "adaptor",
    [Identity(), Taylor(order=2), UNet(SMALL, 16, 4), Linear(SMALL, range(2, 900, 2)), KINDS[1][0], KINDS[2][0]],
    ids=lambda adaptor: adaptor.kind,
)
def test_every_kind_is_within_the_limits(adaptor: Adaptor, tmp_path: Path) -> None:
    save_adaptor(tmp_path, adaptor, POINT)
    loaded, _ = load_adaptor(tmp_path)
    state = loaded.state_dict()
    assert loaded.config() == adaptor.config() and state.keys() == adaptor.state_dict().keys()
    assert all(np.array_equal(state[name], weight.detach()) for name, weight in adaptor.state_dict().items())
