"""Training of the small CLIP that computes the miniature's metrics."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

from clockwork.miniature.training.module import MiniatureModule, tokens


class CLIPModule(MiniatureModule):
    """Trains the small CLIP with the symmetric contrastive loss (Radford et al. 2021).

    Args:
        clip: An open_clip model.
        words: Its tokenizer.
        **optimisation: Arguments of `MiniatureModule`.
    """

    def __init__(self, clip: Any, words: CLIPTokenizer, **optimisation: Any) -> None:
        super().__init__(**optimisation)
        self.clip, self.words = clip, words

    def training_step(self, _: int) -> Tensor:
        """Computes the loss, and logs the share of images whose own caption scores highest in the batch."""
        captions, images = self.scenes()
        image_features = F.normalize(self.clip.encode_image(enlarged(images)), dim=-1)
        text_features = F.normalize(self.clip.encode_text(tokens(self.words, captions).to(self.device)), dim=-1)
        logits = self.clip.logit_scale.exp().clamp(max=100) * image_features @ text_features.T
        target = torch.arange(len(captions), device=self.device)
        self.log("retrieval", (logits.argmax(1) == target).float().mean(), prog_bar=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def enlarged(images: Tensor) -> Tensor:
    """Resizes scenes to the small CLIP's input size, as `OpenCLIP.encode_image` does.

    Args:
        images: Images in [−1, 1], `batch × 3 × IMAGE_SIZE × IMAGE_SIZE`.

    Returns:
        Images of twice the side.
    """
    return F.interpolate(images, scale_factor=2, mode="bicubic", antialias=True).clamp(-1, 1)
