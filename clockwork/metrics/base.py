"""What metrics have in common: the batches that they read, and one pass over the images that feeds all of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clockwork.data.image_io import squared
from clockwork.errors import UserError
from clockwork.io.distributed import sum_over_processes
from clockwork.metrics.registry import MetricInfo, find_metric

FeatureModel = Callable[[Tensor], Tensor]  # features `batch × width` of 8-bit images; hashable


@dataclass(frozen=True)
class Batch:
    """Images and what they are compared with. All images are 8-bit, `batch × 3 × height × width`.

    Attributes:
        images: The generated or edited images.
        ids: Names of the images, such as the ids of their prompts; those of one evaluation differ from each other.
        captions: The prompts that they should show.
        teacher_images: The full teacher's images of the same prompts, seeds and steps.
        source_images: The images before editing.
        ground_truth: What the edited images should be, where it is known.
        reconstructions: The source images, inverted and generated again with the source prompt.
        autoencoded: The source images, encoded and decoded without diffusion.
    """

    images: Tensor
    captions: Sequence[str] | None = None
    teacher_images: Tensor | None = None
    source_images: Tensor | None = None
    ground_truth: Tensor | None = None
    reconstructions: Tensor | None = None
    autoencoded: Tensor | None = None
    ids: Sequence[str] | None = None
    _resized: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    _features: dict[tuple[FeatureModel, int | None], Tensor] = field(default_factory=dict, init=False, repr=False)

    def images_at(self, size: int | None) -> Tensor:
        """Returns the images at a size, which is computed once.

        Args:
            size: Width and height in pixels; None for the images as they are.

        Returns:
            8-bit images, `batch × 3 × size × size`: the central square of each, resized.
        """
        if size is None:
            return self.images
        if size not in self._resized:
            self._resized[size] = torch.stack([squared(image, size) for image in self.images])
        return self._resized[size]

    def features(self, model: FeatureModel, size: int | None = None) -> Tensor:
        """Returns what a network sees in the images, which is computed once for all metrics that look through it.

        Args:
            model: The network. Models that are equal share their features.
            size: Width and height in pixels to which images are resized first; None for their own.

        Returns:
            Features `batch × width`, on the CPU.
        """
        key = (model, size)
        if key not in self._features:
            self._features[key] = model(self.images_at(size)).cpu()
        return self._features[key]


class Metric(ABC):
    """A figure of the images of all processes, computed from running sums.

    Args:
        name: Its name in rows and in the registry.
        size: Width and height in pixels at which it reads `images`; None for their own.

    Raises:
        UserError: No metric of that name is registered.
    """

    min_images: int = 1  # of which it can be computed

    def __init__(self, name: str, size: int | None = None) -> None:
        info = find_metric(name)
        if info is None:
            raise UserError(f"no metric {name!r} is registered: add an entry with clockwork.metrics.registry.register")
        self.info: MetricInfo = info
        self.size = size

    @property
    def name(self) -> str:
        """Its name in rows."""
        return self.info.name

    @property
    def description(self) -> str:
        """What rows tell of it, such as its network and reference; empty if its name says all."""
        return ""

    @property
    def identity(self) -> list[str]:
        """Everything that changes its figures, for digests of rows."""
        return [self.name, self.description]

    @abstractmethod
    def reset(self) -> None:
        """Forgets all images."""

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Adds images of this process.

        Args:
            batch: The images and the other inputs that the registry names for this metric.
        """

    @abstractmethod
    def compute(self) -> float:
        """Computes the figure over the images of all processes. All processes must call it."""


class MeanMetric(Metric):
    """A metric that is a mean over images, and keeps the value of each for intervals (`evaluation.per_image`)."""

    def __init__(self, name: str, size: int | None = None) -> None:
        super().__init__(name, size)
        self.reset()

    @abstractmethod
    def values(self, batch: Batch) -> Tensor:
        """Computes the figure of each image of a batch.

        Args:
            batch: As in `update`.

        Returns:
            Shape `batch`, on any device.
        """

    def reset(self) -> None:
        self._values: list[Tensor] = []

    def update(self, batch: Batch) -> None:
        values = self.values(batch)
        assert values.shape == (len(batch.images),), f"{self.name} has values {tuple(values.shape)}, not one per image"
        self._values.append(values.detach().cpu().double())

    def per_image(self) -> Tensor:
        """Returns the figures of this process's images since `reset`, in the order of `update`: float64, `images`."""
        return torch.cat(self._values) if self._values else torch.zeros(0, dtype=torch.float64)

    def compute(self) -> float:
        values = self.per_image()
        total_and_count = torch.tensor([float(values.sum()), len(values)], dtype=torch.float64)
        total, count = sum_over_processes(total_and_count).tolist()
        return float(total / count)


def measure(metrics: Sequence[Metric], batches: Iterable[Batch]) -> dict[str, float]:
    """Measures all metrics in one pass over the images. All processes must call it.

    Args:
        metrics: The metrics; they forget what they saw before.
        batches: This process's images.

    Returns:
        The figures over the images of all processes, by the metrics' names.
    """
    for metric in metrics:
        metric.reset()
    for batch in batches:
        for metric in metrics:
            metric.update(batch)
    return {metric.name: metric.compute() for metric in metrics}


def require_images(metrics: Iterable[Metric], count: int, remedy: str) -> None:
    """Raises an error if there are fewer images than a metric needs.

    Args:
        metrics: The metrics.
        count: Number of images.
        remedy: What to do about it, the end of the message.

    Raises:
        UserError: There are too few.
    """
    for metric in metrics:
        if count < metric.min_images:
            raise UserError(f"{metric.name} needs at least {metric.min_images} images, not {count}: {remedy}")


def few_images_notes(metrics: Iterable[Metric], count: int) -> list[str]:
    """Returns a sentence for each Fréchet distance of fewer images than features.

    Args:
        metrics: The metrics.
        count: Number of images.
    """
    few = [metric.info for metric in metrics if count <= metric.info.num_features]
    advice = "compare it only with figures of as many images"
    return [f"{i.name} will be too large ({count} images, but {i.num_features} features): {advice}" for i in few]


def measurable(metrics: Iterable[Metric], inputs: set[str]) -> list[Metric]:
    """Selects metrics by their inputs.

    Args:
        metrics: The metrics.
        inputs: Names of the fields of `Batch` that are available.

    Returns:
        The metrics that need no other.
    """
    return [metric for metric in metrics if inputs.issuperset(metric.info.inputs)]


def label(metrics: Iterable[Metric]) -> str:
    """Describes metrics for a row.

    Args:
        metrics: The metrics.

    Returns:
        Their networks and references, or `none`.
    """
    return "; ".join(filter(None, (metric.description for metric in metrics))) or "none"
