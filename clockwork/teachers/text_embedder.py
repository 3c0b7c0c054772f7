"""OpenCLIP models: the pooled text that adaptors read, and the features that metrics look through."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clockwork.miniature import WEIGHTS


class OpenCLIP:
    """An open_clip model by name and tag, or from a folder with `open_clip_config.json`.

    Loaded once, when first asked; `device` may be changed until then.
    """

    def __init__(self, name: str, tag: str | None = None, device: torch.device | str = "cpu") -> None:
        self.name, self.tag, self.device = name, tag, torch.device(device)

    @classmethod
    def miniature(cls) -> "OpenCLIP":
        return cls(f"local-dir:{WEIGHTS / 'clip'}")

    @classmethod
    def from_config(cls, config: Mapping[str, str | None]) -> "OpenCLIP":
        """From what `config` gave."""
        name = config["name"]
        return cls.miniature() if name in (None, "miniature") else cls(str(name), config.get("tag"))

    @property
    def config(self) -> dict[str, str | None]:
        """What an adaptor's folder says of it: the same on every machine."""
        shipped = self.name == self.miniature().name
        return {"name": "miniature" if shipped else self.name, "tag": self.tag}

    @property
    def label(self) -> str:
        """What a row says of it."""
        return f"{self.name} {self.tag}" if self.tag else Path(self.name).name

    @property
    def module(self) -> torch.nn.Module:
        model: torch.nn.Module = self._load()[0]
        return model

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Unit vectors `batch × width`."""
        model, _, tokenize = self._load()
        return F.normalize(model.encode_text(tokenize(texts).to(self.device)), dim=-1)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Features `batch × width` of 8-bit images `batch × 3 × height × width`; not normalised."""
        model, size, _ = self._load()
        pixels = images.to(self.device).float() / 255
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (
            torch.tensor(v, device=self.device)[:, None, None]
            for v in (model.visual.image_mean, model.visual.image_std)
        )
        return model.encode_image((pixels - mean) / std)

    def _load(self) -> tuple[Any, int, Any]:
        return _load(self.name, self.tag, self.device)


@lru_cache(maxsize=2)
def _load(name: str, tag: str | None, device: torch.device) -> tuple[Any, int, Any]:
    import open_clip

    model = open_clip.create_model(name, pretrained=tag, device=device).eval().requires_grad_(False)
    size = model.visual.image_size
    return model, size if isinstance(size, int) else size[0], open_clip.get_tokenizer(name)
