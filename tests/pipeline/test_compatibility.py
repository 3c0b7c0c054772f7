"""The compatibility page: every line names a test, and the test is there."""

import re
from pathlib import Path

import test_pipeline
import test_pipeline_unets
from helpers.pipelines import KINDS
from helpers.unets import UNETS

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "tests").rglob("test_*.py")
TESTS = {name for file in FILES for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
CASES = {
    "test_pipeline": KINDS,
    "test_feature": test_pipeline.FEATURES,
    "test_unet_pipeline": test_pipeline_unets.UNET_PIPELINES,
    "test_full_pass_is_the_unets_own": UNETS,
}


def test_every_line_names_a_test_that_is_there() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ") and "test |" not in line]
    assert len(lines) > 40
    assert all("`test_" in line for line in lines)
    for name, case in re.findall(r"`(test_\w+)(?:\[(.+?)\])?`", page):
        assert name in TESTS, name
        assert not case or case in CASES[name], case


def test_every_pipeline_and_feature_has_its_line() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text()
    for name, cases in CASES.items():
        for case in cases:
            assert f"`{name}[{case}]`" in page
