"""What a field of a config's dataclass says besides its type."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ABSENT: Any = object()  # the default of a field whose key may be absent
HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


@dataclass(frozen=True)
class Bounds:
    """Limits of a number. NaN and infinity are never allowed."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __call__(self, value: float) -> float:
        outside = (
            not math.isfinite(value)
            or (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )
        if outside:
            raise ValueError
        return value

    @property
    def words(self) -> str:
        if self.least is not None and self.most is not None:
            return f" from {self.least} to {self.most}"
        limits = {"of at least": self.least, "of at most": self.most, "above": self.above, "below": self.below}
        words = " and ".join(f"{name} {limit}" for name, limit in limits.items() if limit is not None)
        return f" {words}" if words else ""


@dataclass(frozen=True)
class Rule:
    """A condition on a value, or another spelling of it.

    Attributes:
        convert: Returns the value in its normal form, or raises a ValueError.
        words: What is allowed.
    """

    convert: Callable[[Any], Any]
    words: str

    def __call__(self, value: Any) -> Any:
        return self.convert(value)


class Open:
    """Base of the dataclasses that allow further keys."""
