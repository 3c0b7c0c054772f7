"""The compatibility page: every line names a test, and the test is there."""

import re
from pathlib import Path

import test_compiled_table
import test_controlnet
import test_pipeline
import test_pipeline_adaptor
import test_pipeline_adaptor_copy
import test_pipeline_compiled
import test_pipeline_devices
import test_pipeline_few_steps
import test_pipeline_full_steps
import test_pipeline_loops
import test_pipeline_modular
import test_pipeline_modules
import test_pipeline_quantised
import test_pipeline_single_file
import test_pipeline_state
import test_pipeline_text
import test_pipeline_threads
import test_pipeline_tune_videos
import test_pipeline_unets
import test_split
import test_step_tracking
import test_unet_kinds
import test_video_unets
from helpers.pipelines import KINDS
from helpers.unets import UNETS

ROOT = Path(__file__).parents[2]
MODULES = (
    test_compiled_table,
    test_controlnet,
    test_pipeline,
    test_pipeline_adaptor,
    test_pipeline_adaptor_copy,
    test_pipeline_compiled,
    test_pipeline_devices,
    test_pipeline_few_steps,
    test_pipeline_full_steps,
    test_pipeline_loops,
    test_pipeline_modular,
    test_pipeline_modules,
    test_pipeline_quantised,
    test_pipeline_single_file,
    test_pipeline_state,
    test_pipeline_text,
    test_pipeline_threads,
    test_pipeline_tune_videos,
    test_pipeline_unets,
    test_split,
    test_step_tracking,
    test_unet_kinds,
    test_video_unets,
)
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
        assert any(hasattr(module, name) for module in MODULES), name
        assert not case or case in CASES[name], case


def test_every_pipeline_and_feature_has_its_line() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text()
    for name, cases in CASES.items():
        for case in cases:
            assert f"`{name}[{case}]`" in page
