"""Rows of several noise seeds and fits as one row per operating point: means and standard deviations."""

import json
from collections import Counter
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from clockwork.reports.tables import Row, metric_names

# Fields in which rows of one operating point may differ.
VARYING = {
    *("digest", "images_digest", "teacher_digest", "teacher_images_digest", "seed", "fit", "metrics"),
    *("latency_ms", "latency_median_ms", "latency_spread_ms", "latency_device", "commit", "versions", "command"),
}


def with_spreads(rows: Sequence[Row]) -> list[Row]:
    """Merges the rows of each operating point, which differ in the seeds of noise and fit.

    Args:
        rows: Rows, or what this function returned for them.

    Returns:
        Per operating point, in the order of their first rows, that row with further fields: `metrics` holds means,
        `spreads` standard deviations by the metrics' names (empty for a single row), `members` the rows, `seeds` the
        seeds of their noise, and `rows` their number where some point has several.
    """
    groups: dict[Any, list[Row]] = {}
    counts: Counter[Any] = Counter()
    for row in (member for point in rows for member in members(point)):
        # Rows that differ in something else than their fields are points of their own, not further seeds.
        run = (_point(row), row.get("seed"), row.get("fit"))
        groups.setdefault((run[0], counts[run]), []).append(row)
        counts[run] += 1
    several = any(len(same) > 1 for same in groups.values())
    return [_merged(same, several) for same in groups.values()]


def members(row: Row) -> Sequence[Row]:
    """Returns the rows that `with_spreads` merged into a row; of any other row itself.

    Args:
        row: The row.
    """
    merged: Sequence[Row] = row.get("members", [row])
    return merged


def _point(row: Row) -> str:
    """Returns what the rows of an operating point share. Adaptors without a fit's seed share their weights, too."""
    varying = VARYING | ({"adaptor_hash"} if row.get("fit") is not None else set())
    return json.dumps({name: value for name, value in row.items() if name not in varying}, sort_keys=True)


def _merged(same: Sequence[Row], several: bool) -> Row:
    """Merges the rows of an operating point."""
    metrics = {name: [row["metrics"][name] for row in same if name in row["metrics"]] for name in metric_names(same)}
    return {
        **same[0],
        "metrics": {name: mean(values) for name, values in metrics.items()},
        "spreads": {name: stdev(values) for name, values in metrics.items() if len(values) > 1},
        "members": list(same),
        "seeds": sorted({row.get("seed", 0) for row in same}),
        "rows": len(same) if several else None,
    }
