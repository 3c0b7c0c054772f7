"""ImageReward: how well people would like an image of a prompt (Xu et al. 2023, arXiv 2304.05977).

The network is a BLIP, an image encoder that a text encoder attends to, with a linear head. transformers has both parts;
the authors' package needs transformers 4 and an old timm.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from clockwork.errors import MissingFileError
from clockwork.io.device import choose_device
from clockwork.io.fingerprint import file_hash
from clockwork.metrics.base import Batch, MeanMetric
from clockwork.metrics.numerics import exact_convolutions, require_finite_features

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of rewards in the authors' data
TOKENS = 35  # at most
FILES = ("ImageReward.pt", "med_config.json", "vocab.txt")
RENAMED = (  # the authors' names of the image encoder's layers, and transformers'
    (r"^cls_token", "embeddings.class_embedding"),
    (r"^pos_embed", "embeddings.position_embedding"),
    (r"^patch_embed\.proj", "embeddings.patch_embedding"),
    (r"^blocks\.(\d+)\.norm", r"encoder.layers.\1.layer_norm"),
    (r"^blocks\.(\d+)\.attn\.proj", r"encoder.layers.\1.self_attn.projection"),
    (r"^blocks\.(\d+)\.attn\.", r"encoder.layers.\1.self_attn."),
    (r"^blocks\.", "encoder.layers."),
    (r"^norm\.", "post_layernorm."),
)


class ImageReward(MeanMetric):
    """Mean ImageReward.

    Args:
        folder: Holds `ImageReward.pt` and `med_config.json` of the authors, and BERT's `vocab.txt`.
        name: Its name in rows.
        device: Where it computes: `auto`, or a torch device.

    Raises:
        MissingFileError: A file is missing.
    """

    def __init__(
        self, folder: str = "outputs/cache/ImageReward", name: str = "image_reward", device: str = "auto"
    ) -> None:
        from transformers import BertTokenizer

        if missing := [file for file in FILES if not (Path(folder) / file).is_file()]:
            raise MissingFileError(
                f"no {' and '.join(missing)} in {folder}: download them with `hf download THUDM/ImageReward "
                f"ImageReward.pt med_config.json --local-dir {folder}` and `hf download google-bert/bert-base-uncased "
                f"vocab.txt --local-dir {folder}` where there is a network, or pass metrics.image_reward=<their folder>"
            )
        weights = torch.load(Path(folder) / FILES[0], map_location="cpu", weights_only=True)
        self.device = choose_device(device)
        self.image_encoder, side = _image_encoder(_below(weights, "blip.visual_encoder."))
        config = json.loads((Path(folder) / FILES[1]).read_text())
        self.text_encoder = _text_encoder(_below(weights, "blip.text_encoder."), config)
        self.head = _head(_below(weights, "mlp.layers."))
        for module in (self.image_encoder, self.text_encoder, self.head):
            module.to(self.device).eval().requires_grad_(False)
        self.tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
        self.label = f"BLIP {file_hash(Path(folder) / FILES[0])}"
        super().__init__(name, side)

    @property
    def description(self) -> str:
        return f"ImageReward {self.label}"

    @torch.no_grad()
    def values(self, batch: Batch) -> Tensor:
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        pixels = (batch.images_at(self.size).to(self.device).float() / 255 - mean) / std
        padded = {"padding": "max_length", "truncation": True, "max_length": TOKENS, "return_tensors": "pt"}
        tokens = self.tokenizer(list(batch.captions or ()), **padded).to(self.device)
        with exact_convolutions():
            patches = self.image_encoder(pixels).last_hidden_state
        text = self.text_encoder(tokens.input_ids, tokens.attention_mask, encoder_hidden_states=patches)
        rewards = (self.head(text.last_hidden_state[:, 0]).flatten() - MEAN) / STD
        return require_finite_features(rewards, self.description)


def image_reward(
    image_reward: str = "outputs/cache/ImageReward", name: str = "image_reward", device: str = "auto"
) -> ImageReward:
    """Creates ImageReward.

    Args:
        image_reward: Folder of its files, as in `ImageReward`.
        name: Its name in rows.
        device: Where it computes: `auto`, or a torch device.

    Returns:
        The metric.
    """
    return ImageReward(image_reward, name, device)


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Weights whose name starts with a prefix, without it."""
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _image_encoder(weights: Mapping[str, Tensor]) -> tuple[Any, int]:
    """Creates the image encoder, whose sizes are read from its weights. Returns the side of its images, too."""
    from transformers import BlipVisionConfig
    from transformers.models.blip.modeling_blip import BlipVisionModel

    positions, width = weights["pos_embed"].shape[1:]
    patch = weights["patch_embed.proj.weight"].shape[-1]
    side = patch * round((positions - 1) ** 0.5)
    config = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(weights["blocks.0.mlp.fc1.weight"]),
        num_hidden_layers=len([name for name in weights if name.endswith("norm1.weight")]),
        num_attention_heads=width // 64,
        image_size=side,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    encoder, renamed = BlipVisionModel(config), dict(weights)
    for pattern, name in RENAMED:
        renamed = {re.sub(pattern, name, key): weight for key, weight in renamed.items()}
    encoder.load_state_dict(renamed)
    return encoder, side


def _text_encoder(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> Any:
    """Creates the text encoder from its weights and the authors' config."""
    from transformers import BlipTextConfig
    from transformers.models.blip.modeling_blip import BlipTextModel

    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = {name: config[name] for name in (*names, "max_position_embeddings", "layer_norm_eps", "hidden_act")}
    width = weights["encoder.layer.0.crossattention.self.key.weight"].shape[1]
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "sep_token_id"))
    encoder = BlipTextModel(BlipTextConfig(**sizes, **ids, encoder_hidden_size=width), add_pooling_layer=False)
    encoder.load_state_dict({name: weight for name, weight in weights.items() if not name.endswith("position_ids")})
    return encoder


def _head(weights: Mapping[str, Tensor]) -> nn.Sequential:
    """Creates the head: linear layers, with dropout between them in training only."""
    numbers = sorted({int(name.split(".")[0]) for name in weights})
    shapes = [weights[f"{number}.weight"].shape for number in numbers]
    layers = nn.Sequential(*(nn.Linear(inputs, outputs) for outputs, inputs in shapes))
    values = [weights[f"{number}.{kind}"] for number in numbers for kind in ("weight", "bias")]
    layers.load_state_dict(dict(zip(layers.state_dict(), values, strict=True)))
    return layers
