"""OpenVINO and ExecuTorch, where they are installed: the runner's latents are the pipeline's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.exporting import GUIDANCE, SDXL, STEPS, largest_difference, tiny_pipeline
from helpers.pipelines import miniature_pipeline

import clockwork
from clockwork.exporting.runner import Runner, RunnerError
from clockwork.sampling.solvers import make_solver
from clockwork.teachers.random_weights import random_pipeline

CALL = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}


def calibrated_miniature() -> Any:
    """The miniature's pipeline with a linear adaptor."""
    pipe = miniature_pipeline(clockwork.load_teacher("miniature", guidance=GUIDANCE, device="cpu"))
    clockwork.calibrate(pipe, ["a red circle", "a blue star", "a square"], "clock2", "stage1", **CALL)
    return pipe


@pytest.fixture(autouse=True)
def no_reports_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO reports its use to its makers, except where CI runs."""
    monkeypatch.setenv("CI", "true")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:adaptor used away from the operating point:UserWarning")
def test_the_miniature_in_openvino(tmp_path: Path) -> None:
    """Also for several images, and in another size than the example that was traced."""
    pytest.importorskip("openvino")
    pipe = calibrated_miniature()
    folder = clockwork.export(pipe, tmp_path / "pair", "openvino")
    runner = Runner(folder, config={"INFERENCE_PRECISION_HINT": "f32"})
    assert largest_difference(pipe, runner, 1, 16, 16) < 1e-4
    assert largest_difference(pipe, runner, 3, 24, 8 * 5) < 1e-4
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"guidance": 3.0', '"guidance": 4.0'))
    with pytest.raises(RunnerError, match=r"full\.xml and config\.json beside it belong to different exports"):
        Runner(folder)
    (folder / "full.bin").unlink()
    with pytest.raises(RunnerError, match=r"full\.bin does not exist"):
        Runner(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of a package that CI does not have
@pytest.mark.parametrize("unet", [{}, SDXL], ids=["sd", "sdxl"])
def test_executorch_at_its_one_size(unet: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    pipe = tiny_pipeline(**unet)
    clockwork.enable(pipe, "clock2", cut="stage1")
    runner = Runner(clockwork.export(pipe, tmp_path / "pair", "executorch", **CALL))
    assert largest_difference(pipe, runner, 1, 8, 8) < 1e-4
    with pytest.raises(RunnerError, match="pass 1 to 1 at a time"):
        runner(np.zeros((2, 4, 8, 8)), np.zeros((4, 77, 12)))
    with pytest.raises(RunnerError, match="use multiples of 2 from 8 to 8"):
        runner(np.zeros((1, 4, 16, 8)), np.zeros((2, 77, 12)))


@pytest.mark.full  # the export takes minutes
@pytest.mark.filterwarnings("ignore")
def test_the_miniature_in_executorch(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    pipe = calibrated_miniature()
    runner = Runner(clockwork.export(pipe, tmp_path / "pair", "executorch"))
    assert largest_difference(pipe, runner, 1, 16, 16) < 1e-4


@pytest.mark.full  # an export takes minutes and up to 12 GB, the latents take minutes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["onnx", "openvino", "executorch"])
def test_stable_diffusion_at_real_size(format: str, tmp_path: Path) -> None:
    """SD v1.5 with random weights, at 512 × 512 pixels with guidance."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(format, format))
    pipe = random_pipeline("sd15")
    pipe.scheduler = make_solver("dpm++", dict(pipe.scheduler.config))
    clockwork.enable(pipe, "clock2")
    runner = Runner(clockwork.export(pipe, tmp_path / "pair", format, **CALL))
    assert largest_difference(pipe, runner, 1, 64, 64) < 5e-3  # of latents near 70
