"""The miniature's metrics: FID, CLIP score and structure distance through the small CLIP, under names of their own.

Their figures cannot be compared with published ones.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork.metrics.registry import MetricInfo, register

if TYPE_CHECKING:
    from torch import Tensor

    from clockwork.metrics.clip_score import CLIPScore
    from clockwork.metrics.fid import FID
    from clockwork.metrics.structure import Structure

register(MetricInfo("fid_miniature", "FID, miniature", "lower", "{:.2f}"))
register(MetricInfo("clip_score_miniature", "CLIP score, miniature", "higher", inputs=("images", "captions")))
register(
    MetricInfo(
        "structure_miniature", "structure distance, miniature", "lower", "{:.5f}", inputs=("images", "source_images")
    )
)


def fid(name: str = "fid_miniature", reference: int = 10_000, cache: str = "outputs/cache") -> "FID":
    """Creates the FID to rendered scenes.

    Args:
        name: Its name in rows.
        reference: Number of rendered scenes.
        cache: Folder that keeps the sums over the reference.

    Returns:
        The metric.
    """
    import torch

    from clockwork.io import distributed
    from clockwork.io.fingerprint import digest, weights_hash
    from clockwork.metrics.fid import FID
    from clockwork.miniature import scenes
    from clockwork.miniature.teacher import small_clip

    clip = small_clip()
    label = f"small CLIP {weights_hash(clip.module)}, {reference} rendered scenes"

    def render() -> "Iterator[Tensor]":
        for start in distributed.share(range(0, reference, 100)):
            images = scenes.render_batch("validation", start, min(100, reference - start))[1]
            yield ((images + 1) * 127.5).round().to(torch.uint8)

    return FID(clip.encode_image, clip.width, label, render, Path(cache) / f"fid-{digest(label)}.npz", name)


def clip_score(name: str = "clip_score_miniature") -> "CLIPScore":
    """Creates the CLIP score of the small CLIP.

    Args:
        name: Its name in rows.

    Returns:
        The metric.
    """
    from clockwork.metrics.clip_score import CLIPScore
    from clockwork.miniature.teacher import small_clip

    return CLIPScore(small_clip(), name)


def structure(name: str = "structure_miniature") -> "Structure":
    """Creates the structure distance of the small CLIP's second stage, which has 8 × 8 patches.

    Args:
        name: Its name in rows.

    Returns:
        The metric.
    """
    from clockwork.metrics.structure import Structure, output_of
    from clockwork.miniature.teacher import small_clip

    clip = small_clip()
    vision: Any = clip.module.visual

    def features(images: "Tensor") -> "Tensor":
        return output_of(vision.layer2, lambda: clip.encode_image(images)).flatten(2).mT

    return Structure("small CLIP, second stage", features, name)
