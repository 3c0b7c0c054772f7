"""From an operating point to a row: what the evaluations of text-to-image and of editing share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from clockwork.evaluation.per_image import collect, write_per_image
from clockwork.evaluation.rows import Row, append_row, commit, image_folder, read_rows, versions
from clockwork.flops.counter import Flops
from clockwork.io import distributed
from clockwork.io.fingerprint import digest
from clockwork.metrics.base import Batch, Metric, label, measurable, measure
from clockwork.teachers import Teacher

Point = TypeVar("Point")  # what generates: a `Sampler` or an `Editor`


@dataclass(frozen=True, kw_only=True)
class Harness(ABC, Generic[Point]):
    """Measures operating points: generates the missing images, feeds them to the metrics, and appends a row.

    All methods that generate or measure must be called by all processes, which share the images. The main process
    writes the rows.

    Attributes:
        metrics: What to measure. Metrics whose inputs an operating point lacks are left out of its row.
        folder: Folder of `rows.jsonl` and of the images.
        command: The command that rows are recorded to be measured by.
    """

    metrics: Sequence[Metric]
    folder: Path
    command: str | None = field(default=None)

    @property
    def rows(self) -> Path:
        """The file of the rows."""
        return self.folder / "rows.jsonl"

    @abstractmethod
    def images_digest(self, point: Point) -> str:
        """Returns a digest of everything that changes the images, which names their folder.

        Args:
            point: The operating point.
        """

    @abstractmethod
    def adaptor_names(self, point: Point) -> list[str]:
        """Returns the names of the adaptors, which belong to a row, but do not change the images."""

    @abstractmethod
    def generate(self, point: Point) -> Path:
        """Generates the images that are missing, on all processes.

        Args:
            point: The operating point.

        Returns:
            Their folder.
        """

    @abstractmethod
    def inputs(self, point: Point) -> set[str]:
        """Returns the fields of `Batch` that an operating point has."""

    @abstractmethod
    def batches(self, point: Point, needed: set[str]) -> Iterator[Batch]:
        """Reads this process's images.

        Args:
            point: The operating point, whose images were generated.
            needed: Fields of `Batch` to fill.

        Returns:
            The batches, with their `ids`.
        """

    @abstractmethod
    def row(self, point: Point, shared: dict[str, Any]) -> Row:
        """Creates the row of an operating point.

        Args:
            point: The operating point.
            shared: Values of the fields that the harness knows.
        """

    @abstractmethod
    def flops(self, point: Point) -> Flops:
        """Counts the FLOPs of one image or edit."""

    @abstractmethod
    def teacher(self, point: Point) -> Teacher:
        """Returns the teacher of an operating point."""

    def digest(self, point: Point) -> str:
        """Returns a digest of everything that changes the figures of a row, and of the adaptors' names.

        Latency is not among them, as it belongs to a device.

        Args:
            point: The operating point.
        """
        identities = [metric.identity for metric in self.metrics]
        return digest([self.images_digest(point), self.adaptor_names(point), identities])

    def image_folder(self, point: Point) -> Path:
        """Returns the folder of an operating point's images.

        Args:
            point: The operating point.
        """
        return image_folder(self.folder, {"images_digest": self.images_digest(point)})

    def evaluate(self, point: Point) -> None:
        """Appends the row of an operating point, unless there is one with its digest.

        Args:
            point: The operating point.
        """
        (measured,) = distributed.from_main_process([self.find_row(point) is not None])
        if not measured:
            row = self.measure(point)
            if distributed.rank() == 0:
                append_row(self.rows, asdict(row), unless_measured=True)

    def find_row(self, point: Point) -> dict[str, Any] | None:
        """Finds the row of an operating point.

        Args:
            point: The operating point.

        Returns:
            The row; None if it was not measured.
        """
        wanted = self.digest(point)
        return next((row for row in read_rows(self.rows) if row["digest"] == wanted), None)

    def measure(self, point: Point) -> Row:
        """Generates and measures the images of an operating point, whether or not there is a row.

        The figures of each image are written beside the rows (`per_image`).

        Args:
            point: The operating point.

        Returns:
            The row, the same on all processes.
        """
        self.generate(point)
        figures = self._figures(point)
        flops, teacher = self.flops(point), self.teacher(point)
        shared = {
            "digest": self.digest(point),
            "images_digest": self.images_digest(point),
            "metrics": figures,
            "metrics_label": label(self.metrics),
            "tflops_paper": flops.paper / 1e12,
            "tflops_full": flops.full / 1e12,
            "gmacs": flops.macs / 1e9,
            "precision": teacher.precision,
            "device": str(teacher.device),
            "commit": commit(),
            "versions": versions(),
            "command": self.command,
        }
        return self.row(point, shared)

    def _figures(self, point: Point) -> dict[str, float]:
        """Measures the images in one pass, and writes the figures of each image."""
        metrics = measurable(self.metrics, self.inputs(point))
        needed = {name for metric in metrics for name in metric.info.inputs}
        ids: list[str] = []

        def with_ids_noted() -> Iterator[Batch]:
            for batch in self.batches(point, needed):
                ids.extend(batch.ids or ())
                yield batch

        figures = measure(metrics, with_ids_noted())
        per_image = collect(metrics, ids)
        if distributed.rank() == 0:
            write_per_image(self.folder, self.digest(point), per_image)
        return figures
