"""The scale at which rows of the paper's tables were measured: at real size, or at a smaller one."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scale:
    """How reports show what was measured at a scale (`configs/scale`).

    Attributes:
        metrics: The metric that is measured in place of each of the paper's, by name. Its figures are not compared.
        suffix: Ending of the columns with measurements other than metrics, such as `_miniature`; empty at real size.
        note: Paragraph below tables with such columns.
        flops_unit: Unit of FLOPs in figures.
        flops_factor: Factor that converts TFLOPs to that unit.
    """

    metrics: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""
    note: str | None = None
    flops_unit: str = "TFLOPs"
    flops_factor: float = 1.0

    def metric(self, name: str) -> str:
        """Returns the metric that is measured in place of one of the paper's.

        Args:
            name: Name of the paper's metric.
        """
        return self.metrics.get(name, name)
