"""Operating points: what an adaptor is trained for, and what a row of measurements describes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from clockwork.errors import UserError


@dataclass(frozen=True)
class OperatingPoint:
    """The settings of a roll-out that determine its quality and its cost, apart from the adaptor's weights.

    Attributes:
        teacher: Name of the teacher.
        teacher_hash: Fingerprint of its UNet's weights.
        cut: The cut as two numbers, `down,up`.
        schedule: The schedule, in the form that `Schedule.parse` reads.
        solver: Name of the solver (`clockwork.sampling.solvers.SOLVERS`).
        steps: Number of solver steps.
        guidance: Scale of classifier-free guidance.
        resolution: Height of the image in pixels.
        width: Width of the image in pixels; None if it is square.
        guidance_rescale: Strength with which guidance is rescaled (arXiv 2305.08891, Section 3.4).
        solver_settings: Settings of the solver that are not defaults of its class, such as Karras sigmas, its order or
            the spacing of timesteps; None if they are not known, as in adaptors of earlier versions.
        timesteps: Timesteps of the caller, or those left by `strength`; None if the solver chose them for `steps`.
        frames: Number of frames of a video, 1 for images.
        more_guidance: Scales of guidance by others than the prompt, by the pipeline's names for them, such as
            `pag_scale` or `image_guidance_scale`; None without any.
    """

    teacher: str
    teacher_hash: str
    cut: str
    schedule: str
    solver: str
    steps: int
    guidance: float
    resolution: int
    width: int | None = None
    guidance_rescale: float = 0.0
    solver_settings: Mapping[str, Any] | None = None
    timesteps: list[float] | None = None
    frames: int = 1
    more_guidance: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "guidance", float(self.guidance))  # so that 3 and 3.0 have the same fingerprint

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "OperatingPoint":
        """Reads an operating point from plain data, as `dataclasses.asdict` writes it.

        Args:
            values: The values by the names of the fields.

        Raises:
            UserError: A field is missing, unknown or of another type.
        """
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if missing := sorted(required - values.keys()):
            raise UserError(f"the operating point has no {missing[0]}: make the adaptor again")
        for name, value in values.items():
            if name not in _RIGHT:
                raise UserError(f"the operating point has the unknown field {name}: use the version that wrote it")
            if not _RIGHT[name](value):
                raise UserError(f"{name}={str(value)[:80]} of the operating point is of another type: correct it")
        return cls(**values)

    def differences(self, other: "OperatingPoint") -> list[str]:
        """Describes the fields in which two operating points differ.

        Args:
            other: The operating point to compare with.

        Returns:
            One phrase per field or setting of the solver, for example "steps 8, not 6" if this one has 8 steps and the
            other 6. Settings of different solvers, and those that are not known of one, are not compared.
        """
        described, of_other = self._described(), other._described()
        if self.solver == other.solver and None not in (self.solver_settings, other.solver_settings):
            settings, of_other_settings = dict(self.solver_settings or {}), dict(other.solver_settings or {})
            for name in sorted(settings.keys() | of_other_settings.keys()):
                described[name] = settings.get(name, "as by default")
                of_other[name] = of_other_settings.get(name, "as by default")
        return [f"{name} {value}, not {of_other[name]}" for name, value in described.items() if value != of_other[name]]

    @property
    def further_guidance(self) -> str:
        """`more_guidance` as a phrase, such as "pag_scale 3"."""
        return ", ".join(f"{name} {scale:g}" for name, scale in sorted((self.more_guidance or {}).items())) or "none"

    def _described(self) -> dict[str, Any]:
        """Returns what is compared apart from the solver's settings: fields by their names, both sides as one."""
        separate = ("width", "solver_settings", "more_guidance")
        values = {name: value for name, value in asdict(self).items() if name not in separate}
        if self.width is not None:
            values["resolution"] = f"{self.resolution} × {self.width}"
        values["further guidance"] = self.further_guidance
        values["timesteps"] = "those of the solver" if self.timesteps is None else self.timesteps
        return values


def is_measured_at(row: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Whether a row was measured at an operating point.

    Args:
        row: The row; fields of the operating point that it does not have are not compared.
        point: The fields of an operating point.
    """
    return all(row[name] == value for name, value in point.items() if name in row)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= 10**6


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 10**9 and math.isfinite(value)


_RIGHT: dict[str, Callable[[Any], bool]] = {  # what the fields may be
    **dict.fromkeys(("teacher", "teacher_hash", "cut", "schedule", "solver"), _is_text),
    **dict.fromkeys(("steps", "resolution", "frames"), _is_count),
    **dict.fromkeys(("guidance", "guidance_rescale"), _is_number),
    "width": lambda value: value is None or _is_count(value),
    "solver_settings": lambda value: value is None or isinstance(value, Mapping),
    "timesteps": lambda value: value is None or (isinstance(value, list) and all(map(_is_number, value))),
    "more_guidance": lambda value: (
        value is None or (isinstance(value, Mapping) and all(map(_is_number, value.values())))
    ),
}
