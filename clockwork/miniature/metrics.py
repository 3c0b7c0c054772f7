"""The miniature's metrics: what its small CLIP can see, under names of their own.

Their figures cannot be compared with published ones.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork.metrics.registry import MetricInfo, register

if TYPE_CHECKING:
    from torch import Tensor

    from clockwork.metrics.clip_score import CLIPScore
    from clockwork.metrics.cmmd import CMMD
    from clockwork.metrics.fid import FID
    from clockwork.metrics.kid import KID
    from clockwork.metrics.prdc import Neighbours
    from clockwork.metrics.reference import Reference
    from clockwork.metrics.structure import Structure

register(MetricInfo("fid_miniature", "FID, miniature", "lower", "{:.2f}", num_features=96))
register(MetricInfo("kid_miniature", "KID, miniature", "lower", "{:.5f}"))
register(MetricInfo("cmmd_miniature", "CMMD, miniature", "lower", "{:.4f}"))
for _figure in ("precision", "recall", "density", "coverage"):
    register(MetricInfo(f"{_figure}_miniature", f"{_figure}, miniature", "higher", plotted=False))
register(MetricInfo("clip_score_miniature", "CLIP score, miniature", "higher", inputs=("images", "captions")))
register(
    MetricInfo(
        "structure_miniature", "structure distance, miniature", "lower", "{:.5f}", inputs=("images", "source_images")
    )
)


@lru_cache(maxsize=1)
def rendered_scenes(count: int, cache: str) -> "Reference":
    """Creates the reference of the metrics that look through the small CLIP, which share one.

    Args:
        count: Number of rendered scenes.
        cache: Folder of what is computed from them.

    Returns:
        The reference.
    """
    import torch

    from clockwork.io import distributed
    from clockwork.io.fingerprint import weights_hash
    from clockwork.metrics.clip_score import CLIPImages
    from clockwork.metrics.reference import Reference
    from clockwork.miniature import scenes
    from clockwork.miniature.teacher import small_clip

    def render() -> "Iterator[Tensor]":
        for start in distributed.share(range(0, count, 100)):
            images = scenes.render_batch("validation", start, min(100, count - start))[1]
            yield ((images + 1) * 127.5).round().to(torch.uint8)

    clip = small_clip()
    label = f"small CLIP {weights_hash(clip.module)}, {count} rendered scenes"
    return Reference(CLIPImages(clip), label, render, cache=Path(cache))


def fid(name: str = "fid_miniature", reference: int = 10_000, cache: str = "outputs/cache") -> "FID":
    """Creates the FID to rendered scenes.

    Args:
        name: Its name in rows.
        reference: Number of rendered scenes.
        cache: Folder that keeps what is computed from the reference.

    Returns:
        The metric.
    """
    from clockwork.metrics.fid import FID

    return FID(rendered_scenes(reference, cache), name)


def kid(name: str = "kid_miniature", reference: int = 10_000, cache: str = "outputs/cache") -> "KID":
    """Creates the KID to rendered scenes. Arguments as in `fid`."""
    from clockwork.metrics.kid import KID

    return KID(rendered_scenes(reference, cache), name)


def cmmd(name: str = "cmmd_miniature", reference: int = 10_000, cache: str = "outputs/cache") -> "CMMD":
    """Creates the CMMD to rendered scenes. Arguments as in `fid`."""
    from clockwork.metrics.cmmd import CMMD

    return CMMD(rendered_scenes(reference, cache), name)


def prdc(name: str, figure: str, reference: int = 10_000, cache: str = "outputs/cache") -> "Neighbours":
    """Creates one of precision, recall, density and coverage to rendered scenes.

    Args:
        name: Its name in rows.
        figure: `precision`, `recall`, `density` or `coverage`.
        reference: Number of rendered scenes.
        cache: Folder that keeps what is computed from the reference.

    Returns:
        The metric.
    """
    from clockwork.metrics.prdc import FIGURES

    return FIGURES[figure](rendered_scenes(reference, cache), name)


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
