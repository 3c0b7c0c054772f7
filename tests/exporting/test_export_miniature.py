"""The miniature with three adaptors in both formats: the runner's latents are the pipeline's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import run
from helpers.exporting import GUIDANCE, STEPS, largest_difference
from helpers.pipelines import miniature_pipeline, random_adaptor

import clockwork
from clockwork.exporting import formats, pair
from clockwork.exporting.runner import Runner, RunnerError
from clockwork.pipeline.enable import enabled_hook
from clockwork.teachers import Teacher

pytestmark = pytest.mark.slow  # the export of the full step takes half a minute
CALL = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return clockwork.load_teacher("miniature", guidance=GUIDANCE, device="cpu")


@pytest.fixture(scope="module")
def pipe(teacher: Teacher) -> Any:
    return miniature_pipeline(teacher)


@pytest.fixture(scope="module")
def full_step_once() -> Iterator[None]:
    """Exports graphs with the same inputs once: the full step is that of all adaptors."""
    programs: dict[Any, Any] = {}
    models: dict[Any, Any] = {}
    export_graph, onnx_model = pair.export_graph, formats.onnx_model

    def program(graph: Any, inputs: Any) -> Any:
        key = tuple(inputs.tensors)
        programs[key] = programs.get(key) or export_graph(graph, inputs)
        return programs[key]

    def model(exported: Any, inputs: list[str]) -> Any:
        if tuple(inputs) not in models:
            converted = onnx_model(exported, inputs)
            weights = {value: value.const_value for value in converted.graph.initializers.values()}
            models[tuple(inputs)] = converted, weights
        converted, weights = models[tuple(inputs)]
        for value, weight in weights.items():  # saving moves them to a file
            value.const_value = weight
        return converted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair, "export_graph", program)
        patch.setattr(formats, "onnx_model", model)
        yield


def enable(pipe: Any, teacher: Teacher, kind: str, folder: Path) -> None:
    """With an adaptor at the cut `stage1`."""
    if kind == "linear":
        clockwork.calibrate(pipe, ["a red circle", "a blue star", "a square"], "clock2", "stage1", **CALL)
    else:
        clockwork.enable(pipe, "clock2", random_adaptor(teacher, folder, STEPS) if kind == "resnet" else None, "stage1")


@pytest.mark.usefixtures("full_step_once")
@pytest.mark.filterwarnings("ignore:adaptor used away from the operating point:UserWarning")
@pytest.mark.parametrize("format", ["pt2", "onnx"])
@pytest.mark.parametrize("kind", ["identity", "linear", "resnet"])
def test_the_runner_gives_the_latents_of_the_pipeline(
    format: str, kind: str, pipe: Any, teacher: Teacher, tmp_path: Path
) -> None:
    """Also for one image, and in another size than the example that was traced. The ResNet reads text."""
    enable(pipe, teacher, kind, tmp_path / "adaptor")
    known = {} if kind != "identity" else CALL  # others know their operating point
    folder = clockwork.export(pipe, tmp_path / "pair", format, **known)
    runner = Runner(folder)
    assert largest_difference(pipe, runner, 1, 16, 16) < 1e-4
    assert largest_difference(pipe, runner, 3, 24, 8 * 5) < 1e-4
    if format == "onnx":  # one file of weights for both graphs
        size = sum(file.stat().st_size for file in folder.iterdir())
        modules = pipe.unet, enabled_hook(pipe).denoiser.adaptor
        weights = sum(weight.nbytes for module in modules for weight in module.parameters())
        assert weights < size < 1.1 * weights and len(list(folder.glob("*.bin"))) == 1


@pytest.mark.usefixtures("full_step_once")
def test_graphs_of_onnx_exports_are_not_mixed(pipe: Any, teacher: Teacher, tmp_path: Path) -> None:
    clockwork.enable(pipe, "clock2", cut="stage1")
    one, other = (
        clockwork.export(pipe, tmp_path / str(guidance), num_inference_steps=STEPS, guidance_scale=guidance)
        for guidance in (2.0, 3.0)
    )
    (one / "adaptor.onnx").write_bytes((other / "adaptor.onnx").read_bytes())
    for file in other.glob("*.bin"):
        (one / file.name).write_bytes(file.read_bytes())
    with pytest.raises(RunnerError, match=r"adaptor\.onnx and config\.json beside it belong to different exports"):
        Runner(one)


@pytest.mark.usefixtures("full_step_once")
def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "pair"
    run(monkeypatch, "export", "adaptor=identity", "steps=6", "solver=ddim", f"output={folder}")
    config = Runner(folder).config
    assert config["operating_point"]["solver"] == "ddim" and config["full_steps"] == [True, False] * 3
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("full.onnx", "adaptor.onnx", ".bin", f"Runner('{folder}')"))
