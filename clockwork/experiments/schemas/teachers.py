"""A teacher, and what it brings to the commands."""

from dataclasses import dataclass
from typing import Any, Literal

from clockwork.experiments.schemas.rules import ABSENT, Open
from clockwork.experiments.schemas.types import (
    BatchSize,
    Count,
    Device,
    Guidance,
    Name,
    NotNegative,
    Positive,
    Precision,
    Side,
    Text,
    Width,
)


@dataclass(kw_only=True)
class AnyTeacher(Open):
    """A teacher that another function than `load_teacher` loads."""

    _target_: Text
    path: Text
    guidance: Guidance
    resolution: Side | None


@dataclass(kw_only=True)
class Compile:
    """Arguments of `torch.compile`."""

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = ABSENT
    backend: Text = ABSENT
    options: dict[str, Any] = ABSENT
    dynamic: bool | None = ABSENT
    fullgraph: bool = ABSENT


@dataclass(kw_only=True)
class Teacher:
    _target_: Literal["clockwork.teachers.load_teacher"]
    path: Text
    name: Name | None
    guidance: Guidance
    resolution: Side | None
    cross_attention_dim: Width | None
    openclip: Text | None
    openclip_tag: Text | None
    device: Device
    precision: Precision
    flow: bool = ABSENT
    made_by: Text | None = ABSENT
    compile: bool | Compile = ABSENT


@dataclass(kw_only=True)
class BroughtToTraining:
    prompts: Text = ABSENT
    images: Text = ABSENT
    adaptor: Text = ABSENT
    optimizer: Text = ABSENT
    lr_scheduler: Text = ABSENT
    logger: Text = ABSENT
    learning_rate: Positive = ABSENT
    decay: bool = ABSENT
    guided: NotNegative = ABSENT
    epochs: Count = ABSENT
    generation_batch_size: BatchSize = ABSENT


@dataclass(kw_only=True)
class BroughtToObjectives:
    learning_rate: Positive = ABSENT


@dataclass(kw_only=True)
class BroughtToCalibration:
    prompts: Text = ABSENT
    count: Count = ABSENT
    batch_size: BatchSize = ABSENT


@dataclass(kw_only=True)
class BroughtToEvaluation:
    prompts: Text = ABSENT
    metrics: Text = ABSENT
    batch_size: BatchSize = ABSENT


@dataclass(kw_only=True)
class BroughtToScore:
    metrics: Text = ABSENT
    resolution: Side = ABSENT


@dataclass(kw_only=True)
class BroughtToEditing:
    edit_metrics: Text = ABSENT
    guidance: Guidance = ABSENT
    negative: str = ABSENT


@dataclass(kw_only=True)
class BroughtToAnalysis:
    prompts: Text = ABSENT


@dataclass(kw_only=True)
class Brings:
    """What a teacher brings to each command: config groups and values."""

    train: BroughtToTraining = ABSENT
    objective: BroughtToObjectives = ABSENT
    calibrate: BroughtToCalibration = ABSENT
    evaluate: BroughtToEvaluation = ABSENT
    score: BroughtToScore = ABSENT
    edit: BroughtToEditing = ABSENT
    perturb: BroughtToAnalysis = ABSENT
    drift: BroughtToAnalysis = ABSENT
