"""How similar features or images are to the teacher's of the same prompt and seed."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from clockwork.io.distributed import sum_over_processes
from clockwork.metrics.numerics import exact_convolutions


class Similarity:
    """PSNR and SSIM, running means over the images of all processes.

    Args:
        device: Where they are computed; the CPU by default.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._sums = torch.zeros(3, dtype=torch.float64)  # PSNR, SSIM, images

    def update(self, ours: Tensor, theirs: Tensor) -> None:
        """Adds pairs of 8-bit images, `batch × 3 × height × width` each. Equal images count as 100 dB."""
        a, b = ours.to(self.device).float(), theirs.to(self.device).float()
        psnr = peak_signal_noise_ratio(a, b, data_range=255.0, reduction="none", dim=(1, 2, 3)).clamp(max=100)
        with exact_convolutions():
            ssim = structural_similarity_index_measure(a, b, data_range=255.0, reduction="sum")
        self._sums += torch.tensor([float(psnr.sum()), float(ssim), len(a)], dtype=torch.float64)

    def compute(self) -> tuple[float, float]:
        """Mean PSNR in dB and mean SSIM; all processes have to call it."""
        psnr, ssim, count = sum_over_processes(self._sums).tolist()
        return psnr / count, ssim / count


def psnr_and_ssim(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Mean PSNR in dB and mean SSIM of pairs of 8-bit batches `batch × 3 × height × width`."""
    similarity = Similarity()
    for ours, theirs in pairs:
        similarity.update(ours, theirs)
    return similarity.compute()


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
