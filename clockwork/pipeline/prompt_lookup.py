"""Finds the prompts of a UNet call, for adaptors that read text.

A pipeline encodes its prompts once per call, and passes only the text features to the UNet. A hook on the text encoder
stores the token ids and the features of its last calls. The text features of a UNet call are compared with the stored
ones, prompt by prompt and bit by bit. Therefore an embedding never belongs to another image's prompt, and the prompts
of features that come from elsewhere (`prompt_embeds`, weighted prompts) are unknown.
"""

import copy
import threading
from collections import deque
from itertools import count
from typing import Any

import torch
from diffusers.hooks import ModelHook
from torch import Tensor, nn

from clockwork.pipeline.attach import HOOK_NAME
from clockwork.teachers.text_embedder import OpenCLIP

_HOOK_NUMBERS = count()
_LOADING_LOCK = threading.Lock()  # so that two threads that need a model at the same time load it once


class PromptHook(ModelHook):
    """A hook on a text encoder that stores what it encodes.

    Each hook has a name of its own, because several pipelines can share a text encoder.

    Args:
        tokenizer: The text encoder's tokenizer, which turns token ids back into the prompt.
        openclip: The model that embeds prompts for the adaptor.
        max_calls: How many of the text encoder's last calls are stored.
    """

    def __init__(self, tokenizer: Any, openclip: OpenCLIP, max_calls: int = 8) -> None:
        super().__init__()
        self.tokenizer, self.openclip, self.name = tokenizer, openclip, f"{HOOK_NAME} {next(_HOOK_NUMBERS)}"
        self._encoded: deque[tuple[Tensor, list[Tensor]]] = deque(maxlen=max_calls)
        self._thread = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> "PromptHook":
        """Copies the hook without the stored calls. The copy has the same `name`, as in a copied encoder's registry."""
        twin = PromptHook(copy.deepcopy(self.tokenizer, memo), self.openclip, self._encoded.maxlen or 0)
        twin.name = self.name
        return memo.setdefault(id(self), twin)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Stores the call's token ids; the arguments are returned unchanged."""
        self._thread.ids = args[0] if args else kwargs.get("input_ids")
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Stores the call's text features; the output is returned unchanged."""
        ids = self._thread.ids
        if isinstance(ids, Tensor):
            features = [output.last_hidden_state, *(getattr(output, "hidden_states", None) or ())]
            # not self: the forward of a copied encoder still refers to the original encoder's hook
            registry: Any = module._diffusers_hook
            hook = registry.get_hook(self.name)
            hook._encoded.append((ids.detach().cpu(), [feature.detach() for feature in features]))
        return output

    @torch.no_grad()
    def text_emb(self, prompt_embeds: Tensor) -> Tensor | None:
        """Embeds the prompts behind text features.

        Args:
            prompt_embeds: Text features as the UNet receives them, `batch × tokens × width`.

        Returns:
            OpenCLIP embeddings of the prompts in float32, `batch × width`; None if a prompt is unknown.
        """
        prompts = [self._find_prompt(features) for features in prompt_embeds]
        texts = [prompt for prompt in prompts if prompt is not None]
        if len(texts) < len(prompts):
            return None
        with _LOADING_LOCK:
            return self.openclip.to(prompt_embeds.device).encode_text(texts)

    def _find_prompt(self, prompt_features: Tensor) -> str | None:
        """Finds the prompt whose text features, `tokens × width`, are equal to the given ones."""
        if not prompt_features.any():  # SDXL uses zeros if there is no negative prompt
            return ""
        for ids, features in reversed(tuple(self._encoded)):  # a copy: another thread may append to it
            for layer_features in features:
                for i, stored in enumerate(layer_features.to(prompt_features)):
                    tokens, width = stored.shape
                    if tokens == prompt_features.shape[0] and torch.equal(stored, prompt_features[:, :width]):
                        text = str(self.tokenizer.decode(ids[i], skip_special_tokens=True))
                        return text.replace("</w>", " ").strip()  # a copied CLIP tokenizer does not do this
        return None
