"""An operating point: all that fixes one row of a table, and what an adaptor belongs to."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class OperatingPoint:
    teacher: str
    teacher_hash: str
    cut: str  # "down,up"
    schedule: str
    solver: str
    steps: int
    guidance: float
    resolution: int  # pixels a side

    def __post_init__(self) -> None:
        object.__setattr__(self, "guidance", float(self.guidance))  # 3 and 3.0 are one point, in fingerprints too

    def differences(self, other: "OperatingPoint") -> list[str]:
        """One phrase a field in which they differ: "steps 8, not 6" for self 8 and other 6."""
        theirs = asdict(other)
        return [f"{name} {mine}, not {theirs[name]}" for name, mine in asdict(self).items() if mine != theirs[name]]
