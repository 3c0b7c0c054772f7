"""The text that adaptors read: which prompt lies behind a UNet call is found by the text features it got.

A pipeline turns prompts into features once per call and passes only these on. The hook on its text encoder keeps the
last token ids with the features they gave; a UNet call's features are looked up among them, prompt by prompt and bit by
bit. So an embedding never belongs to another image's prompt, and features from elsewhere (given embeddings, weighted
prompts) are not found.
"""

import copy
import threading
from collections import deque
from itertools import count
from typing import Any

import torch
from diffusers.hooks import ModelHook
from torch import Tensor, nn

from clockwork.pipeline.attach import NAME
from clockwork.teachers.text_embedder import OpenCLIP

_NUMBERS = count()
_LOADING = threading.Lock()  # two threads that need a model at once load it once


class PromptHook(ModelHook):
    """On the text encoder, next to those of other pipelines that share it: each has a name of its own.

    Args:
        tokenizer: Turns ids back into the prompt.
        openclip: Embeds it.
        keep: How many of the text encoder's calls are kept.
    """

    def __init__(self, tokenizer: Any, openclip: OpenCLIP, keep: int = 8) -> None:
        super().__init__()
        self.tokenizer, self.openclip, self.name = tokenizer, openclip, f"{NAME} {next(_NUMBERS)}"
        self._encoded: deque[tuple[Tensor, list[Tensor]]] = deque(maxlen=keep)
        self._thread = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> "PromptHook":
        """Without what was encoded; `name` stays, as it does in a copied encoder's registry."""
        twin = PromptHook(copy.deepcopy(self.tokenizer, memo), self.openclip, self._encoded.maxlen or 0)
        twin.name = self.name
        return memo.setdefault(id(self), twin)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._thread.ids = args[0] if args else kwargs.get("input_ids")
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        ids = self._thread.ids
        if isinstance(ids, Tensor):
            features = [output.last_hidden_state, *(getattr(output, "hidden_states", None) or ())]
            # not self: a copied encoder's forward still names the first one's hook
            registry: Any = module._diffusers_hook
            hook = registry.get_hook(self.name)
            hook._encoded.append((ids.detach().cpu(), [feature.detach() for feature in features]))
        return output

    @torch.no_grad()
    def text_emb(self, tokens: Tensor) -> Tensor | None:
        """The prompts' OpenCLIP embeddings in float32, `batch × width`, for text features `tokens`, `batch × tokens ×
        width`; None where a prompt is not known."""
        prompts = [self._prompt(features) for features in tokens]
        known = [prompt for prompt in prompts if prompt is not None]
        if len(known) < len(prompts):
            return None
        with _LOADING:
            return self.openclip.to(tokens.device).encode_text(known)

    def _prompt(self, row: Tensor) -> str | None:
        if not row.any():  # SDXL's features of no negative prompt
            return ""
        for ids, features in reversed(tuple(self._encoded)):  # a copy: another thread may add to it
            for feature in features:
                for i, found in enumerate(feature.to(row)):
                    width = found.shape[-1]
                    if found.shape[0] == row.shape[0] and torch.equal(found, row[:, :width]):
                        text = str(self.tokenizer.decode(ids[i], skip_special_tokens=True))
                        return text.replace("</w>", " ").strip()  # which a copied CLIP tokenizer forgets to do
        return None
