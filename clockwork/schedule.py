"""Schedules: on which steps the full UNet runs, and on which the adaptor (paper, Section 4.2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clockwork.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Which steps run the full UNet, counted from 1. On the others the adaptor replaces the low-res path.

    Attributes:
        period: With period n, the first and every n-th step after it are full; all steps with 1, none with 0.
        adaptor_at: Steps that run the adaptor although `period` makes them full.
    """

    period: int = 1
    adaptor_at: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: "str | int | Sequence[int] | Schedule") -> "Schedule":
        """Parses a schedule.

        - `full`: all steps are full.
        - `clock2`, `clock4`, …: the first step is full, and every second, fourth, … after it.
        - `2,4,6,8`: these steps run the adaptor, all others are full.
        - `always`: every step runs the adaptor, including the first (Table 5, "model distillation").

        Args:
            text: The schedule as text; a number n is `clock<n>`, a list or tuple names the adaptor's steps. A
                `Schedule` is returned as it is.

        Raises:
            UserError: If the text has none of these forms, or step 1 is among the adaptor's.
        """
        if isinstance(text, Schedule):
            return text
        if hasattr(text, "tolist"):  # of numpy or torch
            text = text.tolist()
        if isinstance(text, (list, tuple, range, set, frozenset)):
            text = ",".join(map(str, text))
        elif isinstance(text, int) and not isinstance(text, bool):
            text = f"clock{text}"
        if not isinstance(text, str):
            raise UserError(f"schedule {text!r} is not text: use clock2, a number such as 2, or a list such as [2, 4]")
        if text in ("full", "always"):
            return cls(period=int(text == "full"))
        if clock := re.fullmatch(r"clock([1-9]\d{0,8})", text):
            return cls(period=int(clock[1]))
        if re.fullmatch(r"\d{1,9}(,\s*\d{1,9})*", text):
            steps = frozenset(int(number) for number in text.split(","))
            if min(steps) < 2:
                raise UserError(
                    f"schedule {text!r} is not possible: steps are counted from 1 and step 1 is always full, so use "
                    "steps from 2 on"
                )
            return cls(adaptor_at=steps)
        raise UserError(
            f"schedule {text[:50]!r} is not known: use full, clock2, clock4, …, always, or adaptor steps as 2,4,6,8"
        )

    def is_full(self, step: int) -> bool:
        """Whether the full UNet runs on a step (C(t) = 0 in the paper).

        Args:
            step: Index of the step, from 1.
        """
        if self.period == 0:
            return False
        return (step - 1) % self.period == 0 and step not in self.adaptor_at

    def adaptor_steps(self, steps: int) -> list[int]:
        """Lists the steps that run the adaptor.

        Args:
            steps: Number of steps of the roll-out.

        Returns:
            Indices of the adaptor steps, from 1 to `steps`.

        Raises:
            UserError: If the schedule names steps after the last.
        """
        if self.adaptor_at and max(self.adaptor_at) > steps:
            raise UserError(
                f"schedule {self} is longer than the {steps} steps: use adaptor steps up to {steps}, or more steps"
            )
        return [step for step in range(1, steps + 1) if not self.is_full(step)]

    def full_steps(self, steps: int) -> int:
        """Returns the number of full steps: ceil(steps / period) for a clock.

        Args:
            steps: Number of steps of the roll-out.

        Raises:
            UserError: If the schedule names steps after the last.
        """
        return steps - len(self.adaptor_steps(steps))

    def __str__(self) -> str:
        if self.adaptor_at:
            return ",".join(str(step) for step in sorted(self.adaptor_at))
        return {0: "always", 1: "full"}.get(self.period, f"clock{self.period}")
