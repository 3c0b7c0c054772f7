"""An adaptor whose weights are for other features than the teacher's: one sentence, before any image is generated.

Its folder names the right teacher and cut, so that nothing else is wrong.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.commands import answers_in_one_sentence, run
from helpers.models import small_teacher
from helpers.pipelines import miniature_pipeline

import clockwork
from clockwork.adaptors import Adaptor, FeatureDims, Linear, Residual, ResNet, Taylor, UNet, check_dims, save_adaptor
from clockwork.errors import UserError
from clockwork.sampling.feature_shapes import feature_dims, pipeline_feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, load_teacher
from clockwork.unet.split import SplitUNet

PLAIN = ("r_in", "r_out_prev", "t_emb")
KINDS: dict[str, Callable[[FeatureDims], Adaptor]] = {
    "resnet": lambda dims: ResNet(dims, 16, 1),
    "resnet of r_in": lambda dims: ResNet(dims, 16, 1, ("r_in",)),
    "unet": lambda dims: UNet(dims, 16, 2),
    "linear": lambda dims: Linear(dims, [2, 4]),
    "residual": lambda dims: Residual(Linear(dims, [2]), ResNet(dims, 16, 1)),
}
READ = {
    "resnet": {"r_in", "r_out", "t_emb", "text_emb"},
    "resnet of r_in": {"r_in", "r_out", "upscale"},
    "unet": {"r_in", "r_out", "t_emb", "text_emb"},
    "linear": {"r_in", "r_out"},
    "residual": {"r_in", "r_out", "t_emb", "text_emb"},
}
CASES = [(kind, name) for kind in KINDS for name in ("r_in", "r_out", "t_emb", "text_emb", "upscale")]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("miniature", guidance=3.0, device="cpu")


def other(dims: FeatureDims, name: str) -> FeatureDims:
    return replace(dims, **{name: getattr(dims, name) + 1 if name == "upscale" else getattr(dims, name) // 2})


def save(teacher: Teacher, adaptor: Adaptor, folder: Path, cut: str = "stage1", solver: str = "dpm++") -> Path:
    """In a folder for the teacher's point."""
    split = SplitUNet(teacher.unet, cut)
    point = Sampler(teacher, split, Schedule(), solver, 4, 3.0).point
    embedder = teacher.text_embedder
    save_adaptor(folder, adaptor, replace(point, schedule="clock2"), openclip=embedder and embedder.config)
    return folder


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers may work out shapes, on the meta device, and compute nothing."""
    convolve = torch.nn.Conv2d.forward

    def forward(self: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        assert x.is_meta, "an image is being generated"
        return convolve(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("cut", ["stage1", "stage2"])
def test_weights_of_other_sizes_are_refused(
    kind: str, name: str, cut: str, teacher: Teacher, nothing_runs: None
) -> None:
    """In roll-outs and pipelines; what the weights do not read may differ."""
    dims = feature_dims(teacher, cut)
    adaptor = KINDS[kind](other(dims, name))
    split, pipe = SplitUNet(teacher.unet, cut), teacher.pipe
    clock = Schedule.parse("clock2")
    of_pipeline = pipeline_feature_dims(teacher.unet, cut, dims.text_emb)
    assert of_pipeline == dims
    if name not in READ[kind]:
        check_dims(adaptor, dims, cut)
        Sampler(teacher, split, clock, "dpm++", 4, 3.0, adaptor, kind)
        return
    message = f"{name} {getattr(other(dims, name), name)}, not {getattr(dims, name)}"
    with pytest.raises(UserError, match=message):
        Sampler(teacher, split, clock, "dpm++", 4, 3.0, adaptor, kind)
    if "text_emb" not in adaptor.inputs:  # else the folder names the text embedder
        with pytest.raises(UserError, match=message):
            clockwork.enable(pipe, "clock2", adaptor, cut)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["sdxl", "bk_sdm_tiny", "sd15"])
def test_adaptors_of_other_teachers_are_refused(kind: str, shape: str, teacher: Teacher, nothing_runs: None) -> None:
    of_other = small_teacher(shape, guidance=3.0)
    adaptor = KINDS[kind](feature_dims(teacher, "stage1"))
    with pytest.raises(UserError, match=r"features of other sizes than those at cut .* r_out \d+, not \d+"):
        Sampler(of_other, SplitUNet(of_other.unet), Schedule.parse("clock2"), "dpm++", 4, 3.0, adaptor, kind)
    with pytest.raises(UserError, match=r"features of other sizes|which OpenCLIP model embeds it"):
        clockwork.enable(of_other.pipe, "clock2", adaptor)


@pytest.mark.parametrize("part", ["base", "correction"])
def test_both_parts_of_a_residual_are_checked(part: str, teacher: Teacher) -> None:
    dims = feature_dims(teacher, "stage1")
    wrong = other(dims, "t_emb")
    parts = [ResNet(wrong if part == name else dims, 16, 1, PLAIN) for name in ("base", "correction")]
    with pytest.raises(UserError, match=f"t_emb {wrong.t_emb}, not {dims.t_emb}"):
        check_dims(Residual(*parts), dims, "stage1")


def test_adaptors_without_weights_fit_everywhere(teacher: Teacher) -> None:
    check_dims(Taylor(), feature_dims(teacher, "stage1"), "stage1")


COMMANDS = {
    "evaluate": ["prompts.count=2", "metrics=none", "metrics.latency=false", "steps=4"],
    "generate": ["prompt=a circle", "steps=4"],
    "export": ["steps=4"],
    "train": ["adaptor=linear", "prompts.count=100", "steps=4", "val_prompts=0"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_a_folder_of_other_sizes(
    command: str,
    teacher: Teacher,
    nothing_runs: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    kind = "linear" if command == "train" else "resnet"
    wrong = save(teacher, KINDS[kind](other(feature_dims(teacher, "stage1"), "r_in")), tmp_path / "adaptor")
    output = tmp_path / "output"
    output.mkdir()
    chosen = [f"base={wrong}"] if command == "train" else ["adaptor=folder", f"adaptor.path={wrong}"]
    place = output / "image.png" if command == "generate" else output / "new"
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, command, *chosen, *COMMANDS[command], "device=cpu", f"output={place}")
    answers_in_one_sentence(stopped.value.code, capsys, "for features of other sizes than those at cut", output)


def test_a_folder_of_the_right_sizes_is_enabled(teacher: Teacher, tmp_path: Path) -> None:
    folder = save(teacher, KINDS["unet"](feature_dims(teacher, "stage1")), tmp_path)
    clockwork.enable(miniature_pipeline(teacher), adaptor=folder)
