"""The miniature as a teacher: its shipped pipelines and their text embedder, the small CLIP."""

from dataclasses import replace

import torch

from clockwork.miniature import WEIGHTS
from clockwork.teachers.shipped import ShippedModels
from clockwork.teachers.text_embedder import OpenCLIP

SHIPPED = ShippedModels(
    teachers={name: WEIGHTS / name for name in ("miniature", "miniature_sd")},
    text_embedder=OpenCLIP(f"local-dir:{WEIGHTS / 'clip'}", alias="miniature", half_on_gpu=False),
)


def small_clip(device: torch.device | str = "cpu", text_only: bool = False) -> OpenCLIP:
    """Returns the small CLIP, which embeds the text that adaptors read and computes the miniature's metrics.

    Args:
        device: Where it computes.
        text_only: Whether to load the text tower alone.

    Returns:
        The model, in float32 on every device.
    """
    return replace(SHIPPED.text_embedder, device=device, text_only=text_only)
