"""The config groups of editing: metrics, benchmarks, and the two phases."""

from dataclasses import dataclass
from typing import Literal

from clockwork.experiments.schemas.groups import Foreign
from clockwork.experiments.schemas.rules import ABSENT
from clockwork.experiments.schemas.types import Count, Device, ScheduleText, Split, Steps, Text


@dataclass(kw_only=True)
class NoEditMetrics:
    _target_: Literal["clockwork.editing.measure.Metrics"]


@dataclass(kw_only=True)
class MiniatureEditMetrics:
    _target_: Literal["clockwork.miniature.metrics.editing"]
    reconstruction: bool


@dataclass(kw_only=True)
class PaperEditMetrics:
    _target_: Literal["clockwork.editing.measure.real"]
    clip: Text
    clip_tag: Text | None
    dino: Text
    reconstruction: bool
    device: Device


EditMetrics = NoEditMetrics | MiniatureEditMetrics | PaperEditMetrics | Foreign


@dataclass(kw_only=True)
class Scenes:
    _target_: Literal["clockwork.miniature.editing.scene_pairs"]
    count: Count
    split: Split = ABSENT


@dataclass(kw_only=True)
class TI2I:
    _target_: Literal["clockwork.editing.benchmark.read_ti2i"]
    images: Text
    file: Text
    source_prompt: Text | None


Benchmark = Scenes | TI2I | Foreign


@dataclass(kw_only=True)
class Phase:
    """Inversion or generation."""

    steps: Steps | None
    adaptor: Text
    schedule: ScheduleText
