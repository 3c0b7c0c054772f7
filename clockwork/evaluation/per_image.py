"""Figures of each image, kept in a small file beside the row, from which intervals of differences are computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clockwork.errors import MissingFileError
from clockwork.io import distributed
from clockwork.io.atomic import atomic_write
from clockwork.metrics.base import MeanMetric, Metric

IDS = "ids"


@dataclass(frozen=True)
class PerImage:
    """Figures of the images of a row.

    Attributes:
        ids: Names of the images, such as the ids of their prompts, sorted as text.
        metrics: Figures by the metrics' names, float32, one per id. Metrics of a whole set, such as FID, are absent.
    """

    ids: Sequence[str]
    metrics: Mapping[str, np.ndarray]


def collect(metrics: Sequence[Metric], ids: Sequence[str]) -> PerImage:
    """Collects the figures that metrics have computed of the images of all processes. All processes must call it.

    Args:
        metrics: The metrics, with the images of the last `measure`.
        ids: Names of this process's images, in the order of the metrics' `update`.

    Returns:
        The figures of all images, the same on all processes.
    """
    means = [metric for metric in metrics if isinstance(metric, MeanMetric)]
    share = {metric.name: metric.per_image().numpy().astype(np.float32) for metric in means}
    shares = distributed.gather((list(ids), share))
    all_ids = np.array([name for names, _ in shares for name in names])
    order = np.argsort(all_ids)
    values = {metric.name: np.concatenate([part[metric.name] for _, part in shares])[order] for metric in means}
    return PerImage(all_ids[order].tolist(), values)


def per_image_file(folder: Path, row_digest: str) -> Path:
    """Returns the file of a row's figures of each image.

    Args:
        folder: Folder of `rows.jsonl`.
        row_digest: The row's digest.
    """
    return folder / "per_image" / f"{row_digest}.npz"


def write_per_image(folder: Path, row_digest: str, figures: PerImage) -> None:
    """Writes the figures of each image of a row.

    Args:
        folder: Folder of `rows.jsonl`.
        row_digest: The row's digest.
        figures: The figures.
    """
    arrays: dict[str, Any] = {IDS: np.array(figures.ids, dtype=np.str_), **figures.metrics}
    with atomic_write(per_image_file(folder, row_digest)) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)


def read_per_image(folder: Path, row: Mapping[str, Any]) -> PerImage:
    """Reads the figures of each image of a row.

    Args:
        folder: Folder of `rows.jsonl`.
        row: The row.

    Raises:
        MissingFileError: The row was measured by a version that did not keep them.
    """
    file = per_image_file(folder, row["digest"])
    if not file.is_file():
        raise MissingFileError(
            f"row {row['digest']} has no figures of each image, as it was measured by an earlier version: remove its "
            f"line from {folder / 'rows.jsonl'} and measure it again, which keeps the images that exist"
        )
    with np.load(file, allow_pickle=False) as kept:
        return PerImage(kept[IDS].tolist(), {name: kept[name] for name in kept.files if name != IDS})
