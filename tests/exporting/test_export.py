"""An exported pair: the runner's latents are the pipeline's, and what is wrong is one sentence."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import run
from helpers.exporting import GUIDANCE, STEPS, largest_difference, tiny_pipeline
from helpers.linear import random_linear

import clockwork
from clockwork.adaptors import Residual, ResNet, Taylor
from clockwork.adaptors.base import FeatureDims
from clockwork.errors import UserError
from clockwork.exporting.pair import _check_adaptor
from clockwork.exporting.runner import Runner, RunnerError
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.enable import enabled_hook
from clockwork.sampling.feature_shapes import dims_of_features, meta_call
from clockwork.sampling.solvers import make_solver, solver_settings

CALL = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = tiny_pipeline()
    clockwork.enable(pipe, "clock2")
    return pipe


@pytest.fixture(scope="module")
def folder(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clockwork.export(pipe, tmp_path_factory.mktemp("export") / "pair", "pt2", **CALL)


@pytest.fixture(scope="module")
def runner(folder: Path) -> Runner:
    return Runner(folder)


@pytest.mark.parametrize(("images", "height", "width"), [(1, 8, 8), (3, 12, 4)])
def test_the_runner_gives_the_latents_of_the_pipeline(
    pipe: Any, runner: Runner, images: int, height: int, width: int
) -> None:
    """Also for one image, and in another batch and size than the example that was traced."""
    assert largest_difference(pipe, runner, images, height, width) < 1e-4


def test_the_adaptor_graph_holds_the_layers_that_run(pipe: Any, folder: Path) -> None:
    names = {name.removeprefix("unet.") for name in torch.export.load(folder / "adaptor.pt2").state_dict}
    assert {"conv_in.weight", "conv_out.weight"} <= names <= pipe.unet.state_dict().keys()
    assert not any("down_blocks.1" in name for name in names)


def test_the_folder_describes_the_operating_point(pipe: Any, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    point = config["operating_point"]
    assert (point["schedule"], point["solver"], point["steps"], point["guidance"]) == ("clock2", "dpm++", 8, 3.0)
    assert config["solver"]["timesteps"][0] == 999 and config["full_steps"] == [True, False] * 4
    assert config["shapes"] == {"images": [1, 16], "channels": 4, "sides": [4, 256], "multiple": 2}
    assert {file.name for file in folder.iterdir()} == {
        "full.pt2",
        "adaptor.pt2",
        "config.json",
        "runner.py",
        ".clockwork",
    }


NOISE, TEXT = np.zeros((1, 4, 8, 8)), np.zeros((2, 77, 12))
WRONG_INPUTS = {
    "9 × 8 are outside the exported range: use multiples of 2 from 4 to 256": (np.zeros((1, 4, 9, 8)), TEXT, {}),
    "2 × 8 are outside the exported range": (np.zeros((1, 4, 2, 8)), TEXT, {}),
    "17 images are outside the exported range: pass 1 to 16": (np.zeros((17, 4, 8, 8)), TEXT, {}),
    "is not images × 4 × height × width": (np.zeros((1, 3, 8, 8)), TEXT, {}),
    "prompt_embeds has shape (1, 77, 12): pass 2 × 77 × 12": (NOISE, TEXT[:1], {}),
    "do not read text_embeds: leave it out": (NOISE, TEXT, {"text_embeds": TEXT}),
}


@pytest.mark.parametrize("message", WRONG_INPUTS)
def test_inputs_that_were_not_exported_are_refused(runner: Runner, message: str) -> None:
    noise, text, conditions = WRONG_INPUTS[message]
    with pytest.raises(RunnerError) as refused:
        runner(noise, text, **conditions)
    assert message in str(refused.value)


def test_files_of_different_exports_are_refused(folder: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    text = (mixed / "config.json").read_text()
    (mixed / "config.json").write_text(text.replace('"guidance": 3.0', '"guidance": 4.0'))
    with pytest.raises(RunnerError, match=r"full\.pt2 and config\.json beside it belong to different exports"):
        Runner(mixed)
    (mixed / "adaptor.pt2").unlink()
    with pytest.raises(RunnerError, match=r"adaptor\.pt2 does not exist: pass a folder that clockwork\.export wrote"):
        Runner(mixed)


@pytest.mark.parametrize(
    ("format", "suffix", "package"),
    [
        ("pt2", "pt2", "torch"),
        ("onnx", "onnx", "onnxruntime"),
        ("openvino", "xml", "openvino"),
        ("executorch", "pte", "executorch"),
    ],
)
def test_a_runtime_that_is_missing(
    format: str, suffix: str, package: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name in ("full", "adaptor"):
        (tmp_path / f"{name}.{suffix}").touch()
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": format}))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RunnerError, match=f"{package} is not installed: pip install {package}"):
        Runner(tmp_path)


@pytest.mark.parametrize(
    ("format", "package", "extra"),
    [
        ("onnx", "onnx", "export"),
        ("onnx", "onnxscript", "export"),
        ("openvino", "openvino", "openvino"),
        ("executorch", "executorch", "executorch"),
    ],
)
def test_a_package_that_is_missing(
    format: str, package: str, extra: str, pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'{package} is not installed: pip install "clockwork-diffusion\[{extra}\]"'):
        clockwork.export(pipe, tmp_path, format, **CALL)


def test_what_cannot_be_exported(pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(message: str, pipe: Any = pipe, **arguments: Any) -> None:
        with pytest.raises(UserError, match=message):
            clockwork.export(pipe, **{"folder": tmp_path / "pair", "format": "pt2", **CALL, **arguments})

    refused("format=tflite is not one of those that exist: use onnx or pt2 or openvino or executorch", format="tflite")
    refused("pass num_inference_steps and guidance_scale", guidance_scale=None)
    (tmp_path / "other.txt").touch()
    refused("exists and was not made by Clockwork, so it is not replaced", folder=tmp_path)
    refused(r"call clockwork\.enable\(pipe\) first", tiny_pipeline())
    inpainting = tiny_pipeline(in_channels=9)
    clockwork.enable(inpainting, "clock2")
    refused("reads more than latents", inpainting)
    schedule = solver_settings(pipe.scheduler)
    for solver, options, message in (
        ("pndm", {}, "solver pndm cannot be exported: use dpm.. or ddim"),
        ("dpm++", {"solver_order": 3}, "solver_order=3 cannot be exported"),
        ("dpm++", {"solver_type": "heun"}, "solver_type=heun cannot be exported"),
        ("ddim", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True cannot be exported"),
    ):
        monkeypatch.setattr(pipe, "scheduler", make_solver(solver, {**schedule, **options}))
        refused(message)
    monkeypatch.undo()
    monkeypatch.setattr(pipe.unet.conv_in, "weight", torch.nn.Parameter(pipe.unet.conv_in.weight.bfloat16()))
    refused(r'call pipe.to\("cpu", torch.float32\) first')
    monkeypatch.undo()
    assert not (tmp_path / "pair").exists()


def test_an_adaptor_needs_one_graph_for_all_steps() -> None:
    """A trend between equal full steps is zero, so a linear adaptor's only full step is passed twice; a forecaster
    divides by their distance."""
    dims = FeatureDims(4, 8, 16, 0)
    linear = random_linear(dims, [2, 4])
    _check_adaptor(linear)
    _check_adaptor(Residual(linear, ResNet(dims, 8, 1, ("r_in", "r_out_prev"))))
    with pytest.raises(UserError, match="the adaptor taylor reads several full steps"):
        _check_adaptor(Taylor(order=1))


def test_an_adaptor_of_another_teacher(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    point = OperatingPoint("other", "0" * 12, "2,3", "clock2", "dpm++", STEPS, GUIDANCE, 32)
    clockwork.save_adaptor(tmp_path / "adaptor", random_linear(FeatureDims(4, 8, 16, 0), [2, 4]), point)
    words = ["adaptor=folder", f"adaptor.path={tmp_path / 'adaptor'}", f"output={tmp_path / 'pair'}"]
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "export", *words)
    assert stopped.value.code == 2 and "trained for teacher other" in capsys.readouterr().err
    assert not (tmp_path / "pair").exists()


@pytest.mark.slow  # two exports
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_maps_of_both_halves(guidance: float, tmp_path: Path) -> None:
    """A map that reads both halves splits the batch, which has a size that is not known when it is exported."""
    pipe = tiny_pipeline()
    clockwork.enable(pipe, "clock2", cut="stage1")
    split = enabled_hook(pipe).denoiser.split
    embedded = split.embed(**meta_call(pipe.unet.to("meta"), (4, 8, 8), 7))
    high = split.high_in(embedded)
    dims = dims_of_features(high.r_in.shape, split.low(high, embedded).shape, embedded.t_emb.shape, 0)
    pipe = tiny_pipeline()
    clockwork.enable(pipe, "clock2", random_linear(dims, [2, 4, 6, 8], joint=True), "stage1")
    folder = clockwork.export(pipe, tmp_path / "pair", "pt2", num_inference_steps=STEPS, guidance_scale=guidance)
    runner = Runner(folder)
    assert largest_difference(pipe, runner, 1, 8, 8, guidance) < 1e-4
    assert largest_difference(pipe, runner, 2, 12, 8, guidance) < 1e-4
