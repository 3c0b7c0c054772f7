"""The clock: on which steps the whole UNet runs, and on which the adaptor stands in (paper, Section 4.2)."""

import re
from dataclasses import dataclass

from clockwork.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Which steps, counted from 1, are full passes.

    `period` n: every n-th from the first on is (1: all of them, 0: none). `adaptor_at`: all but these are.
    """

    period: int = 1
    adaptor_at: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: "str | Schedule") -> "Schedule":
        """`full`, `clock2`, `clock4`, …, a set of adaptor steps such as `2,4,6,8`, or `always`.

        `always` runs the adaptor on every step, the first too (Table 5, "model distillation").
        """
        if isinstance(text, Schedule):
            return text
        if text in ("full", "always"):
            return cls(period=int(text == "full"))
        if clock := re.fullmatch(r"clock([1-9]\d*)", text):
            return cls(period=int(clock[1]))
        if re.fullmatch(r"\d+(,\s*\d+)*", text):
            steps = frozenset(int(number) for number in text.split(","))
            if min(steps) < 2:
                raise UserError(
                    f"schedule {text!r}: steps count from 1 and the first is always full, so name steps from 2 on"
                )
            return cls(adaptor_at=steps)
        raise UserError(f"no schedule {text!r}: say full, clock2, clock4, …, always, or adaptor steps such as 2,4,6,8")

    def is_full(self, step: int) -> bool:
        """C(t) = 0 of the paper."""
        if self.period == 0:
            return False
        return (step - 1) % self.period == 0 and step not in self.adaptor_at

    def adaptor_steps(self, steps: int) -> list[int]:
        """The adaptor's steps among 1 … `steps`; refuses a schedule that names later ones."""
        if self.adaptor_at and max(self.adaptor_at) > steps:
            raise UserError(
                f"schedule {self} is longer than the {steps} steps: name steps up to {steps}, or take more steps"
            )
        return [step for step in range(1, steps + 1) if not self.is_full(step)]

    def full_steps(self, steps: int) -> int:
        """How many passes are full: ceil(steps / period) for a clock, as the first always is."""
        return steps - len(self.adaptor_steps(steps))

    def __str__(self) -> str:
        if self.adaptor_at:
            return ",".join(str(step) for step in sorted(self.adaptor_at))
        return {0: "always", 1: "full"}.get(self.period, f"clock{self.period}")
