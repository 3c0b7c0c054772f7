"""Structure distance: how far two pictures' layouts are apart, whatever their colours (Splice, arXiv 2201.00424).

A picture's structure is the cosine of every pair of its patches, as a network sees them; the distance of two is the
mean squared difference. The network of the published figures is a DINO ViT, seen through the keys of its last layer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clockwork.errors import MissingFileError, import_extra
from clockwork.io.device import choose_device
from clockwork.metrics.numerics import require_finite_features

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Structure:
    """`features` turns 8-bit images `batch × 3 × height × width` into `batch × patches × width`."""

    label: str
    features: Callable[[Tensor], Tensor]

    def __call__(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Mean over pairs of 8-bit batches: 0 where the structure is the same."""
        total, count = 0.0, 0
        for ours, theirs in pairs:
            difference = self._self_similarity(ours) - self._self_similarity(theirs)
            total += float(difference.square().mean((1, 2)).sum())
            count += len(ours)
        return total / count

    def _self_similarity(self, images: Tensor) -> Tensor:
        return self_similarity(require_finite_features(self.features(images), f"structure {self.label}"))


def self_similarity(features: Tensor) -> Tensor:
    """Cosines `batch × patches × patches` of features `batch × patches × width`."""
    unit = F.normalize(features.float(), dim=-1)
    return unit @ unit.mT


def dino(model: str = "vit_base_patch8_224.dino", device: str = "auto") -> Structure:
    """Keys of the last layer of a DINO ViT, all heads, the class token's too, as Splice takes them.

    `model` is a timm name, downloaded where it is missing (`vit_small_patch8_224.dino` for ViT-S/8), or a folder in
    timm's format (`config.json`, `model.safetensors`). Pictures are seen at the model's own size.
    """
    timm = import_extra("timm", "eval")

    folder = Path(model)
    if "/" in model and not (folder / "config.json").is_file():
        raise MissingFileError(
            f"{model} is no timm folder: it has no config.json; download one with `hf download "
            "timm/vit_base_patch8_224.dino --local-dir DIR` where there is a network, or give a timm name"
        )
    at = choose_device(device)
    name = f"local-dir:{folder}" if folder.is_dir() else model
    vit = timm.create_model(name, pretrained=True, num_classes=0).to(at).eval().requires_grad_(False)
    size, (mean, std) = vit.patch_embed.img_size, (torch.tensor(v, device=at)[:, None, None] for v in IMAGENET)
    kept: list[Tensor] = []

    @torch.no_grad()
    def keys(images: Tensor) -> Tensor:
        pixels = F.interpolate(images.to(at).float() / 255, size=size, mode="bilinear", antialias=True)
        hook = vit.blocks[-1].attn.qkv.register_forward_hook(lambda *call: kept.append(call[-1]))
        try:
            vit((pixels - mean) / std)
        finally:
            hook.remove()
        return kept.pop().chunk(3, dim=-1)[1]  # queries, keys, values: each of all heads

    return Structure(f"{folder.name} {size[0]}", keys)
