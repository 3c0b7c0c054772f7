"""Arguments of the public functions as somebody would pass them who has not read the docs: one sentence, or right."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.pipelines import generate, make
from torch import nn

import clockwork
from clockwork.adaptors import FeatureDims
from clockwork.calibration.options import FitOptions
from clockwork.errors import UserError, check_number, check_whole

PROMPTS = ["a cat", "a dog"]
DIGITS = "9" * 5000
DIMS = FeatureDims(8, 8, 8, 0)
SCHEDULES: dict[str, list[Any]] = {  # what is the same schedule in several spellings
    "clock2": [2, np.int64(2), np.int32(2), torch.tensor(2), clockwork.Schedule(2)],
    "2,3": [
        *([2, 3], (2, 3), {2, 3}, frozenset([2, 3]), range(2, 4), "2, 3", ["2", "3"]),
        *([np.int64(2), 3], np.array([2, 3]), torch.tensor([2, 3])),
    ],
}
CUTS: list[Any] = ["1,2", "1, 2", (1, 2), [1, 2], np.array([1, 2]), torch.tensor([1, 2]), (np.int64(1), 2)]
NO_SCHEDULES: list[Any] = [
    *(2.0, [2.0], True, [True], 0, -1, [], (), set(), range(0), [1, 2], [0], [-2], [2, None], ["x"], "", "clock"),
    *("clock0", "clock-2", "clock2.5", "CLOCK2", {"a": 1}, object(), b"clock2", [[2]], DIGITS, f"clock{DIGITS}"),
    *(float("nan"), 10**30, torch.tensor([2.5]), np.array([[2, 3]]), np.array(2.5)),
]
NO_CUTS: list[Any] = [
    *(3, 3.5, (3,), (3, 4, 5), (3.0, 4.0), (True, False), "stage0", "stage99", "layer0", "layer99", (-1, 3), (0, 0)),
    *((99, 99), "", [], {}, object(), "3,4,5", f"{DIGITS},1", b"stage1", ("a", "b"), [None, 3], range(3)),
    *(clockwork.Cut(99, 99), clockwork.Cut("a", 1), clockwork.Cut(1.5, 2)),  # type: ignore[arg-type]
]
NO_ADAPTORS: list[Any] = [
    *(5, 2.5, {}, [], object(), nn.Linear(2, 2), "", " ", "nowhere", "a/b/c", Path("/nowhere"), Path("/dev/null")),
    *("/etc/passwd", clockwork.Identity, b"x", True, abs, "x" * 300, "https://huggingface.co/a/b"),
]
NO_PIPELINES: list[Any] = [
    *(None, 5, "user/name", {}, nn.Linear(2, 2), clockwork.Identity(), SimpleNamespace(transformer=nn.Linear(2, 2))),
    *(SimpleNamespace(unet=None), SimpleNamespace(unet=nn.Linear(2, 2)), SimpleNamespace(unet="unet")),
]
NO_PROMPTS: list[Any] = [[], "a cat", 5, [None], [5], [b"x"], {}, object(), iter([]), [["a"]], ""]
NO_CALIBRATIONS: list[dict[str, Any]] = [
    *({"seed": seed} for seed in ("a", None, -1, 1.5, 2**70)),
    *({"options": options} for options in ({}, 5, "x", {"rank": 2})),
    *({"schedule": schedule} for schedule in ("full", "always", [9], None)),
    *({"cut": cut} for cut in (None, "stage9")),
    *({"num_inference_steps": steps} for steps in (0, -1, "3", None, 2.5, True)),
    *({"guidance_scale": scale} for scale in (float("nan"), float("inf"), "3", -1.0)),
    *({"num_images_per_prompt": count} for count in (0, "a")),
    *({"negative_prompt": text} for text in (5, [5])),
    *({"prompt": "a"}, {"output_type": "pil"}, {"nonsense": 3}, {"compile": "x"}),
]
NO_MENUS: list[dict[str, Any]] = [
    *({"cuts": cuts} for cuts in ("layer1", [], 5, ["layer1", "stage99"], [None], iter([]))),
    *(
        {"schedules": each}
        for each in ("clock2", [], 2, ["clock2", "x"], ["clock2", "full"], ["always"], [None], [[9]])
    ),
    *({"budget": budget} for budget in ("0.6", 0, 1, 2, float("nan"), True)),
    *({"quality": quality} for quality in ("best", 5, [])),
    *({"num_measured": count} for count in (0, 2, -1, 1.0, "1")),
    *({"runs": runs} for runs in (0, -1, "a", 1.5)),
    *({"prompts": prompts} for prompts in NO_PROMPTS[:5]),
]
NO_TEACHERS: list[dict[str, Any]] = [
    *({"path": path} for path in (None, 5, "", "nowhere", "/etc/passwd", Path("/nowhere"))),
    *({"guidance": guidance} for guidance in ("x", float("nan"), -1, True)),
    *({"resolution": resolution} for resolution in (0, -8, "x", 32.5, 10**7)),
    *({"device": device} for device in (None, 5, "gpu", "cuda:99")),
    *({"precision": precision} for precision in (None, "int8", torch.float32)),
    *({"compile": compile} for compile in ("yes", 5, None)),
    {"name": 5},
]
NO_ARGUMENTS: list[tuple[type, tuple[Any, ...]]] = [
    *((cls, (DIMS, *rest)) for cls in (clockwork.ResNet, clockwork.UNet) for rest in ((0,), (-1,), ("a",), (8.5,))),
    *((cls, (DIMS, 8, *rest)) for cls in (clockwork.ResNet, clockwork.UNet) for rest in ((-1,), ("a",), (1, None))),
    *((clockwork.Linear, (DIMS, steps)) for steps in ([], [0], [2.5], "2", None, [2, 2], [True], 5)),
    *((clockwork.Taylor, (dims,)) for dims in (3, "1", None)),
    *((clockwork.Hermite, (DIMS, *rest)) for rest in ((0,), (3,), ("a",), (1, 0), (1, 1))),
    *((clockwork.SplitUNet, (unet,)) for unet in (None, nn.Linear(2, 2), "unet")),
]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return make()[0]


def one_sentence(error: Any) -> None:
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 500


@pytest.mark.parametrize("normal", SCHEDULES)
def test_spellings_of_a_schedule(normal: str) -> None:
    assert {clockwork.Schedule.parse(each) for each in SCHEDULES[normal]} == {clockwork.Schedule.parse(normal)}


@pytest.mark.parametrize("number", range(len(CUTS)))
def test_spellings_of_a_cut(number: int, pipe: Any) -> None:
    assert clockwork.SplitUNet(pipe.unet, CUTS[number]).cut == clockwork.Cut(1, 2)


def test_wrong_settings_are_refused_and_leave_what_was_there(pipe: Any) -> None:
    clockwork.enable(pipe, schedule=3)
    before = generate(pipe)
    for name, values in {"schedule": NO_SCHEDULES, "cut": NO_CUTS, "adaptor": NO_ADAPTORS}.items():
        for value in values:
            with pytest.raises(UserError) as error:
                clockwork.enable(pipe, **{name: value})
            one_sentence(error)
    for compile in (5, "yes", 1.5, [1], {"mode": "nothing"}, {"nonsense": 1}):
        with pytest.raises(UserError):
            clockwork.enable(pipe, compile=compile)  # type: ignore[arg-type]
    assert torch.equal(generate(pipe), before)
    clockwork.disable(pipe)
    clockwork.disable(pipe)


@pytest.mark.parametrize("name", ["enable", "disable", "summary", "calibrate", "tune"])
def test_what_is_no_pipeline_is_refused(name: str) -> None:
    for value in NO_PIPELINES:
        with pytest.raises(UserError) as error:
            getattr(clockwork, name)(value)
        one_sentence(error)


def test_wrong_prompts_and_arguments_of_a_calibration_are_refused(pipe: Any) -> None:
    call = {"num_inference_steps": 3, "guidance_scale": 3.0}
    for changes in [*({"prompts": prompts} for prompts in NO_PROMPTS), *NO_CALIBRATIONS]:
        with pytest.raises(UserError) as error:
            clockwork.calibrate(pipe, **{"prompts": PROMPTS, **call, **changes})
        one_sentence(error)
    for changes in NO_MENUS:
        with pytest.raises(UserError) as error:
            clockwork.tune(pipe, **{"prompts": PROMPTS, "num_measured": 1, **call, **changes})
        one_sentence(error)
    with pytest.raises(UserError, match="not enabled"):
        clockwork.summary(pipe)


def test_prompts_of_a_generator_are_all_read(pipe: Any) -> None:
    call = {"num_inference_steps": 2, "guidance_scale": 3.0, "cut": "layer1"}
    texts = [f"a cat {i}" for i in range(4)]
    try:
        fitted = [clockwork.calibrate(pipe, prompts, **call) for prompts in (texts, iter(texts), np.array(texts))]
        assert all(adaptor.calibration["prompts"] == 4 for adaptor in fitted)
        assert all(torch.equal(adaptor.weight, fitted[0].weight) for adaptor in fitted)
    finally:
        clockwork.disable(pipe)


@pytest.mark.filterwarnings("ignore:.*local_dir_use_symlinks")  # diffusers' own argument, for a name on the hub
@pytest.mark.parametrize("changes", NO_TEACHERS, ids=str)
def test_wrong_arguments_of_a_teacher_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError) as error:
        clockwork.load_teacher(**{"path": "miniature", **changes})
    one_sentence(error)


@pytest.mark.parametrize(("cls", "arguments"), NO_ARGUMENTS, ids=str)
def test_wrong_arguments_of_adaptors_are_refused(cls: type, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(UserError) as error:
        cls(*arguments)
    one_sentence(error)


def test_wrong_folders_are_refused(pipe: Any, tmp_path: Path) -> None:
    adaptor = clockwork.ResNet(FeatureDims(8, 8, 8, 4), 8, 1)
    calls: list[Any] = [
        *(lambda f=folder: clockwork.load_adaptor(f) for folder in (None, 5, "", "/proc/x", "/dev/null", tmp_path)),
        *(lambda f=folder: clockwork.save_adaptor(f, adaptor) for folder in (None, 5, "/proc/x", "/dev/null", "/")),
        *(lambda a=each: clockwork.save_adaptor(tmp_path, a) for each in (None, nn.Linear(2, 2), adaptor, "x")),
        lambda: clockwork.save_adaptor(tmp_path, adaptor, "clock2"),  # type: ignore[arg-type]
        *(lambda n=name: clockwork.push_to_hub(tmp_path, n) for name in ("a b", "a/b/c", None, "", "user/name")),
        lambda: clockwork.push_to_hub(None, "user/name"),  # type: ignore[arg-type]
        *(lambda f=folder: clockwork.export(pipe, f) for folder in (None, 5, "/proc/x", "/dev/null", tmp_path / "x")),
    ]
    for call in calls:
        with pytest.raises(UserError) as error:
            call()
        one_sentence(error)
    assert not list(tmp_path.iterdir())


def test_numbers_are_checked() -> None:
    assert check_whole("n", np.int64(3), 1) == check_whole("n", torch.tensor(3), 1, 3) == 3
    assert check_number("x", np.float32(0.5), 0) == check_number("x", 0.5, 0.5) == 0.5
    for wrong in (True, 2.0, "2", None, 0, 4):
        with pytest.raises(UserError, match=r"n=.* is not possible: pass a whole number from 1 to 3"):
            check_whole("n", wrong, 1, 3)
    with pytest.raises(UserError, match="guided_weight='nan' is not possible: pass a number of at least 0"):
        FitOptions(guided_weight=float("nan"))
