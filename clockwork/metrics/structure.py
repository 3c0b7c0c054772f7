"""Structure distance: how far the layouts of two images are apart, whatever their colours (Splice, arXiv 2201.00424).

An image's structure is the cosine of every pair of its patches' features; the distance of two images is the mean
squared difference. The network of the published figures is a DINO ViT, seen through the keys of its last layer.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clockwork.errors import MissingFileError, import_extra
from clockwork.io.device import choose_device
from clockwork.metrics.base import Batch, MeanMetric
from clockwork.metrics.numerics import require_finite_features

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Structure(MeanMetric):
    """Mean structure distance of edited images to their sources: 0 where the structure is the same.

    Args:
        label: How rows describe the network.
        features: Computes features `batch × patches × width` of 8-bit images `batch × 3 × height × width`.
        name: Its name in rows.
    """

    def __init__(self, label: str, features: Callable[[Tensor], Tensor], name: str = "dino_distance") -> None:
        super().__init__(name)
        self.label, self.features = label, features

    @property
    def description(self) -> str:
        return f"structure {self.label}"

    def values(self, batch: Batch) -> Tensor:
        assert batch.source_images is not None
        difference = self._self_similarity(batch.images) - self._self_similarity(batch.source_images)
        return difference.square().mean((1, 2))

    def _self_similarity(self, images: Tensor) -> Tensor:
        """Computes the cosines of an image's patches."""
        return self_similarity(require_finite_features(self.features(images), f"structure {self.label}"))


def self_similarity(features: Tensor) -> Tensor:
    """Cosines `batch × patches × patches` of features `batch × patches × width`."""
    unit = F.normalize(features.float(), dim=-1)
    return unit @ unit.mT


def dino_distance(
    dino: str = "vit_base_patch8_224.dino", device: str = "auto", name: str = "dino_distance"
) -> Structure:
    """Creates the structure distance of a DINO ViT: keys of the last layer, all heads and tokens, as in Splice.

    Args:
        dino: A name of timm's, downloaded if it is missing (`vit_small_patch8_224.dino` for ViT-S/8), or a folder in
            timm's format (`config.json`, `model.safetensors`). Images are resized to the model's input size.
        device: Where it computes: `auto`, or a torch device.
        name: The metric's name in rows.

    Returns:
        The metric.

    Raises:
        MissingFileError: If the folder does not exist or has another format.
    """
    timm = import_extra("timm", "eval")
    folder = Path(dino)
    if "/" in dino and not (folder / "config.json").is_file():
        raise MissingFileError(
            f"{dino} is not a timm folder, it has no config.json: download one with `hf download "
            "timm/vit_base_patch8_224.dino --local-dir DIR` where there is a network, or pass a timm name"
        )
    at = choose_device(device)
    model = f"local-dir:{folder}" if folder.is_dir() else dino
    vit = timm.create_model(model, pretrained=True, num_classes=0).to(at).eval().requires_grad_(False)
    return Structure(f"{folder.name} {vit.patch_embed.img_size[0]}", _last_keys(vit, at), name)


def _last_keys(vit: Any, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Returns a function that computes the keys in the last layer of a ViT, of all heads."""
    size, (mean, std) = vit.patch_embed.img_size, (torch.tensor(v, device=device)[:, None, None] for v in IMAGENET)

    @torch.no_grad()
    def keys(images: Tensor) -> Tensor:
        pixels = F.interpolate(images.to(device).float() / 255, size=size, mode="bilinear", antialias=True)
        projected = output_of(vit.blocks[-1].attn.qkv, lambda: vit((pixels - mean) / std))
        return projected.chunk(3, dim=-1)[1]  # queries, keys, values

    return keys


def output_of(module: nn.Module, run: Callable[[], Any]) -> Tensor:
    """Runs a network and returns what one of its modules computes.

    Args:
        module: The module.
        run: Runs the network, and in it the module.

    Returns:
        The module's output.
    """
    outputs: list[Tensor] = []
    with module.register_forward_hook(lambda *call: outputs.append(call[-1])):
        run()
    return outputs[-1]
