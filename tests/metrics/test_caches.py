"""Caches of references that a kill, a full disk or a download has damaged are made again, with the same features."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clockwork.metrics.fid import FID
from clockwork.metrics.reference import Reference

IMAGES = torch.randint(256, (9, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _with(file: Path, **arrays: Any) -> None:
    with np.load(file) as kept:
        content = {**kept, **arrays}
    np.savez(file, **{name: array for name, array in content.items() if array is not None})


DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "zeros in the middle": lambda file: file.write_bytes(file.read_bytes()[:400] + bytes(64) + file.read_bytes()[464:]),
    "a text": lambda file: file.write_text("a cache"),
    "a git-lfs pointer": lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
    "a pickle": lambda file: file.write_bytes(pickle.dumps({"features": [1]})),
    "objects": lambda file: np.savez(file, **{"features": np.array([{}]), "features_sum": np.array([{}])}),
    "without label": lambda file: _with(file, label=None),
    "other names": lambda file: np.savez(file, label=np.array("one"), other=np.zeros(3)),
    "not finite": lambda file: _with(file, **{name: np.array([np.nan]) for name in ("features", "features_sum")}),
    "text for numbers": lambda file: _with(file, **{name: np.array("a") for name in ("features", "features_sum")}),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("kind", ["features", "fid"])
def test_a_damaged_cache_is_made_again(damage: str, kind: str, tmp_path: Path) -> None:
    def make() -> Reference:
        return Reference(lambda batch: batch.float().mean((2, 3)), "one", lambda: [IMAGES], cache=tmp_path)

    features, sums = make().features, FID(make())._reference_sums()
    file = make().cache_file(kind)
    assert file is not None
    DAMAGED[damage](file)
    assert torch.equal(make().features, features)
    assert all(torch.equal(value, sums[key]) for key, value in FID(make())._reference_sums().items())
    with np.load(file) as mended:
        assert str(mended["label"]) == "one"
