"""CLIP score: the mean cosine of images and their captions (not × 100, as in the paper)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from clockwork.errors import UserError
from clockwork.io.device import choose_device
from clockwork.metrics.base import Batch, MeanMetric
from clockwork.metrics.numerics import require_finite_features
from clockwork.teachers.text_embedder import OpenCLIP


@dataclass(frozen=True)
class CLIPImages:
    """The image encoder of a CLIP model as a feature model. Those of equal models are equal."""

    clip: OpenCLIP

    def __call__(self, images: Tensor) -> Tensor:
        """Embeds images.

        Args:
            images: 8-bit images, `batch × 3 × height × width`.

        Returns:
            Embeddings in float32, not normalised, `batch × width`.
        """
        return require_finite_features(self.clip.encode_image(images), f"CLIP {self.clip.label}")


class CLIPScore(MeanMetric):
    """The CLIP score.

    Args:
        clip: The model that encodes images and captions.
        name: Its name in rows.
        size: Width and height in pixels to which images are resized first; None for their own.
    """

    def __init__(self, clip: OpenCLIP, name: str = "clip_score", size: int | None = None) -> None:
        super().__init__(name, size)
        self.clip = clip

    @property
    def description(self) -> str:
        return f"CLIP {self.clip.label}"

    @property
    def identity(self) -> list[str]:
        return [*super().identity, self.clip.identity, str(self.size)]

    def values(self, batch: Batch) -> Tensor:
        features = batch.features(CLIPImages(self.clip), self.size)
        captions = self.clip.encode_text(list(batch.captions or ())).cpu()
        return (F.normalize(features, dim=-1) * captions).sum(-1)


def open_clip_score(
    name: str = "clip_score",
    clip: str = "ViT-g-14",
    clip_tag: str | None = "laion2b_s34b_b88k",
    size: int | None = None,
    device: str = "auto",
) -> CLIPScore:
    """Creates the CLIP score of an open_clip model.

    Args:
        name: Its name in rows.
        clip: open_clip's name, or `local-dir:` and a folder in its format.
        clip_tag: open_clip's name of the weights.
        size: Width and height in pixels to which images are resized first; None for their own.
        device: Where it computes: `auto`, or a torch device.

    Returns:
        The metric.

    Raises:
        MissingFileError: The weights are missing, and cannot be downloaded.
    """
    model = OpenCLIP(clip, clip_tag, choose_device(device))
    model.require_weights()
    return CLIPScore(model, name, size)


def clip_score(clip: OpenCLIP, batches: Iterable[Tensor], captions: Sequence[str]) -> float:
    """Computes the CLIP score of images.

    Args:
        clip: The model that encodes images and captions.
        batches: 8-bit images `batch × 3 × height × width`, in the order of their captions.
        captions: One per image.

    Returns:
        The mean cosine.

    Raises:
        UserError: There are not as many captions as images.
    """
    score, count = CLIPScore(clip), 0
    for images in batches:
        score.update(Batch(images, captions[count : count + len(images)]))
        count += len(images)
    if count != len(captions):
        raise UserError(f"{count} images and {len(captions)} captions: every image needs its own")
    return score.compute()
