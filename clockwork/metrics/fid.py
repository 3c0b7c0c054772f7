"""Fréchet distance of image features: torchmetrics' streaming sums over a feature model of our choice."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from tqdm import tqdm

from clockwork.data.image_io import image_files, read_image, squared
from clockwork.data.prompts import chunks
from clockwork.errors import UserError
from clockwork.io.atomic import atomic_write
from clockwork.io.distributed import from_main_process, rank, share, sum_over_processes
from clockwork.io.fingerprint import digest
from clockwork.io.threads import map_in_threads
from clockwork.metrics.base import Batch, Metric, measure
from clockwork.metrics.inception import WIDTH, Inception, resized
from clockwork.metrics.numerics import require_finite_features

_SUMS = ("features_sum", "features_cov_sum", "features_num_samples")


class _Features(nn.Module):
    """A feature model in the shape torchmetrics wants. Sums are in float64 on the CPU: not every device has it."""

    def __init__(self, features: Callable[[Tensor], Tensor], width: int, label: str) -> None:
        super().__init__()
        self.features, self.num_features, self.label = features, width, label

    def forward(self, images: Tensor) -> Tensor:
        return require_finite_features(self.features(images).cpu().double(), self.label)


class FID(Metric):
    """FID against a reference set, over the images of all processes.

    Args:
        features: Computes features `batch × width` of 8-bit images `batch × 3 × height × width`.
        width: Width of the features.
        label: How rows describe the features and the reference.
        reference: Returns this process's share (`distributed.share`) of the reference's images, in 8-bit batches.
        cache: File that keeps the sums over the reference, with the label; None to compute them every time.
        name: Its name in rows.
        size: Width and height in pixels to which images are resized first; None for their own.

    Raises:
        UserError: The reference has no more images than features, or the cache holds another reference's sums.
    """

    min_images = 2

    def __init__(
        self,
        features: Callable[[Tensor], Tensor],
        width: int,
        label: str,
        reference: Callable[[], Iterable[Tensor]],
        cache: Path | None = None,
        name: str = "fid",
        size: int | None = None,
    ) -> None:
        super().__init__(name, size)
        self.label, self.width = label, width
        network = _Features(features, width, label)
        self._metric = FrechetInceptionDistance(network, reset_real_features=False, sync_on_compute=False)
        self._metric.set_dtype(torch.float64)
        (cached,) = from_main_process([cache is not None and cache.is_file()])
        if cached and cache is not None:
            self._restore(cache)
        else:
            for batch in reference():
                self._metric.update(batch, real=True)
            self._reduce("real")
            if cache is not None and rank() == 0:
                self._keep(cache)
        if (count := int(self._metric.real_features_num_samples)) <= width:
            raise UserError(
                f"the reference has {count} images for {width} features: FID needs more images than features"
            )

    def __call__(self, images: Iterable[Tensor]) -> float:
        """Computes the FID of images. All processes must call it.

        Args:
            images: This process's images, in 8-bit batches.

        Returns:
            The distance of all processes' images to the reference.
        """
        return measure([self], map(Batch, images))[self.name]

    @property
    def description(self) -> str:
        return f"FID {self.label}"

    @property
    def identity(self) -> list[str]:
        return [*super().identity, str(self.size)]

    def reset(self) -> None:
        """Forgets the images, but not the reference."""
        self._metric.reset()

    def update(self, batch: Batch) -> None:
        self._metric.update(batch.images_at(self.size), real=False)

    def compute(self) -> float:
        """Computes the distance of all processes' images, which are then forgotten. All processes must call it.

        Raises:
            UserError: There are fewer than two images.
        """
        self._reduce("fake")
        if int(self._metric.fake_features_num_samples) < 2:
            raise UserError("FID needs at least two images: raise prompts.count, or pass metrics=none")
        distance = float(self._metric.compute()) if rank() == 0 else 0.0  # seconds, on every core
        self.reset()
        return float(sum_over_processes(torch.tensor(distance, dtype=torch.float64)))

    def _reduce(self, kind: str) -> None:
        """Replaces every process's sums by those of all, so that no image counts twice."""
        for name in _SUMS:
            setattr(self._metric, f"{kind}_{name}", sum_over_processes(getattr(self._metric, f"{kind}_{name}")))

    def _keep(self, cache: Path) -> None:
        sums = {name: getattr(self._metric, f"real_{name}").numpy() for name in _SUMS}
        with atomic_write(cache) as partial, partial.open("wb") as stream:
            np.savez(stream, label=np.array(self.label), **sums)

    def _restore(self, cache: Path) -> None:
        with np.load(cache, allow_pickle=False) as kept:
            if str(kept["label"]) != self.label:
                raise UserError(f"{cache} holds features of {kept['label']}, not of {self.label}: remove it")
            for name in _SUMS:
                setattr(self._metric, f"real_{name}", torch.from_numpy(kept[name]))


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

    The sums over the reference are kept under `cache` by what they depend on: hashes of the files and the network,
    resizing and count.

    Args:
        reference: Folder of the reference images.
        inception: File of the Inception network, downloaded if it is missing.
        sha256: Hash of that file.
        name: Its name in rows.
        size: Width and height in pixels to which images and reference are resized first (Table 2: 256); None for
            their own.
        cache: Folder of the sums over the reference.
        device: Where it computes: `auto`, or a torch device.

    Returns:
        The metric.
    """
    files = image_files(Path(reference))
    network = Inception(inception, sha256, device)
    # Files of earlier versions under `cache` are found by this text, "pictures" included.
    label = f"{network.label}{f' at {size}' if size else ''}, {len(files)} pictures {_files_hash(files)}"

    cached_sums = Path(cache) / f"fid-{digest(label)}.npz"
    return FID(network, WIDTH, label, lambda: _read_share(files, size), cached_sums, name, size)


def _read_share(files: Sequence[Path], size: int | None) -> Iterator[Tensor]:
    """Reads this process's share of the reference in batches, at Inception's input size, in [0, 255]."""

    def read(batch: Sequence[Path]) -> Tensor:
        images = [read_image(file) for file in batch]
        return torch.cat([resized((squared(image, size) if size else image)[None]) for image in images])

    batches = list(chunks(share(files), 32))
    yield from tqdm(map_in_threads(read, batches), "reference", len(batches), unit="batch", disable=rank() > 0)


def _files_hash(files: Sequence[Path]) -> str:
    """Hashes names and contents of files; twelve hexadecimal digits."""
    sha = hashlib.sha256()
    contents = map_in_threads(lambda file: hashlib.sha256(file.read_bytes()).digest(), files)
    for file, content in zip(files, contents, strict=True):
        sha.update(file.name.encode() + content)
    return sha.hexdigest()[:12]
