"""OpenCLIP models: text embeddings for adaptors, and text and image features for metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clockwork.errors import MissingFileError, UserError, import_extra
from clockwork.io.fingerprint import weights_hash
from clockwork.io.foreign import read_json
from clockwork.teachers.shipped import shipped_text_embedder


@dataclass(frozen=True)
class OpenCLIP:
    """An open_clip model. It is loaded when it is first used; objects with equal arguments share its weights.

    Args:
        name: open_clip's name, or `local-dir:` followed by a folder with `open_clip_config.json`.
        tag: open_clip's name of the weights.
        device: The device.
        text_only: Whether the image encoder is removed after loading.
        alias: Name of a model that ships with the package, by which saved adaptors refer to it; None for others.
        half_on_gpu: Whether it computes in float16 on a CUDA GPU.
    """

    name: str
    tag: str | None = None
    device: torch.device | str = "cpu"
    text_only: bool = False
    alias: str | None = None
    half_on_gpu: bool = True

    @classmethod
    def from_config(cls, config: Mapping[str, str | None]) -> "OpenCLIP":
        """Creates the text encoder that an adaptor's config describes.

        Args:
            config: The model's `config` when the adaptor was saved.
        """
        if not isinstance(config.get("name"), str):
            raise UserError("the adaptor's config.json names no OpenCLIP model under openclip: save the adaptor again")
        shipped = shipped_text_embedder(config["name"])
        if shipped is not None:
            return replace(shipped, text_only=True)
        return cls(str(config["name"]), config.get("tag"), text_only=True)

    @property
    def config(self) -> dict[str, str | None]:
        """Name and tag for an adaptor's `config.json`, the same on every machine."""
        return {"name": self.alias or self.name, "tag": self.tag}

    @property
    def label(self) -> str:
        """Name, tag and precision, for rows."""
        name = f"{self.name} {self.tag}" if self.tag else Path(self.name).name
        return name if self.precision == torch.float32 else f"{name} {str(self.precision).removeprefix('torch.')}"

    @property
    def identity(self) -> str:
        """Everything that changes the embeddings: the label, and for a folder also the weights' fingerprint."""
        return f"{self.label} {_weights_hash(self)}" if self.name.startswith("local-dir:") else self.label

    @property
    def precision(self) -> torch.dtype:
        """float16 on a CUDA GPU if `half_on_gpu`, else float32."""
        half = torch.device(self.device).type == "cuda" and self.half_on_gpu
        return torch.float16 if half else torch.float32

    @property
    def width(self) -> int:
        """Width of the embeddings, read from the config without loading the model."""
        return _width(self.name)

    @property
    def image_size(self) -> int:
        """Side of the images that it reads, in pixels."""
        return self._load()[1]

    @property
    def module(self) -> torch.nn.Module:
        """The open_clip model itself."""
        model: torch.nn.Module = self._load()[0]
        return model

    def require_weights(self) -> None:
        """Downloads the weights if they are neither in a folder nor in the cache, without loading them.

        Raises:
            MissingFileError: There are no such weights, or no network to download them.
        """
        open_clip = import_extra("open_clip", "eval")
        if self.name.startswith("local-dir:"):
            folder = Path(self.name.removeprefix("local-dir:"))
            if not (folder / "open_clip_config.json").is_file():
                raise MissingFileError(
                    f"no open_clip model at {folder}, it has no open_clip_config.json: pass its folder"
                )
        elif self.tag is not None and not Path(self.tag).is_file():
            source = open_clip.get_pretrained_cfg(self.name, self.tag)
            if not source:
                raise MissingFileError(
                    f"open_clip has no weights {self.tag!r} of {self.name!r}: see its list_pretrained()"
                )
            try:
                open_clip.download_pretrained(source)
            except (OSError, RuntimeError, ValueError) as error:
                hub = source.get("hf_hub", "").rstrip("/")
                origin = f"`hf download {hub} --local-dir DIR`" if hub else f"{source.get('url')}"
                raise MissingFileError(
                    f"no weights {self.tag} of CLIP {self.name}, and no network to download them: get {origin} where "
                    "there is one, and pass the model as local-dir:<its folder>, with its tag null"
                ) from error

    def to(self, device: torch.device | str) -> "OpenCLIP":
        """Returns the same model on another device.

        Args:
            device: The device.
        """
        return replace(self, device=device)

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeds texts.

        Args:
            texts: The texts.

        Returns:
            Embeddings of unit length in float32, `batch × width`.
        """
        model, _, tokenize = self._load()
        return F.normalize(model.encode_text(tokenize(texts).to(self.device)).float(), dim=-1)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Embeds images.

        Args:
            images: 8-bit images, `batch × 3 × height × width`.

        Returns:
            Embeddings in float32, not normalised, `batch × width`.
        """
        model, size, _ = self._load()
        pixels = images.to(self.device).float() / 255
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (
            torch.tensor(v, device=self.device)[:, None, None]
            for v in (model.visual.image_mean, model.visual.image_std)
        )
        features: Tensor = model.encode_image(((pixels - mean) / std).to(self.precision))
        return features.float()

    def _load(self) -> tuple[Any, int, Any]:
        """Returns the model, the side of its images in pixels and its tokenizer."""
        return _load(self.name, self.tag, _with_index(self.device), self.precision, self.text_only)


def _with_index(device: torch.device | str) -> torch.device:
    """Returns equal objects for equal devices: `cuda:0` for `cuda`, and `cpu` for `cpu:0`."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    return torch.device(device.type)


@lru_cache(maxsize=4)
def _load(
    name: str, tag: str | None, device: torch.device, precision: torch.dtype, text_only: bool
) -> tuple[Any, int, Any]:
    """Loads a model. Returns it with the side of its images in pixels and its tokenizer."""
    open_clip = import_extra("open_clip", "eval")

    model = open_clip.create_model(name, pretrained=tag).eval().requires_grad_(False)
    size = model.visual.image_size
    if text_only:
        del model.visual
    model.to(device, precision)
    return model, size if isinstance(size, int) else size[0], open_clip.get_tokenizer(name)


@lru_cache
def _weights_hash(embedder: OpenCLIP) -> str:
    """Returns the fingerprint of a model's weights."""
    return weights_hash(embedder.module)


@lru_cache
def _width(name: str) -> int:
    """Reads the width of a model's embeddings from its config."""
    if name.startswith("local-dir:"):
        file = Path(name.removeprefix("local-dir:")) / "open_clip_config.json"
        if not file.is_file():
            raise MissingFileError(f"no open_clip model at {file.parent}, it has no {file.name}: pass its folder")
        model = read_json(file).get("model_cfg")
        width = model.get("embed_dim") if isinstance(model, dict) else None
        if type(width) is not int:
            raise UserError(f"{file} has no model_cfg.embed_dim: use a folder of open_clip")
        return width
    config = import_extra("open_clip", "eval").get_model_config(name)
    if config is None:
        raise MissingFileError(f"open_clip has no model {name!r}: see its list_models(), or name local-dir:<a folder>")
    return int(config["embed_dim"])
