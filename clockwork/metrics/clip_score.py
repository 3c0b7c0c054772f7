"""CLIP score: the mean cosine of pictures and their captions (not × 100, as in the paper)."""

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor

from clockwork.errors import UserError
from clockwork.teachers.text_embedder import OpenCLIP


def clip_score(clip: OpenCLIP, batches: Iterable[Tensor], captions: Sequence[str]) -> float:
    """`batches` of 8-bit images `batch × 3 × height × width`, in the order of their captions; ValueError if they are
    not as many."""
    total, count = 0.0, 0
    for images in batches:
        read = clip.encode_text(list(captions[count : count + len(images)]))
        total += float((F.normalize(clip.encode_image(images), dim=-1) * read).sum())
        count += len(images)
    if count != len(captions):
        raise UserError(f"{count} pictures and {len(captions)} captions: every picture needs its own")
    return total / count
