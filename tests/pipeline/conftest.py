"""A teacher, an adaptor with weights, and empty caches of compiled steps, for the tests of pipelines."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.pipelines import random_adaptor
from torch._dynamo.utils import counters

from clockwork.teachers import Teacher, load_teacher


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("miniature", guidance=3.0, device="cpu")


@pytest.fixture(scope="module")
def trained(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adaptor(teacher, tmp_path_factory.mktemp("adaptor"))


@pytest.fixture
def empty_caches() -> Iterator[None]:
    """Without graphs of other tests, and with counters at zero."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
