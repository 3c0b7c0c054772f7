"""The sets of metrics a config can name."""

from collections.abc import Iterator
from pathlib import Path

import torch

from clockwork.evaluation.evaluate import Metrics
from clockwork.metrics.fid import FID
from clockwork.miniature import scenes
from clockwork.openclip import OpenCLIP
from clockwork.operating_point import digest
from clockwork.weights import weights_hash


def none(latency: bool = True) -> Metrics:
    """Pictures, PSNR, SSIM, FLOPs, and latency if wished."""
    return Metrics(latency=latency)


def miniature(reference: int = 10_000, latency: bool = True, cache: str = "outputs/cache") -> Metrics:
    """FID to `reference` rendered scenes and CLIP score, both through the small CLIP."""
    clip = OpenCLIP.miniature()
    label = f"small CLIP {weights_hash(clip.module)}, {reference} rendered scenes"

    def render() -> Iterator[torch.Tensor]:
        for start in range(0, reference, 100):
            images = scenes.batch("validation", start, min(100, reference - start))[1]
            yield ((images + 1) * 127.5).round().to(torch.uint8)

    width = clip.encode_text([""]).shape[-1]
    kept = Path(cache) / f"fid-{digest(label)}.npz"
    return Metrics(FID(clip.encode_image, width, label, render, kept), clip, latency, miniature=True)
