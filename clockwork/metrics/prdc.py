"""Precision, recall, density and coverage: who lies within the k-th nearest neighbours of whom.

Precision and recall are those of Kynkäänniemi et al. (2019), density and coverage of Naeem et al. (2020).
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from clockwork.metrics.fid import inception_reference
from clockwork.metrics.reference import Reference, SetMetric

NEAREST = 5  # k of Naeem et al.
ROWS = 1000  # of a matrix of distances that are in memory at once


class Neighbours(SetMetric):
    """A share of images by their nearest neighbours.

    Args:
        reference: What the images are compared with.
        name: Its name in rows.
    """

    min_images = NEAREST + 2
    figure_name: ClassVar[str]

    def __init__(self, reference: Reference, name: str | None = None) -> None:
        super().__init__(reference, name or self.figure_name)

    @property
    def description(self) -> str:
        return f"{self.figure_name}, k = {NEAREST}, {self.reference.label}"


class Precision(Neighbours):
    """The share of images that lie near a real one: closer to it than its k-th nearest real neighbour. Arguments as in
    `Neighbours`."""

    figure_name = "precision"

    def figure(self, features: Tensor) -> float:
        radii = real_radii(self.reference)
        return float(
            torch.cat([(d < radii).any(1) for d in distances(features, self.reference.features)]).double().mean()
        )


class Recall(Neighbours):
    """The share of real images that lie near a generated one: closer to it than its k-th nearest generated neighbour.
    Arguments as in `Neighbours`."""

    figure_name = "recall"

    def figure(self, features: Tensor) -> float:
        radii = kth_distances(features)
        return float(
            torch.cat([(d < radii).any(1) for d in distances(self.reference.features, features)]).double().mean()
        )


class Density(Neighbours):
    """The mean number of real images that an image lies near to, divided by k; it may exceed 1. Arguments as in
    `Neighbours`."""

    figure_name = "density"

    def figure(self, features: Tensor) -> float:
        radii = real_radii(self.reference)
        counts = torch.cat([(d < radii).sum(1) for d in distances(features, self.reference.features)])
        return float(counts.double().mean()) / NEAREST


class Coverage(Neighbours):
    """The share of real images with a generated one nearer than the k-th nearest real neighbour. Arguments as in
    `Neighbours`."""

    figure_name = "coverage"

    def figure(self, features: Tensor) -> float:
        nearest = torch.cat([d.amin(1) for d in distances(self.reference.features, features)])
        return float((nearest < real_radii(self.reference)).double().mean())


FIGURES: dict[str, type[Neighbours]] = {kind.figure_name: kind for kind in (Precision, Recall, Density, Coverage)}


def distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Computes the Euclidean distances of two sets of features.

    Args:
        a: `n × width`.
        b: `m × width`.

    Yields:
        Rows of the matrix `n × m`, in float64.
    """
    columns = b.double()
    for rows in a.split(ROWS):
        yield torch.cdist(rows.double(), columns)


def kth_distances(features: Tensor) -> Tensor:
    """Computes the distance of each element of a set to its k-th nearest neighbour.

    Args:
        features: `count × width`, at least k + 1.

    Returns:
        `count`.
    """
    return torch.cat([d.kthvalue(NEAREST + 1, dim=1).values for d in distances(features, features)])  # itself is first


@lru_cache(maxsize=2)
def real_radii(reference: Reference) -> Tensor:
    """Computes `kth_distances` of a reference, once for all metrics.

    Args:
        reference: The reference.

    Returns:
        As many as it has images.
    """
    return kth_distances(reference.features)


def inception_prdc(
    figure: str,
    reference: str,
    inception: str,
    sha256: str,
    name: str,
    size: int | None = None,
    cache: str = "outputs/cache",
    device: str = "auto",
) -> Neighbours:
    """Creates one of these metrics for clean-fid's Inception and a folder of real images.

    Args:
        figure: `precision`, `recall`, `density` or `coverage`.
        reference: Folder of the reference images.
        inception: File of the Inception network, downloaded if it is missing.
        sha256: Hash of that file.
        name: Its name in rows.
        size: Width and height in pixels to which images are resized first; None for their own.
        cache: Folder of the features of the reference.
        device: Where the network computes: `auto`, or a torch device.

    Returns:
        The metric.
    """
    return FIGURES[figure](inception_reference(reference, inception, sha256, size, cache, device), name)
