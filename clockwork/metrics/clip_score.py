"""CLIP score: the mean cosine of pictures and their captions (not × 100, as in the paper)."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor

from clockwork.openclip import OpenCLIP


def clip_score(clip: OpenCLIP, batches: Iterable[tuple[Tensor, list[str]]]) -> float:
    """`batches` of 8-bit images `batch × 3 × height × width` and their captions."""
    total, count = 0.0, 0
    for images, captions in batches:
        seen, read = F.normalize(clip.encode_image(images), dim=-1), clip.encode_text(captions)
        total += float((seen * read).sum())
        count += len(captions)
    return total / count
