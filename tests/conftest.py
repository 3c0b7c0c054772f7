"""Fixtures of all tests."""

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from helpers.shapes import SHAPES

if TYPE_CHECKING:  # xdist's main process reads this file, too, and runs no test
    from clockwork.teachers import Teacher


def pytest_collection_finish() -> None:
    """Keeps what is imported out of garbage collections, each of which would take half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def teacher() -> "Teacher":
    """`miniature_sd`, but in files that have their own."""
    from clockwork.teachers import load_teacher

    return load_teacher("miniature_sd", guidance=3.0, device="cpu")


@pytest.fixture(params=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def flops_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make flops` writes, counted once for all of xdist's workers."""
    from helpers.commands import run

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    file = folder / "reports" / "flops.csv"
    with FileLock(folder / "flops.lock"), pytest.MonkeyPatch.context() as patch:
        if not file.is_file():
            run(patch, "report", "flops", f"output={file.parent}")
    return file
