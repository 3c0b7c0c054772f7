"""What images are compared with as a set: the features of real images, computed once for all metrics."""

import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clockwork.errors import UserError
from clockwork.io.atomic import atomic_write
from clockwork.io.distributed import gather, rank, sum_over_processes
from clockwork.io.fingerprint import digest
from clockwork.metrics.base import Batch, FeatureModel, Metric
from clockwork.metrics.numerics import require_finite_features


@dataclass(frozen=True, eq=False)
class Reference:
    """A set of real images, and the network through which images are compared with it.

    Attributes:
        model: Computes features `batch × width` of 8-bit images `batch × 3 × height × width`.
        label: Describes network and images, in rows.
        images: Returns this process's share (`distributed.share`) of the images, in 8-bit batches.
        size: Width and height in pixels to which the images that are compared with it are resized; None for their own.
        cache: Folder that keeps the features; None to compute them every time.
    """

    model: FeatureModel
    label: str
    images: Callable[[], Iterable[Tensor]]
    size: int | None = None
    cache: Path | None = None

    @cached_property
    def features(self) -> Tensor:
        """Features of all images in float32, `count × width`. All processes must read them, and hold them then.

        Raises:
            UserError: The cache holds another reference's, or a feature is not finite.
        """
        kept = self.read_cache("features", ("features",))
        if kept is not None:
            return torch.from_numpy(kept["features"])
        batches = (self.model(batch) for batch in self.images())
        features = gather_features([require_finite_features(part, self.label) for part in batches])
        self.write_cache("features", features=features.numpy())
        return features

    def features_of(self, batch: Batch) -> Tensor:
        """Returns the features of images that are compared with the reference.

        Args:
            batch: The images.

        Returns:
            Features on the CPU, `batch × width`.
        """
        return require_finite_features(batch.features(self.model, self.size), self.label)

    def cache_file(self, kind: str) -> Path | None:
        """Returns the file that keeps what is computed from the reference, if there is a cache.

        Args:
            kind: What it keeps.
        """
        return None if self.cache is None else self.cache / f"{kind}-{digest(self.label)}.npz"

    def read_cache(self, kind: str, names: Sequence[str]) -> dict[str, np.ndarray] | None:
        """Reads what is kept of one kind. All processes must call it.

        Args:
            kind: What is kept.
            names: Names of its arrays.

        Returns:
            The arrays by name. None if they have to be computed: there is no cache, no file, or one that is damaged.

        Raises:
            UserError: The file belongs to another reference.
        """
        file = self.cache_file(kind)
        arrays = None if file is None else _read_arrays(file, (*names, "label"))
        if not all(gather(arrays is not None)) or arrays is None:  # processes may see different file systems
            return None
        if str(arrays["label"]) != self.label:
            raise UserError(f"{file} holds features of {arrays['label']}, not of {self.label}: remove it")
        return {name: arrays[name] for name in names}

    def write_cache(self, kind: str, **arrays: np.ndarray) -> None:
        """Keeps arrays, if there is a cache; the main process writes.

        Args:
            kind: What is kept.
            **arrays: The arrays by name.
        """
        file = self.cache_file(kind)
        if file is not None and rank() == 0:
            with atomic_write(file) as partial, partial.open("wb") as stream:
                np.savez(stream, allow_pickle=False, label=np.array(self.label), **arrays)


def _read_arrays(file: Path, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Reads arrays from a file; None if there is none, or it is damaged or has others."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in names}
    except FileNotFoundError:
        return None
    except (
        OSError,
        ValueError,
        LookupError,
        EOFError,
        MemoryError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        print(f"{file} is damaged ({type(error).__name__}): its features are computed again")
        return None
    numbers = [array for name, array in arrays.items() if name != "label"]
    return arrays if all(array.dtype.kind in "fiu" and np.isfinite(array).all() for array in numbers) else None


def gather_features(batches: Iterable[Tensor]) -> Tensor:
    """Concatenates features of all processes. All processes must call it.

    Args:
        batches: This process's, `batch × width`; there may be none.

    Returns:
        Features of all processes in float32 on the CPU, `count × width`; `0 × 0` if there are none.
    """
    parts = [batch for part in gather([batch.float().cpu() for batch in batches]) for batch in part]
    return torch.cat(parts) if parts else torch.zeros(0, 0)


class ReferenceMetric(Metric):
    """A figure of images in comparison with a reference.

    Args:
        reference: What the images are compared with.
        name: Its name in rows.
    """

    def __init__(self, reference: Reference, name: str) -> None:
        super().__init__(name, reference.size)
        self.reference = reference

    @property
    def description(self) -> str:
        return f"{self.info.label.split(',')[0]} {self.reference.label}"

    @property
    def identity(self) -> list[str]:
        return [*super().identity, str(self.size)]


class SetMetric(ReferenceMetric):
    """A figure of the features of all images at once, compared with those of a reference.

    Args:
        reference: What the images are compared with. Its features are computed before anything is generated.
        name: Its name in rows.
    """

    def __init__(self, reference: Reference, name: str) -> None:
        super().__init__(reference, name)
        if (count := len(reference.features)) < self.min_images:
            raise UserError(f"the reference has {count} images: {name} needs at least {self.min_images}")
        self.reset()

    @abstractmethod
    def figure(self, features: Tensor) -> float:
        """Computes the figure.

        Args:
            features: Features of all images, `count × width`.
        """

    def reset(self) -> None:
        self._features: list[Tensor] = []

    def update(self, batch: Batch) -> None:
        self._features.append(self.reference.features_of(batch))

    def compute(self) -> float:
        """Computes the figure over the images of all processes. The main process computes, the others wait.

        Raises:
            UserError: There are fewer images than it needs.
        """
        features = gather_features(self._features)
        if len(features) < self.min_images:
            raise UserError(f"{self.name} needs at least {self.min_images} images, not {len(features)}: add images")
        figure = self.figure(features) if rank() == 0 else 0.0
        return float(sum_over_processes(torch.tensor(figure, dtype=torch.float64)))
