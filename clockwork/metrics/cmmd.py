"""CMMD: maximum mean discrepancy of CLIP embeddings with a Gaussian kernel (Jayasumana et al., arXiv 2401.09603)."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from clockwork.io.device import choose_device
from clockwork.metrics.clip_score import CLIPImages
from clockwork.metrics.fid import folder_reference
from clockwork.metrics.mmd import MMD
from clockwork.metrics.reference import Reference
from clockwork.teachers.text_embedder import OpenCLIP

SIGMA, SCALE = 10.0, 1000.0  # of the paper


class CMMD(MMD):
    """CMMD against a reference set, times 1000.

    The paper's code computes a biased estimate, which is larger by up to 2000 / n for n images; this one is unbiased.

    Args:
        reference: What the images are compared with, through the image encoder of a CLIP model.
        name: Its name in rows.
    """

    scale = SCALE

    def __init__(self, reference: Reference, name: str = "cmmd") -> None:
        super().__init__(reference, name)

    @staticmethod
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        """CMMD's kernel, `exp(−‖a − b‖² / 2σ²)` of embeddings of unit length, σ = 10. Arguments as in `MMD.kernel`."""
        squares = 2 - 2 * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).mT
        return torch.exp(-squares / (2 * SIGMA**2))


def open_clip_cmmd(
    reference: str,
    cmmd_clip: str = "ViT-L-14-336",
    cmmd_clip_tag: str | None = "openai",
    name: str = "cmmd",
    cache: str = "outputs/cache",
    device: str = "auto",
) -> CMMD:
    """Creates the CMMD of an open_clip model to a folder of real images.

    Args:
        reference: Folder of the reference images.
        cmmd_clip: open_clip's name (the paper's is `ViT-L-14-336`), or `local-dir:` and a folder in its format.
        cmmd_clip_tag: open_clip's name of the weights.
        name: Its name in rows.
        cache: Folder of the features of the reference.
        device: Where it computes: `auto`, or a torch device.

    Returns:
        The metric.
    """
    return CMMD(open_clip_reference(reference, cmmd_clip, cmmd_clip_tag, cache, device), name)


@lru_cache(maxsize=1)
def open_clip_reference(reference: str, clip: str, clip_tag: str | None, cache: str, device: str) -> Reference:
    """Creates the reference of metrics that look through an open_clip model.

    Args:
        reference: Folder of the reference images.
        clip: open_clip's name, or `local-dir:` and a folder in its format.
        clip_tag: open_clip's name of the weights.
        cache: Folder of the features of the reference.
        device: Where the model computes: `auto`, or a torch device.

    Returns:
        The reference.
    """
    model = OpenCLIP(clip, clip_tag, choose_device(device))
    model.require_weights()
    return folder_reference(CLIPImages(model), f"CLIP {model.identity}", reference, model.image_size, cache)
