"""The miniature's metrics, all of them through the small CLIP, with names of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clockwork.editing import measure
from clockwork.evaluation.scores import Metrics
from clockwork.io import distributed
from clockwork.io.fingerprint import digest, weights_hash
from clockwork.metrics.fid import FID
from clockwork.metrics.structure import Structure
from clockwork.miniature import scenes
from clockwork.miniature.teacher import small_clip


def text_to_image(reference: int = 10_000, latency: bool = True, cache: str = "outputs/cache") -> Metrics:
    """FID to `reference` rendered scenes and CLIP score, both through the small CLIP."""
    clip = small_clip()
    label = f"small CLIP {weights_hash(clip.module)}, {reference} rendered scenes"

    def render() -> Iterator[torch.Tensor]:
        for start in distributed.share(range(0, reference, 100)):
            images = scenes.render_batch("validation", start, min(100, reference - start))[1]
            yield ((images + 1) * 127.5).round().to(torch.uint8)

    width = clip.encode_text([""]).shape[-1]
    kept = Path(cache) / f"fid-{digest(label)}.npz"
    return Metrics(FID(clip.encode_image, width, label, render, kept), clip, latency, miniature=True)


def editing(reconstruction: bool = True) -> measure.Metrics:
    """CLIP score and structure distance through the small CLIP."""
    clip = small_clip()
    kept: list[Tensor] = []
    vision: Any = clip.module.visual

    def features(images: Tensor) -> Tensor:
        hook = vision.layer2.register_forward_hook(lambda *call: kept.append(call[-1]))
        try:
            clip.encode_image(images)
        finally:
            hook.remove()
        return kept.pop().flatten(2).mT

    return measure.Metrics(clip, Structure("small CLIP, second stage", features), reconstruction, miniature=True)
