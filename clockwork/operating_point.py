"""Operating points: what an adaptor is trained for, and what a row of measurements describes."""

from dataclasses import asdict, dataclass


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
        resolution: Side of the image in pixels.
    """

    teacher: str
    teacher_hash: str
    cut: str
    schedule: str
    solver: str
    steps: int
    guidance: float
    resolution: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "guidance", float(self.guidance))  # so that 3 and 3.0 have the same fingerprint

    def differences(self, other: "OperatingPoint") -> list[str]:
        """Describes the fields in which two operating points differ.

        Args:
            other: The operating point to compare with.

        Returns:
            One phrase per field, for example "steps 8, not 6" if this one has 8 steps and the other 6.
        """
        others = asdict(other)
        return [f"{name} {value}, not {others[name]}" for name, value in asdict(self).items() if value != others[name]]
