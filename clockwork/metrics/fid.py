"""Fréchet distance of image features: torchmetrics' streaming sums over a feature model of our choice."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from clockwork.data.image_files import image_files, read_image
from clockwork.data.image_io import squared
from clockwork.data.prompts import chunks
from clockwork.errors import UserError
from clockwork.io.distributed import rank, share, sum_over_processes
from clockwork.io.progress import progress_bar
from clockwork.io.threads import map_in_threads
from clockwork.metrics.base import Batch, FeatureModel, measure
from clockwork.metrics.inception import Inception, resized
from clockwork.metrics.reference import Reference, ReferenceMetric

_SUMS = ("features_sum", "features_cov_sum", "features_num_samples")


class _Width(nn.Identity):
    """Passes features through, in the shape of a feature model that torchmetrics wants."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width


class FID(ReferenceMetric):
    """FID against a reference set, over the images of all processes.

    Args:
        reference: What the images are compared with. Its cache keeps the sums over its features, too.
        name: Its name in rows.

    Raises:
        UserError: The reference has no more images than features, or the cache holds another reference's sums.
    """

    min_images = 2

    def __init__(self, reference: Reference, name: str = "fid") -> None:
        super().__init__(reference, name)
        sums = self._reference_sums()
        width = len(sums["features_sum"])
        if (count := int(sums["features_num_samples"])) <= width:
            raise UserError(
                f"the reference has {count} images for {width} features: FID needs more images than features"
            )
        self._metric = FrechetInceptionDistance(_Width(width), reset_real_features=False, sync_on_compute=False)
        self._metric.set_dtype(torch.float64)
        for key, value in sums.items():
            setattr(self._metric, f"real_{key}", value)

    def __call__(self, images: Iterable[Tensor]) -> float:
        """Computes the FID of images. All processes must call it.

        Args:
            images: This process's images, in 8-bit batches.

        Returns:
            The distance of all processes' images to the reference.
        """
        return measure([self], map(Batch, images))[self.name]

    def reset(self) -> None:
        """Forgets the images, but not the reference."""
        self._metric.reset()

    def update(self, batch: Batch) -> None:
        self._metric.update(self.reference.features_of(batch).double(), real=False)

    def compute(self) -> float:
        """Computes the distance of all processes' images, which are then forgotten. All processes must call it.

        Raises:
            UserError: There are fewer than two images.
        """
        for key in _SUMS:  # every process's sums are replaced by those of all, so that no image counts twice
            setattr(self._metric, f"fake_{key}", sum_over_processes(getattr(self._metric, f"fake_{key}")))
        if int(self._metric.fake_features_num_samples) < 2:
            raise UserError("FID needs at least two images: raise prompts.count, or pass metrics=none")
        distance = float(self._metric.compute()) if rank() == 0 else 0.0  # seconds, on every core
        self.reset()
        return float(sum_over_processes(torch.tensor(distance, dtype=torch.float64)))

    def _reference_sums(self) -> dict[str, Tensor]:
        """Reads the sums over the reference's features, or computes and keeps them."""
        if (kept := self.reference.read_cache("fid", _SUMS)) is not None:
            return {key: torch.from_numpy(value) for key, value in kept.items()}
        features = self.reference.features.double()
        sums = dict(zip(_SUMS, (features.sum(0), features.mT @ features, torch.tensor(len(features))), strict=True))
        self.reference.write_cache("fid", **{key: value.numpy() for key, value in sums.items()})
        return sums


def inception_fid(
    reference: str,
    inception: str,
    sha256: str,
    name: str = "fid",
    size: int | None = None,
    cache: str = "outputs/cache",
    device: str = "auto",
) -> FID:
    """Creates the FID of clean-fid's Inception to a folder of real images.

    What is computed from the reference is kept under `cache` by what it depends on: hashes of the files and the
    network, resizing and count.

    Args:
        reference: Folder of the reference images.
        inception: File of the Inception network, downloaded if it is missing.
        sha256: Hash of that file.
        name: Its name in rows.
        size: Width and height in pixels to which images and reference are resized first (Table 2: 256); None for
            their own.
        cache: Folder of what is computed from the reference.
        device: Where it computes: `auto`, or a torch device.

    Returns:
        The metric.
    """
    return FID(inception_reference(reference, inception, sha256, size, cache, device), name)


@lru_cache(maxsize=1)
def inception_reference(
    reference: str, inception: str, sha256: str, size: int | None, cache: str, device: str
) -> Reference:
    """Creates the reference of the metrics that look through clean-fid's Inception, which share one.

    Args:
        reference: Folder of the reference images.
        inception: File of the Inception network, downloaded if it is missing.
        sha256: Hash of that file.
        size: Width and height in pixels to which images and reference are resized first; None for their own.
        cache: Folder of what is computed from the reference.
        device: Where the network computes: `auto`, or a torch device.

    Returns:
        The reference.
    """
    files = image_files(Path(reference))
    network = Inception(inception, sha256, device)
    # Files of earlier versions under `cache` are found by this text, "pictures" included.
    label = f"{network.label}{f' at {size}' if size else ''}, {len(files)} pictures {files_hash(files)}"
    return Reference(network, label, lambda: read_share(files, size, resized), size, Path(cache))


def folder_reference(model: FeatureModel, label: str, folder: str, side: int, cache: str) -> Reference:
    """Creates a reference of a folder of real images, all resized to one size.

    Args:
        model: Computes the features.
        label: Describes the model, in rows.
        folder: Folder of the reference images.
        side: Width and height in pixels to which images are resized.
        cache: Folder of what is computed from the reference.

    Returns:
        The reference.
    """
    files = image_files(Path(folder))
    label = f"{label} at {side}, {len(files)} images {files_hash(files)}"
    return Reference(model, label, lambda: read_share(files, side), side, Path(cache))


def read_share(
    files: Sequence[Path], size: int | None, fit: Callable[[Tensor], Tensor] = lambda images: images
) -> Iterator[Tensor]:
    """Reads this process's share of images, with a progress bar.

    Args:
        files: The image files.
        size: Width and height in pixels to which each is resized first; None for its own.
        fit: Gives images `1 × 3 × height × width` the size that they have in a batch.

    Yields:
        Batches, `batch × 3 × height × width` in [0, 255].
    """

    def read(batch: Sequence[Path]) -> Tensor:
        images = [read_image(file) for file in batch]
        return torch.cat([fit((squared(image, size) if size else image)[None]) for image in images])

    batches = list(chunks(share(files), 32))
    yield from progress_bar(map_in_threads(read, batches), "reference", len(batches), unit="batch")


def files_hash(files: Sequence[Path]) -> str:
    """Computes the fingerprint of files.

    Args:
        files: The files.

    Returns:
        Twelve hexadecimal digits, which depend on names and contents.
    """
    sha = hashlib.sha256()
    contents = map_in_threads(lambda file: hashlib.sha256(file.read_bytes()).digest(), files)
    for file, content in zip(files, contents, strict=True):
        sha.update(file.name.encode() + content)
    return sha.hexdigest()[:12]
