"""How near features or pictures are to the teacher's of the same prompt and seed."""

from collections.abc import Iterable

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure


def psnr_and_ssim(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Mean over pictures; `pairs` of 8-bit batches `batch × 3 × height × width`. Equal pictures count as 100 dB."""
    psnr, ssim, count = 0.0, 0.0, 0
    for ours, theirs in pairs:
        a, b = ours.float(), theirs.float()
        each = peak_signal_noise_ratio(a, b, data_range=255.0, reduction="none", dim=(1, 2, 3))
        psnr += float(each.clamp(max=100).sum())
        ssim += float(structural_similarity_index_measure(a, b, data_range=255.0, reduction="sum"))
        count += len(a)
    return psnr / count, ssim / count


def distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖₂ of each example, by the root of its size so that it means the same at every size: `batch`."""
    return (a - b).flatten(1).square().mean(1).sqrt()
