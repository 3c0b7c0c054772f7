"""A teacher and a trained adaptor for the tests of adaptors on pipelines."""

from pathlib import Path

import pytest
from helpers.pipelines import random_adaptor

from clockwork.teachers import Teacher, load_teacher


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("miniature", guidance=3.0, device="cpu")


@pytest.fixture(scope="module")
def trained(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adaptor(teacher, tmp_path_factory.mktemp("adaptor"))
