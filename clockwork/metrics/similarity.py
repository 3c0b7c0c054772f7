"""How similar images or features are to those that they are compared with."""

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from clockwork.io.device import choose_device
from clockwork.metrics.base import Batch, MeanMetric
from clockwork.metrics.numerics import exact_convolutions


class Similarity(MeanMetric):
    """A mean over pairs of images.

    Args:
        name: Its name in rows; the registry names the two inputs that are compared.
        device: Where it is computed: `auto`, or a torch device.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        super().__init__(name)
        self.device = choose_device(device)

    def values(self, batch: Batch) -> Tensor:
        images, others = (getattr(batch, name).to(self.device).float() for name in self.info.inputs)
        return self.of_pairs(images, others)

    @abstractmethod
    def of_pairs(self, images: Tensor, others: Tensor) -> Tensor:
        """Computes the figure of each pair of images, values from 0 to 255.

        Args:
            images: `batch × 3 × height × width`.
            others: As `images`.

        Returns:
            Shape `batch`.
        """


class PSNR(Similarity):
    """Mean peak signal-to-noise ratio in dB. Equal images count as 100 dB. Arguments as in `Similarity`."""

    def __init__(self, name: str = "psnr", device: str = "cpu") -> None:
        super().__init__(name, device)

    def of_pairs(self, images: Tensor, others: Tensor) -> Tensor:
        ratios = peak_signal_noise_ratio(images, others, data_range=255.0, reduction="none", dim=(1, 2, 3))
        return ratios.clamp(max=100)


class SSIM(Similarity):
    """Mean structural similarity. Arguments as in `Similarity`."""

    def __init__(self, name: str = "ssim", device: str = "cpu") -> None:
        super().__init__(name, device)

    def of_pairs(self, images: Tensor, others: Tensor) -> Tensor:
        with exact_convolutions():
            return structural_similarity_index_measure(images, others, data_range=255.0, reduction="none")


def psnr_and_ssim(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Computes PSNR and SSIM of pairs of images.

    Args:
        pairs: Pairs of 8-bit batches, `batch × 3 × height × width` each.

    Returns:
        Mean PSNR in dB and mean SSIM.
    """
    metrics = (PSNR(), SSIM())
    for images, others in pairs:
        for metric in metrics:
            metric.update(Batch(images, teacher_images=others))
    return metrics[0].compute(), metrics[1].compute()


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of each example: ‖a − b‖₂ divided by the root of its size, so that it means the same
    at every size.

    Args:
        a: `batch × …`.
        b: As `a`.

    Returns:
        `batch`. Its gradient is 0 where an example's `a` equals `b`.
    """
    squares = (a - b).flatten(1).square().mean(1)
    equal = squares == 0  # where the root has no derivative; the squares themselves have the right one there, 0
    return torch.where(equal, squares, torch.where(equal, 1, squares).sqrt())
