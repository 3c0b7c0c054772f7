"""The configs of the commands that analyse, report, prepare and export."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from clockwork.experiments.schemas.groups import Adaptor, Images, Metrics, Prompts
from clockwork.experiments.schemas.point import (
    Difference,
    OperatingPoint,
    WithTeacher,
    num_unet_calls,
    schedule_fits,
)
from clockwork.experiments.schemas.rules import ABSENT, Rule
from clockwork.experiments.schemas.tables import Scale, Table
from clockwork.experiments.schemas.teachers import Compile
from clockwork.experiments.schemas.types import (
    NOT_EMPTY,
    BatchSize,
    Count,
    CountOrNone,
    CutText,
    Device,
    Devices,
    Folder,
    Name,
    NewFile,
    Positive,
    Precision,
    Rendered,
    ScheduleText,
    Seed,
    Seeds,
    Share,
    Side,
    Solver,
    Steps,
    Text,
    Width,
)


@dataclass(kw_only=True)
class Bench(OperatingPoint):
    batch: BatchSize
    rounds: Count
    rollout_rounds: Count
    work_rounds: CountOrNone
    channels: Annotated[list[Width], NOT_EMPTY] | None
    compile: list[Compile]
    rivals: list[Text]
    exported: list[Literal["onnx", "pt2", "openvino"]]
    output: NewFile
    compare: Text | None


@dataclass(kw_only=True)
class Drift(OperatingPoint):
    prompts: Prompts
    cuts: Annotated[list[CutText], NOT_EMPTY]
    count: Count
    batch_size: BatchSize
    output: Folder

    @staticmethod
    def relation(values: dict[str, Any]) -> str | None:
        alone = num_unet_calls(values["steps"], values["solver"]) == 1
        return "steps=1 has no change from one step to the next: use at least 2 steps" if alone else None


@dataclass(kw_only=True)
class Perturb(OperatingPoint):
    prompts: Prompts
    layers: Literal["up", "down", "bottleneck", "conv_in"]
    alpha: Share
    over: Literal["example", "channel"]
    from_steps: Annotated[list[CountOrNone], NOT_EMPTY]
    count: Count
    grids: CountOrNone
    batch_size: BatchSize
    output: Folder

    @staticmethod
    def relation(values: dict[str, Any]) -> str | None:
        last = num_unet_calls(values["steps"], values["solver"]) - 1
        if max(values["from_steps"]) <= last:
            return None
        return (
            f"from_steps={values['from_steps']} is not allowed for {values['steps']} steps: use values from 0 to {last}"
        )


@dataclass(kw_only=True)
class Score(WithTeacher):
    images: Images
    metrics: Metrics
    resolution: Side
    batch_size: BatchSize
    solver: Solver = ABSENT  # a teacher's config may set these, for other commands
    steps: Steps = ABSENT
    schedule: ScheduleText = ABSENT


@dataclass(kw_only=True)
class Report:
    what: Literal["tables", "flops", "unets", "html", "compare"]
    point: dict[str, Any] | None
    to: dict[str, Any] | None
    rows: Text
    edits: Text
    adaptors: Text
    output: Folder
    scale: Scale
    table: Table = ABSENT
    figure: Table = ABSENT


@dataclass(kw_only=True)
class Tables:
    scale: Scale
    tables: list[Count]
    figures: list[Count]
    train: list[Text]
    evaluate: list[Text]
    adaptors: Folder
    rows: Folder
    output: Folder


def _making(command: list[str]) -> list[str]:
    if command[:1] not in (["train"], ["calibrate"]):
        raise ValueError
    return command


@dataclass(kw_only=True)
class Evidence:
    teacher_name: Name
    count: Count
    seeds: Seeds
    fits: Seeds
    made_by: dict[str, Annotated[list[Text], Rule(_making, "a command, train or calibrate, and its overrides")]]
    bases: dict[str, Text]
    evaluate: list[Text]
    adaptors: Folder
    rows: Folder
    output: Folder
    points: Annotated[list[Difference], NOT_EMPTY]


@dataclass(kw_only=True)
class GPUCheck:
    device: Device
    precision: Precision
    small: bool
    output: Folder


@dataclass(kw_only=True)
class RandomTeacher:
    architecture: Literal[
        "sd15", "efficient", "distilled", "bk_sdm_base", "bk_sdm_small", "bk_sdm_tiny", "instaflow", "sd21", "sdxl"
    ]
    path: Folder
    precision: Literal["float32", "bfloat16", "float16"]
    seed: Seed


@dataclass(kw_only=True)
class MiniatureStage:
    steps: Count
    batch_size: BatchSize
    learning_rate: Positive
    offset: CountOrNone = ABSENT


@dataclass(kw_only=True)
class MiniatureTrainer:
    devices: Devices
    strategy: Text


@dataclass(kw_only=True)
class Miniature:
    stage: Literal["autoencoder", "clip", "draft", "miniature", "miniature_sd", "ship"]
    output: Folder
    scenes: Rendered
    autoencoder: MiniatureStage
    clip: MiniatureStage
    draft: MiniatureStage
    miniature: MiniatureStage
    miniature_sd: MiniatureStage
    trainer: MiniatureTrainer
    device: Device
    seed: Seed


@dataclass(kw_only=True)
class Export(OperatingPoint):
    adaptor: Adaptor
    adaptor_name: Text
    adaptors: Text
    format: Literal["onnx", "openvino", "executorch", "pt2"]
    output: Folder
    relation = staticmethod(schedule_fits)
