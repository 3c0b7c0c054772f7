"""Differences of operating points on the same prompts and seeds, with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clockwork.errors import UserError
from clockwork.evaluation.per_image import read_per_image
from clockwork.metrics.registry import metric_info
from clockwork.reports.formats import Sheet
from clockwork.reports.intervals import Interval, paired_bootstrap, welch
from clockwork.reports.spreads import members
from clockwork.reports.tables import Row, cell

NO_DIFFERENCE = "no difference beyond the spread"
SHARED = {"prompts": "prompts", "seeds": "noise seeds", "metrics_label": "metrics"}  # of rows that are compared
TEACHER = ("teacher", "teacher_hash", "solver", "guidance", "resolution", "precision", *SHARED)


@dataclass(frozen=True)
class Samples:
    """A metric of one operating point.

    Attributes:
        rows: Its value for each noise seed, `seeds`.
        prompts: Its mean over seeds and fits for each prompt, `prompts`; None for metrics of a whole set.
    """

    rows: np.ndarray
    prompts: np.ndarray | None

    def towards(self, other: "Samples", share: float) -> "Samples":
        """Interpolates to another operating point, seed by seed and prompt by prompt.

        Args:
            other: As measured on the same prompts and seeds.
            share: 0 for this operating point, 1 for the other.
        """
        prompts = None
        if self.prompts is not None and other.prompts is not None:
            prompts = self.prompts + share * (other.prompts - self.prompts)
        return Samples(self.rows + share * (other.rows - self.rows), prompts)

    def minus(self, other: "Samples") -> Interval:
        """Returns the difference to another operating point with its interval.

        Args:
            other: As measured on the same prompts and seeds.

        Returns:
            The interval, by resampling prompts where both have figures of each, else over the rows.
        """
        if self.prompts is not None and other.prompts is not None:
            return paired_bootstrap(self.prompts - other.prompts)
        return welch(self.rows, other.rows)


def per_prompt(row: Row, folder: Path) -> dict[str, np.ndarray]:
    """Reads the figures of each image of an operating point, averaged over its fits and then its seeds.

    Args:
        row: A row of `spreads.with_spreads`.
        folder: Folder of `rows.jsonl`.

    Returns:
        Figures by the metrics' names, float64, `prompts`.

    Raises:
        MissingFileError: Of one of its rows there are none.
    """
    seeds = _by_seed(row)
    files = [[read_per_image(folder, member) for member in same] for same in seeds.values()]
    names = set.intersection(*(set(file.metrics) for same in files for file in same))
    return {
        name: np.mean([np.mean([file.metrics[name] for file in same], 0, dtype=np.float64) for same in files], 0)
        for name in sorted(names)
    }


def samples(row: Row, metric: str, prompts: Mapping[str, np.ndarray]) -> Samples:
    """Returns a metric's samples.

    Args:
        row: A row of `spreads.with_spreads`, in which the metric was measured.
        metric: Name of the metric.
        prompts: Figures of each image, as `per_prompt` returns them.
    """
    seeds = _by_seed(row).values()
    rows = [float(np.mean([member["metrics"][metric] for member in same])) for same in seeds]
    return Samples(np.array(rows), prompts.get(metric))


def _by_seed(row: Row) -> dict[int, list[Row]]:
    """Groups the rows of an operating point by the seed of the noise, ascending."""
    seeds: dict[int, list[Row]] = {}
    for member in sorted(members(row), key=lambda member: member.get("seed", 0)):
        seeds.setdefault(member.get("seed", 0), []).append(member)
    return seeds


def require_comparable(row: Row, other: Row) -> None:
    """Refuses rows that were not measured on the same prompts, with the same noise and by the same metrics.

    Args:
        row: A row of `spreads.with_spreads`.
        other: As `row`.

    Raises:
        UserError: They differ in one of these.
    """
    for field, words in SHARED.items():
        if row.get(field) != other.get(field):
            raise UserError(
                f"{operating_point(row)} and {operating_point(other)} have other {words} ({row.get(field)}; "
                f"{other.get(field)}): measure both with the same, or narrow down the rows to compare"
            )


def comparable_metrics(row: Row, other: Row) -> list[str]:
    """Lists the metrics that two operating points share; those to the teacher's images only if these are the same.

    Args:
        row: A row of `spreads.with_spreads`.
        other: As `row`.
    """
    folders = [{member.get("teacher_images_digest") for member in members(each)} for each in (row, other)]
    return [
        name
        for name in row["metrics"]
        if name in other["metrics"] and (folders[0] == folders[1] or "teacher_images" not in metric_info(name).inputs)
    ]


def full_teacher_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """Finds the full teacher at the same steps.

    Args:
        row: A row of `spreads.with_spreads`.
        rows: Rows in which to look.

    Returns:
        Its row; None if it was not measured on the same prompts and seeds, or is `row` itself.
    """
    if row["adaptor"] == "none":
        return None
    return next((other for other in teachers_of(row, rows) if other["steps"] == row["steps"]), None)


def teachers_of(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Finds the rows of a row's teacher without an adaptor, at any number of steps, with which it can be compared.

    Args:
        row: A row of `spreads.with_spreads`.
        rows: Rows in which to look.
    """
    same = [other for other in rows if all(other.get(name) == row.get(name) for name in TEACHER)]
    return [other for other in same if other["adaptor"] == "none"]


def operating_point(row: Row) -> str:
    """Names an operating point in messages and tables."""
    clock = "" if row["adaptor"] == "none" else f" {row['schedule']} at {row['cut']}"
    return (
        f"{row['teacher'] if row['adaptor'] == 'none' else row['adaptor']}{clock}, {row['steps']} {row['solver']} steps"
    )


def verdict(interval: Interval, metric: str) -> str:
    """Says what an interval of a difference bears out.

    Args:
        interval: The interval.
        metric: Name of the metric.
    """
    if not interval.is_known:
        return "not known: one row or one prompt"
    if not interval.excludes_zero:
        return NO_DIFFERENCE
    direction = metric_info(metric).direction
    if direction is None:
        return "differs"
    return "better" if (interval.difference > 0) == (direction == "higher") else "worse"


def interval_text(interval: Interval, metric: str) -> str:
    """Formats a difference with its interval, if that is known.

    Args:
        interval: The interval.
        metric: Name of the metric, whose number format is used.
    """
    form = metric_info(metric).number_format.replace("{:", "{:+")
    ends = f" [{form.format(interval.low)}, {form.format(interval.high)}]" if interval.is_known else ""
    return f"{form.format(interval.difference)}{ends}"


def comparison_sheet(pairs: Sequence[tuple[Row, Row]], folder: Path) -> Sheet:
    """Tables the differences of pairs of operating points.

    Args:
        pairs: Rows of `spreads.with_spreads`, and those with which they are compared.
        folder: Folder of `rows.jsonl`.

    Returns:
        The table, with a line per pair and metric.

    Raises:
        UserError: A pair has other prompts, seeds or metrics.
        MissingFileError: A row has no figures of each image.
    """
    for row, other in pairs:
        require_comparable(row, other)
    prompts = {id(row): per_prompt(row, folder) for pair in pairs for row in pair}
    cells = []
    for row, other in pairs:
        for metric in comparable_metrics(row, other):
            first, second = (samples(each, metric, prompts[id(each)]) for each in (row, other))
            interval = first.minus(second)
            names = [operating_point(row), operating_point(other), metric_info(metric).label]
            values = [cell(row, metric), cell(other, metric), interval_text(interval, metric)]
            cells.append([*names, *values, verdict(interval, metric)])
    columns = ["operating point", "compared with", "metric", "value", "other", "difference [95% interval]", "result"]
    note = (
        "Both have the same prompts and noise. Intervals of means over images: by resampling the prompts (BCa "
        "bootstrap of paired differences). Intervals of FID and other metrics of a whole set: over the rows (Welch)."
    )
    return Sheet("Differences", columns, cells, [note])
