"""Fréchet distance of image features: torchmetrics' streaming sums over a feature model of our choice."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from clockwork.errors import UserError
from clockwork.io.atomic import atomic_write
from clockwork.io.distributed import from_main_process, rank, sum_over_processes
from clockwork.metrics.numerics import require_finite_features

_SUMS = ("features_sum", "features_cov_sum", "features_num_samples")


class _Features(nn.Module):
    """A feature model in the shape torchmetrics wants. Sums are in float64 on the CPU: not every device has it."""

    def __init__(self, features: Callable[[Tensor], Tensor], width: int, label: str) -> None:
        super().__init__()
        self.features, self.num_features, self.label = features, width, label

    def forward(self, images: Tensor) -> Tensor:
        return require_finite_features(self.features(images).cpu().double(), self.label)


class FID:
    """FID against a reference set, over the images of all processes.

    Args:
        features: Turns 8-bit images `batch × 3 × height × width` into `batch × width` features.
        width: Of the features.
        label: How rows name the features and the reference.
        reference: Gives this process's share (`distributed.share`) of the reference's images, in 8-bit batches.
        cache: Where the reference's sums are kept, with the label and the count; made once.

    Raises:
        UserError: The reference has no more images than features, or the cache holds another reference's sums.
    """

    def __init__(
        self,
        features: Callable[[Tensor], Tensor],
        width: int,
        label: str,
        reference: Callable[[], Iterable[Tensor]],
        cache: Path | None = None,
    ) -> None:
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
        """FID of this process's share of the images, in 8-bit batches, and the other processes'."""
        self.reset()
        for batch in images:
            self.update(batch)
        return self.compute()

    def reset(self) -> None:
        """Forgets the images, not the reference."""
        self._metric.reset()

    def update(self, images: Tensor) -> None:
        """Adds 8-bit images `batch × 3 × height × width`."""
        self._metric.update(images, real=False)

    def compute(self) -> float:
        """The distance of all processes' images, which are then forgotten; all processes have to call it.

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
        """Every process's sums become those of all, so that no image counts twice."""
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
