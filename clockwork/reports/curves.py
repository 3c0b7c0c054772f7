"""Curves of quality against cost, and the front: what no other point is better than at the same cost or less."""

from collections.abc import Sequence
from dataclasses import dataclass

from clockwork.evaluation.rows import row_value
from clockwork.metrics.registry import metric_info
from clockwork.reports.tables import Row


@dataclass(frozen=True)
class Curve:
    """Rows of one teacher, adaptor and schedule, in the order of their horizontal position.

    Attributes:
        name: The legend's text.
        points: Horizontal position and row of each point.
        is_baseline: Whether the rows are of the teacher without an adaptor.
        is_front: Whether the line joins only the points that no other of the curve is better than.
    """

    name: str
    points: Sequence[tuple[float, Row]]
    is_baseline: bool = False
    is_front: bool = False

    def measured(self, metric: str) -> list[tuple[float, float, Row]]:
        """Returns horizontal position, value and row of the points at which a metric was measured.

        Args:
            metric: Name of the metric.
        """
        return [(x, row_value(row, metric), row) for x, row in self.points if row_value(row, metric) is not None]


def front(points: Sequence[tuple[float, float]], direction: str) -> list[tuple[float, float]]:
    """Returns the points that no other is better than at the same cost or less, by cost.

    Args:
        points: Cost and value of each point.
        direction: Whether `lower` or `higher` values are better.
    """
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], point[1] if direction == "lower" else -point[1])):
        if not best or (value < best[-1][1] if direction == "lower" else value > best[-1][1]):
            best.append((cost, value))
    return best


def front_of(all_curves: Sequence[Curve], metric: str) -> list[tuple[float, float]]:
    """Returns the front over all curves of a plot: the points that no other is better than at the same cost or less.

    Args:
        all_curves: The curves.
        metric: Name of the metric.

    Returns:
        Horizontal position and value of its points; none for a single curve or a metric without direction.
    """
    measured = [points for curve in all_curves if (points := curve.measured(metric))]
    direction = metric_info(metric).direction
    if direction is None or len(measured) < 2:
        return []
    return front([(x, value) for points in measured for x, value, _ in points], direction)
