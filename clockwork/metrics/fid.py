"""Fréchet distance of image features: torchmetrics' streaming sums over a feature model of our choice."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from clockwork.errors import UserError
from clockwork.io.atomic import atomic_write

_SUMS = ("features_sum", "features_cov_sum", "features_num_samples")


class _Features(nn.Module):
    """A feature model in the shape torchmetrics wants."""

    def __init__(self, features: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.features, self.num_features = features, width

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images).cpu().double()


class FID:
    """FID against a reference set.

    `features` turns 8-bit images `batch × 3 × height × width` into `batch × width` features; `label` names it in
    rows. The reference's sums are computed once and kept in `cache`, with the label and the count beside them.
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
        self._metric = FrechetInceptionDistance(_Features(features, width), reset_real_features=False)
        self._metric.set_dtype(torch.float64)
        if cache is not None and cache.is_file():
            self._restore(cache)
        else:
            for batch in reference():
                self._metric.update(batch, real=True)
            if cache is not None:
                self._keep(cache)
        if (count := int(self._metric.real_features_num_samples)) <= width:
            raise UserError(
                f"the reference has {count} images for {width} features: FID needs more images than features"
            )

    def __call__(self, images: Iterable[Tensor]) -> float:
        self._metric.reset()
        for batch in images:
            self._metric.update(batch, real=False)
        return float(self._metric.compute())

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
