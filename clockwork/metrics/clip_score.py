"""CLIP score: the mean cosine of images and their captions (not × 100, as in the paper)."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clockwork.errors import UserError
from clockwork.io.distributed import sum_over_processes
from clockwork.metrics.numerics import require_finite_features
from clockwork.teachers.text_embedder import OpenCLIP


class CLIPScore:
    """A running mean over the images of all processes.

    Args:
        clip: The model that sees the images and reads the captions.
    """

    def __init__(self, clip: OpenCLIP) -> None:
        self.clip = clip
        self._cosines_and_count = torch.zeros(2, dtype=torch.float64)

    def update(self, images: Tensor, captions: Sequence[str]) -> None:
        """Adds 8-bit images `batch × 3 × height × width` and their captions."""
        seen = require_finite_features(self.clip.encode_image(images), f"CLIP {self.clip.label}")
        cosines = F.normalize(seen, dim=-1) * self.clip.encode_text(list(captions))
        self._cosines_and_count += torch.tensor([float(cosines.sum()), len(images)], dtype=torch.float64)

    def compute(self) -> float:
        """The mean; all processes have to call it."""
        total, count = sum_over_processes(self._cosines_and_count).tolist()
        return float(total / count)


def clip_score(clip: OpenCLIP, batches: Iterable[Tensor], captions: Sequence[str]) -> float:
    """CLIP score of images.

    Args:
        clip: The model that sees the images and reads the captions.
        batches: 8-bit images `batch × 3 × height × width`, in the order of their captions.
        captions: One per image.

    Raises:
        UserError: There are not as many captions as images.
    """
    score, count = CLIPScore(clip), 0
    for images in batches:
        score.update(images, captions[count : count + len(images)])
        count += len(images)
    if count != len(captions):
        raise UserError(f"{count} images and {len(captions)} captions: every image needs its own")
    return score.compute()
