"""The config groups of editing: metrics, benchmarks, and the two phases."""

from dataclasses import dataclass
from typing import Literal

from clockwork.experiments.schemas.groups import Foreign, MetricEntries
from clockwork.experiments.schemas.rules import ABSENT, Open
from clockwork.experiments.schemas.types import (
    Device,
    Rendered,
    ScheduleText,
    Split,
    Steps,
    Text,
)


@dataclass(kw_only=True)
class AnyEditMetrics(Open):
    """Metrics, with whatever other values they share."""

    list: MetricEntries


@dataclass(kw_only=True)
class MiniatureEditMetrics:
    reconstruction: bool
    list: MetricEntries


@dataclass(kw_only=True)
class PaperEditMetrics:
    clip: Text
    clip_tag: Text | None
    dino: Text
    device: Device
    reconstruction: bool
    list: MetricEntries


EditMetrics = MiniatureEditMetrics | PaperEditMetrics | AnyEditMetrics


@dataclass(kw_only=True)
class Scenes:
    _target_: Literal["clockwork.miniature.editing.scene_pairs"]
    count: Rendered
    split: Split = ABSENT


@dataclass(kw_only=True)
class TI2I:
    _target_: Literal["clockwork.editing.benchmark.read_ti2i"]
    images: Text
    file: Text
    source_prompt: str | None


@dataclass(kw_only=True)
class PhaseDifference:
    """The adaptor and the schedule of one phase of an editor."""

    adaptor: Text = ABSENT
    schedule: ScheduleText = ABSENT


@dataclass(kw_only=True)
class EditorDifference(PhaseDifference):
    """What an editor of a set has of its own, in both phases or in one."""

    inversion: PhaseDifference = ABSENT
    generation: PhaseDifference = ABSENT


Benchmark = Scenes | TI2I | Foreign


@dataclass(kw_only=True)
class Phase:
    """Generation."""

    steps: Steps | None
    adaptor: Text
    schedule: ScheduleText


@dataclass(kw_only=True)
class Inversion(Phase):
    """Inversion, from whose number of steps the generation's follows if that is null."""

    steps: Steps
