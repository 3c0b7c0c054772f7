"""The types of values that several configs have."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from clockwork.experiments.schemas.rules import Bounds, Rule
from clockwork.io.paths import can_be_file, can_be_folder
from clockwork.schedule import Schedule

MOST_SEEDS = 1000


def _not_empty(value: Any) -> Any:
    if len(value) == 0:
        raise ValueError
    return value


NOT_EMPTY = Rule(_not_empty, "not empty")


def _schedule(value: Any) -> str:
    """Of `clock2`, `full`, `2,4`, 2 or [2, 4]."""
    steps = value if isinstance(value, list) else [value]
    if any(isinstance(step, bool) or not isinstance(step, int | str) for step in steps):
        raise ValueError
    text = ",".join(map(str, steps))
    Schedule.parse(text)
    return text


def _cut(value: Any) -> str:
    """Of `stage1`, `layer1`, `3,4` or [3, 4]; whether a UNet has it shows later."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if not re.fullmatch(r"stage[1-9]\d*(_upsampled)?|layer[1-9]\d*|\d+, *\d+", text):
        raise ValueError
    return text


def _ascending(value: list[float]) -> list[float]:
    low, high = value
    if low > high:
        raise ValueError
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?|[a-z]+:\d+|meta", value):
        raise ValueError
    return value


def _seeds(value: Any) -> list[int]:
    """Of 3, for 0, 1 and 2, or of a list."""
    seeds = list(range(min(value, MOST_SEEDS + 1))) if type(value) is int else value
    is_list = isinstance(seeds, list) and 0 < len(seeds) == len(set(map(str, seeds))) and len(seeds) <= MOST_SEEDS
    if not is_list or any(type(seed) is not int or not 0 <= seed < 2**32 for seed in seeds):
        raise ValueError
    return seeds


def _folder(value: str) -> str:
    if not can_be_folder(Path(value)):
        raise ValueError
    return value


def _image(value: str) -> str:
    file = Path(value)
    if file.suffix.lower() != ".png":
        raise ValueError
    return _file(value)


def _file(value: str) -> str:
    if not can_be_file(Path(value)):
        raise ValueError
    return value


def _name(value: str) -> str:
    if value in (".", "..") or re.search(r"[/\\\0]", value):
        raise ValueError
    return value


Text = Annotated[str, NOT_EMPTY]
Folder = Annotated[str, NOT_EMPTY, Rule(_folder, "the path of a folder to write to, or of a new one")]
NewImage = Annotated[str, NOT_EMPTY, Rule(_image, "the path of a png file to write")]
Name = Annotated[str, NOT_EMPTY, Rule(_name, "a name without slashes")]
NewFile = Annotated[str, NOT_EMPTY, Rule(_file, "the path of a file to write")]
# Limits keep slips such as a zero too many, which would fill the memory or run for years, from being tried.
Count = Annotated[int, Bounds(least=1, most=10**9)]
CountOrNone = Annotated[int, Bounds(least=0, most=10**9)]
Rendered = Annotated[int, Bounds(least=1, most=10**6)]  # scenes, of which each is drawn or rendered by itself
BatchSize = Annotated[int, Bounds(least=1, most=2**16)]
Width = Annotated[int, Bounds(least=1, most=2**16)]
Devices = Annotated[int, Bounds(least=1, most=2**12)]
Side = Annotated[int, Bounds(least=1, most=2**14)]  # of images, in pixels
Steps = Annotated[int, Bounds(least=1, most=1000)]
Seed = Annotated[int, Bounds(least=0, most=2**32 - 1)]
Seeds = Annotated[
    Any,
    Rule(
        _seeds,
        f"a number of seeds such as 3, or a list such as [0,1,2] of up to {MOST_SEEDS} seeds that differ",
    ),
]
Guidance = Annotated[float, Bounds(least=0, most=1000)]
Share = Annotated[float, Bounds(least=0, most=1)]
Positive = Annotated[float, Bounds(above=0, most=1e38)]  # as float32 has it
NotNegative = Annotated[float, Bounds(least=0, most=1e38)]
Decay = Annotated[float, Bounds(above=0, below=1)]
StepRange = Annotated[list[Steps], Rule(_ascending, "as [lowest,highest]")]
GuidanceRange = Annotated[list[Guidance], Rule(_ascending, "as [lowest,highest]")]
ScheduleText = Annotated[
    Any, Rule(_schedule, "full, clock2, clock4, …, always, or the adaptor's steps, from 2 on, such as [2,4,6,8]")
]
CutText = Annotated[
    Any, Rule(_cut, "stage1, stage1_upsampled, layer1, …, or the numbers of kept layers, such as [3,4]")
]
Device = Annotated[str, Rule(_device, "such as auto, cpu, cuda, cuda:1 or mps")]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Solver = Literal["dpm++", "dpm", "pndm", "ddim", "lcm", "flow"]
EditSolver = Literal["dpm++", "dpm", "pndm", "ddim", "flow"]  # without noise, which would not lead back to the image
Split = Literal["train", "validation", "test"]
