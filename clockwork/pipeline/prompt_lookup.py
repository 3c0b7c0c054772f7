"""Pooled text for adaptors that read it: which prompt lies behind a UNet call is found by the text features it got.

A pipeline turns prompts into features once a call and hands only these on. The hook on its text encoder keeps the last
token ids with the features they gave; a UNet call's features are looked up among them, row by row and bit by bit. So
an embedding never belongs to another image's prompt, and features from elsewhere (given embeddings, weighted prompts)
are simply not found.
"""

import copy
import threading
from collections import deque
from typing import Any

import torch
from diffusers.hooks import ModelHook
from torch import Tensor, nn

from clockwork.pipeline.attach import NAME
from clockwork.teachers.text_embedder import OpenCLIP


class PromptHook(ModelHook):
    """On the text encoder. `tokenizer` turns ids back into the prompt that `openclip` embeds."""

    def __init__(self, tokenizer: Any, openclip: OpenCLIP, keep: int = 8) -> None:
        super().__init__()
        self.tokenizer, self.openclip = tokenizer, openclip
        self._encoded: deque[tuple[Tensor, list[Tensor]]] = deque(maxlen=keep)
        self._thread = threading.local()
        self._last: tuple[Any, Tensor | None] = (None, None)

    def __deepcopy__(self, memo: dict[int, Any]) -> "PromptHook":
        return PromptHook(copy.deepcopy(self.tokenizer, memo), self.openclip, self._encoded.maxlen or 0)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._thread.ids = args[0] if args else kwargs.get("input_ids")
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        ids = self._thread.ids
        if isinstance(ids, Tensor):
            features = [output.last_hidden_state, *(getattr(output, "hidden_states", None) or ())]
            # not self: a copied encoder's forward still names the first one's hook
            registry: Any = module._diffusers_hook
            hook = registry.get_hook(NAME)
            hook._encoded.append((ids.detach().cpu(), [feature.detach() for feature in features]))
        return output

    @torch.no_grad()
    def pooled(self, tokens: Tensor, sample: Tensor) -> Tensor | None:
        """`batch × width` for `tokens`, `batch × tokens × width`; None where a row's prompt is not known."""
        seen, embedding = self._last
        if tokens is not seen:
            prompts = [self._prompt(row) for row in tokens]
            known = [prompt for prompt in prompts if prompt is not None]
            embedding = None
            if len(known) == len(prompts):
                embedding = self.openclip.to(sample.device).encode_text(known).to(sample.device, sample.dtype)
            self._last = (tokens, embedding)
        return embedding

    def _prompt(self, row: Tensor) -> str | None:
        if not row.any():  # SDXL's features of no negative prompt
            return ""
        for ids, features in reversed(self._encoded):
            for feature in features:
                for i, found in enumerate(feature.to(row)):
                    width = found.shape[-1]
                    if found.shape[0] == row.shape[0] and torch.equal(found, row[:, :width]):
                        text = str(self.tokenizer.decode(ids[i], skip_special_tokens=True))
                        return text.replace("</w>", " ").strip()  # which a copied CLIP tokenizer forgets to do
        return None
