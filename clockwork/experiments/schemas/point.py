"""An operating point, which most commands have."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from clockwork.errors import UserError
from clockwork.experiments.schemas.rules import ABSENT, Bounds
from clockwork.experiments.schemas.teachers import AnyTeacher, Brings, Teacher
from clockwork.experiments.schemas.types import (
    NOT_EMPTY,
    Count,
    CutText,
    Device,
    Folder,
    Guidance,
    Precision,
    ScheduleText,
    Seed,
    Solver,
    Steps,
    Text,
    Width,
)
from clockwork.schedule import Schedule


@dataclass(kw_only=True)
class WithTeacher:
    """What a teacher's config sets."""

    teacher: Teacher | AnyTeacher
    adaptor_width: dict[str, Width]
    brings: Brings
    device: Device
    precision: Precision


@dataclass(kw_only=True)
class OperatingPoint(WithTeacher):
    """configs/point.yaml"""

    cut: CutText
    schedule: ScheduleText
    solver: Solver
    steps: Steps
    guidance: Guidance
    teacher_name: Text
    seed: Seed


def schedule_text(schedule: Any) -> str:
    """A schedule of a config as `Schedule.parse` reads it.

    Args:
        schedule: A text, a number or a list of steps.
    """
    return ",".join(map(str, schedule)) if isinstance(schedule, list) else str(schedule)


def num_unet_calls(steps: int, solver: str) -> int:
    """Returns how often a roll-out calls the UNet: PNDM does so once more than it has steps.

    Args:
        steps: Number of steps.
        solver: The solver's name.
    """
    return steps + (solver == "pndm")


def schedule_fits(values: dict[str, Any]) -> str | None:
    """The schedule has no steps after the last.

    Args:
        values: Those of the command.
    """
    calls = num_unet_calls(values["steps"], values["solver"])
    try:
        Schedule.parse(schedule_text(values["schedule"])).adaptor_steps(calls)
    except UserError as error:
        return str(error)
    return None


@dataclass(kw_only=True)
class Menu:
    """`calibrate.py menu`"""

    cuts: Annotated[list[CutText], NOT_EMPTY]
    schedules: Annotated[list[ScheduleText], NOT_EMPTY]
    budget: Annotated[float, Bounds(above=0, below=1)] | None
    quality: Literal["high", "balanced", "fast"] | None
    measured: Count
    runs: Count
    output: Folder


def calibrated_schedules_fit(values: dict[str, Any]) -> str | None:
    """The schedule of a calibration, or those of its menu, fit the steps.

    Args:
        values: Those of the command.
    """
    schedules = values["menu"]["schedules"] if values["what"] == "menu" else [values["schedule"]]
    return next((problem for each in schedules if (problem := schedule_fits({**values, "schedule": each}))), None)


def schedule_is_default(values: dict[str, Any]) -> str | None:
    """A UNet is trained on full roll-outs, so that a schedule has no effect.

    Args:
        values: Those of a training with an objective.
    """
    if values["schedule"] in ("clock2", "full"):  # the config's default, and what it is trained on
        return None
    objective = f"objective={values['objective_name']}, which trains a UNet on full roll-outs"
    return f"schedule={schedule_text(values['schedule'])} has no effect with {objective}: leave it out"


def clock_fits(values: dict[str, Any]) -> str | None:
    """A student that is rolled out with an adaptor needs both.

    Args:
        values: Those of a training with an objective and `clocked`.
    """
    if values["adaptor_name"] in ("none", "folder") or values["schedule"] == "full":
        return f"clocked={values['clocked']} needs an adaptor and a schedule with adaptor steps: pass adaptor=linear"
    return schedule_fits(values)


def adaptor_fits(values: dict[str, Any], point: dict[str, Any]) -> str | None:
    """An adaptor needs a schedule that fits the steps, and no rival beside it; a schedule has no effect without one.

    Args:
        values: Those of the point with those of the config.
        point: The point's own, of a sweep.
    """
    schedule = values["schedule"]
    if values["adaptor"] == "none" and (schedule == "full" or (schedule == "clock2" and "schedule" not in point)):
        return None  # clock2 is the config's default
    if values["adaptor"] == "none":
        ignored = f"schedule={schedule_text(schedule)} has no effect with adaptor=none"
        return f"{ignored}: pass adaptor=identity or another, or schedule=full"
    if values["rival"] != "none":
        return f"rival={values['rival']} takes the place of an adaptor: use adaptor=none"
    return schedule_fits(values)


@dataclass(kw_only=True)
class Difference:
    """What a point of a sweep has of its own."""

    adaptor: Text = ABSENT
    rival: Text = ABSENT
    cut: CutText = ABSENT
    schedule: ScheduleText = ABSENT
    solver: Solver = ABSENT
    steps: Steps = ABSENT
    guidance: Guidance = ABSENT
