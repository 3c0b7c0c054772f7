"""The paper's tables and figures, and the scale at which they are measured."""

from dataclasses import dataclass
from typing import Any

from clockwork.experiments.schemas.rules import ABSENT
from clockwork.experiments.schemas.types import (
    CutText,
    Guidance,
    Positive,
    ScheduleText,
    Share,
    Solver,
    Steps,
    Text,
)


@dataclass(kw_only=True)
class Scale:
    """The teachers of a table's rows, how reports show them, and overrides of the commands that measure them."""

    name: Text
    teachers: dict[str, Text | None]
    benchmark: Text
    benchmark_fake: Text
    metrics: dict[str, Text]
    suffix: str
    flops_unit: Text
    flops_factor: Positive
    note: Text | None
    evaluate: list[Text]
    train: list[Text]
    paths: dict[str, Text | None] = ABSENT


@dataclass(kw_only=True)
class TableRow:
    row: Text
    teacher: Text | None = ABSENT
    published: bool = ABSENT
    architecture: Text = ABSENT
    adaptor: Text = ABSENT
    cut: CutText = ABSENT
    schedule: ScheduleText = ABSENT
    solver: Solver = ABSENT
    steps: Steps = ABSENT
    guidance: Guidance = ABSENT
    train: list[Text] = ABSENT
    layers: Text = ABSENT
    alpha: Share = ABSENT


@dataclass(kw_only=True)
class Table:
    """A table or figure of the paper."""

    title: Text
    columns: list[Text] = ABSENT
    points: list[TableRow] = ABSENT
    teacher: Text | None = ABSENT
    evaluate: dict[str, list[Text]] = ABSENT
    made_by: list[Text] = ABSENT
    settings: dict[str, Any] = ABSENT
    draw: Text = ABSENT
    benchmark: Text = ABSENT
    inversion_steps: list[Steps] = ABSENT
