"""Rows of timings: their file, their table, and what has become slower since an older file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.errors import MissingFileError, UserError
from clockwork.io.outputs import write_output
from clockwork.reports.formats import markdown

MARK = '{\n  "machine": '  # with which a file of timings begins
COLUMNS = ("what", "median", "spread", "ratio", "spread", "to", "FLOPs ratio", "bar")


@dataclass(frozen=True)
class Timing:
    """What was timed. Spreads are interquartile ranges.

    Attributes:
        what: Its name.
        ms: Median duration in milliseconds.
        ms_spread: Spread of the duration.
        to: Name of what it is compared with; None for nothing.
        ratio: Median over the rounds of its duration divided by that of `to`.
        ratio_spread: Spread of that.
        flops_ratio: Its FLOPs divided by those of `to`, in the convention `full`.
        bar: Upper bound of the ratio, or without `to` of the duration in milliseconds; None for none.
    """

    what: str
    ms: float
    ms_spread: float
    to: str | None = None
    ratio: float | None = None
    ratio_spread: float | None = None
    flops_ratio: float | None = None
    bar: float | None = None

    @classmethod
    def of(
        cls,
        what: str,
        times: Sequence[float],
        to: str | None = None,
        times_to: Sequence[float] | None = None,
        flops_ratio: float | None = None,
        bar: float | None = None,
    ) -> "Timing":
        """Summarises durations.

        Args:
            what: Name of what was timed.
            times: Its durations in milliseconds, one per round.
            to: Name of what it is compared with.
            times_to: The durations of that, in the same rounds.
            flops_ratio: As the attribute.
            bar: As the attribute.
        """
        ms, ms_spread = median_and_spread(times)
        ratio, spread = (None, None) if times_to is None else median_and_spread(np.divide(times, times_to))
        return cls(what, ms, ms_spread, to, ratio, spread, flops_ratio, bar)

    @property
    def misses_bar(self) -> bool:
        """Whether the median is above the bar by more than its spread."""
        value, spread = (self.ms, self.ms_spread) if self.ratio is None else (self.ratio, self.ratio_spread or 0.0)
        return self.bar is not None and value - spread > self.bar

    def cells(self) -> list[str]:
        """Returns the line of the table."""
        bar = "–" if self.bar is None else f"{self.bar:.3f}{', missed' if self.misses_bar else ''}"
        numbers = [_number(self.ratio), _number(self.ratio_spread), self.to or "–", _number(self.flops_ratio), bar]
        return [self.what, f"{self.ms:.3f} ms", f"{self.ms_spread:.3f}", *numbers]


@dataclass(frozen=True)
class Timings:
    """The timings of one run.

    Attributes:
        machine: Name of the device, and versions.
        settings: What was timed: teacher, operating point, batch, precision.
        rows: The timings.
    """

    machine: str
    settings: Mapping[str, Any]
    rows: tuple[Timing, ...]

    def write(self, file: Path) -> None:
        """Writes the timings as JSON, atomically.

        Args:
            file: The file, which is replaced.
        """
        with write_output(file, MARK) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> "Timings":
        """Reads timings.

        Args:
            file: A file that `write` wrote.

        Raises:
            UserError: If there is no such file, or it is another one.
        """
        if not file.is_file():
            raise MissingFileError(f"no timings at {file}: pass compare=<a file that an earlier run wrote>")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            rows = tuple(Timing(**row) for row in content["rows"])
            return cls(content["machine"], content["settings"], rows)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} does not hold timings: pass compare=<a file that an earlier run wrote>") from error

    def require_settings(self, settings: Mapping[str, Any]) -> None:
        """Checks that older timings are of the same things.

        Args:
            settings: The settings of the new run.

        Raises:
            UserError: If a setting differs.
        """
        names = [name for name in {**self.settings, **settings} if self.settings.get(name) != settings.get(name)]
        if names:
            changes = ", ".join(f"{name}={self.settings.get(name)}, not {settings.get(name)}" for name in names)
            raise UserError(f"the older timings are with {changes}: pass the same values, or another file")

    def slower_than(self, older: "Timings") -> list[str]:
        """Lists what has become slower by more than its spread: ratios, and on the same machine durations, too.

        Args:
            older: The timings of an earlier run.

        Returns:
            A sentence each.
        """
        before, sentences = {row.what: row for row in older.rows}, []
        for row in self.rows:
            old = before.get(row.what)
            if old is None:
                continue
            if row.ratio is not None and old.ratio is not None and old.to == row.to:
                if row.ratio - old.ratio > max(row.ratio_spread or 0, old.ratio_spread or 0):
                    sentences.append(f"{row.what}: {row.ratio:.3f} of {row.to}, before {old.ratio:.3f}")
            elif self.machine == older.machine and row.ms - old.ms > max(row.ms_spread, old.ms_spread):
                sentences.append(f"{row.what}: {row.ms:.3f} ms, before {old.ms:.3f} ms")
        return sentences

    def __str__(self) -> str:
        return f"{self.machine}\n\n{markdown(COLUMNS, [row.cells() for row in self.rows])}"


def median_and_spread(values: Any) -> tuple[float, float]:
    """Returns the median and the interquartile range of numbers.

    Args:
        values: The numbers.
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return float(median), float(high - low)


def _number(value: float | None) -> str:
    """Formats a ratio."""
    return "–" if value is None else f"{value:.3f}"
