"""Running the chain in two parts, bit for bit `unet(...)` (paper, Section 4.1)."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers
from diffusers.utils.torch_utils import apply_freeu
from torch import Tensor

from clockwork.unet.chain import Chain, Cut, Layer


@dataclass(frozen=True)
class Embedded:
    """What every layer of one UNet call is conditioned on."""

    sample: Tensor  # batch × channels × height × width, as conv_in takes it
    t_emb: Tensor  # batch × time width: the UNet's own time embedding, with added conditions
    text: Any  # batch × tokens × width; with an image prompt a tuple of it and the image's tokens
    attention: dict[str, Any]  # what attentions take besides
    lora_scale: float = 1.0
    controlnet: tuple[Tensor, ...] = ()  # one a skip
    controlnet_middle: Tensor | None = None
    t2i: tuple[Tensor, ...] = ()  # one a down block, and perhaps one for the middle
    forced_sizes: bool = False  # an odd latent: upsamplers must hit the next skip's size


@dataclass(frozen=True)
class HighIn:
    """What the kept down layers hand on."""

    r_in: Tensor  # batch × channels × height × width: leaves the last kept down layer
    skips: tuple[Tensor, ...] = field(repr=False)  # conv_in's output, then each kept down layer's


class SplitUNet:
    """A UNet in two parts: high-res (`high_in`, `high_out`) and low-res (`low`), which an adaptor can replace.

    `high_out(low(high_in(e), e), high_in(e), e)` with `e = embed(...)` equals `unet(...)` bit for bit at every cut.
    Holds a reference to the UNet and owns nothing; never put into eval, train or on a device by itself.
    """

    def __init__(self, unet: UNet2DConditionModel, cut: Cut | str = "stage1") -> None:
        self.unet, self.chain = unet, Chain.of(unet)
        self.cut = Cut.named(cut, self.chain) if isinstance(cut, str) else cut
        self.cut.check(self.chain)
        self._signature = inspect.signature(type(unet).forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The full pass: takes what `unet.forward` takes, gives its `sample`."""
        embedded = self.embed(*args, **kwargs)
        high = self.high_in(embedded)
        return self.high_out(self.low(high, embedded), high, embedded)

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the UNet computes."""
        dtype: torch.dtype = self.unet.conv_in.weight.dtype  # `unet.dtype` walks all modules: 0.5 ms per step
        return dtype if dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64) else self.unet.dtype

    def embed(self, *args: Any, **kwargs: Any) -> Embedded:
        """Takes the arguments of `UNet2DConditionModel.forward`."""
        call = self._signature.bind(self.unet, *args, **kwargs)
        call.apply_defaults()
        given, unet = call.arguments, self.unet
        sample, added = given["sample"], given["added_cond_kwargs"]
        forced = any(n % 2**unet.num_upsamplers for n in sample.shape[-2:])
        if unet.config.center_input_sample:
            sample = 2 * sample - 1.0
        t_emb = unet.time_embedding(
            unet.get_time_embed(sample=sample, timestep=given["timestep"]), given["timestep_cond"]
        )
        class_emb = unet.get_class_embed(sample=sample, class_labels=given["class_labels"])
        if class_emb is not None:
            t_emb = torch.cat([t_emb, class_emb], dim=-1) if unet.config.class_embeddings_concat else t_emb + class_emb
        aug_emb = unet.get_aug_embed(
            emb=t_emb, encoder_hidden_states=given["encoder_hidden_states"], added_cond_kwargs=added
        )
        if unet.config.addition_embed_type == "image_hint":
            aug_emb, hint = aug_emb
            sample = torch.cat([sample, hint], dim=1)
        t_emb = t_emb if aug_emb is None else t_emb + aug_emb
        text = unet.process_encoder_hidden_states(
            encoder_hidden_states=given["encoder_hidden_states"], added_cond_kwargs=added
        )
        attention, lora_scale = self._attention(given, sample.dtype)
        t_emb = t_emb if unet.time_embed_act is None else unet.time_embed_act(t_emb)
        return Embedded(sample, t_emb, text, attention, lora_scale, *_residuals(given), forced)

    def _attention(self, given: dict[str, Any], dtype: torch.dtype) -> tuple[dict[str, Any], float]:
        """What attentions take besides the text, and LoRA's scale, which is not for them."""
        extra = dict(given["cross_attention_kwargs"] or {})
        lora_scale = extra.pop("scale", 1.0)
        if extra.get("gligen") is not None:
            extra["gligen"] = {"objs": self.unet.position_net(**extra["gligen"])}
        attention = {
            "attention_mask": _bias(given["attention_mask"], dtype),
            "encoder_attention_mask": _bias(given["encoder_attention_mask"], dtype),
            "cross_attention_kwargs": extra if given["cross_attention_kwargs"] is not None else None,
        }
        return attention, lora_scale

    def high_in(self, e: Embedded) -> HighIn:
        with self._lora(e):
            sample = self.unet.conv_in(e.sample)
            return self._down(sample, (sample,), self.chain.down[: self.cut.down], e)

    def low(self, high: HighIn, e: Embedded) -> Tensor:
        """The low-res path: `r_out`, what enters the first kept up layer."""
        with self._lora(e):
            low = self._down(high.r_in, high.skips, self.chain.down[self.cut.down :], e)
            sample = low.r_in
            if self.chain.middle is not None:
                sample = self.chain.middle(sample, e.t_emb, encoder_hidden_states=e.text, **e.attention)
                spare = e.t2i[len(self.unet.down_blocks) :]
                if spare and spare[0].shape == sample.shape:  # T2I-Adapter-XL
                    sample = sample + spare[0]
            if e.controlnet_middle is not None:
                sample = sample + e.controlnet_middle
            return self._up(sample, low.skips, self.chain.up[: len(self.chain.up) - self.cut.up], e)

    def high_out(self, r_out: Tensor, high: HighIn, e: Embedded) -> Tensor:
        """The UNet's output, from the low-res path's or an adaptor's."""
        with self._lora(e):
            kept = self.chain.up[len(self.chain.up) - self.cut.up :]
            sample = self._up(r_out, high.skips[: self.cut.kept_skips(self.chain)], kept, e)
            if self.unet.conv_norm_out:
                sample = self.unet.conv_act(self.unet.conv_norm_out(sample))
            return self.unet.conv_out(sample)

    def _down(self, sample: Tensor, skips: tuple[Tensor, ...], layers: tuple[Layer, ...], e: Embedded) -> HighIn:
        for layer in layers:
            if layer.resnet is None:
                sample = layer.sampler(sample)
            else:
                sample = layer.resnet(sample, e.t_emb)
                if layer.attention is not None:
                    sample = layer.attention(sample, encoder_hidden_states=e.text, return_dict=False, **e.attention)[0]
            # T2I-Adapter's residual: before the downsampler where the block has attention, else after it.
            here = layer.last if getattr(layer.block, "has_cross_attention", False) else layer.ends
            if here and layer.index < len(e.t2i):
                sample = sample + e.t2i[layer.index]
            skips += (sample,)
        return HighIn(sample, skips)

    def _up(self, sample: Tensor, skips: tuple[Tensor, ...], layers: tuple[Layer, ...], e: Embedded) -> Tensor:
        skips_left = list(enumerate(skips))
        for layer in layers:
            if layer.resnet is None:
                size = skips_left[-1][1].shape[2:] if e.forced_sizes else None
                sample = layer.sampler(sample, size)
                continue
            i, skip = skips_left.pop()
            if e.controlnet:
                skip = skip + e.controlnet[i]
            b = layer.block
            freeu = {name: getattr(b, name, None) for name in ("s1", "s2", "b1", "b2")}
            if all(freeu.values()):  # it writes into its input: r_out must stay as it was
                ours = sample.clone()
                skip = ours if skip is sample else skip  # without a middle block diffusers writes into both
                sample, skip = apply_freeu(b.resolution_idx, ours, skip, **freeu)
            sample = layer.resnet(torch.cat([sample, skip], dim=1), e.t_emb)
            if layer.attention is not None:
                sample = layer.attention(sample, encoder_hidden_states=e.text, return_dict=False, **e.attention)[0]
        return sample

    @contextmanager
    def _lora(self, e: Embedded) -> Iterator[None]:
        if not USE_PEFT_BACKEND or e.lora_scale == 1.0:
            yield
            return
        scale_lora_layers(self.unet, e.lora_scale)
        try:
            yield
        finally:
            unscale_lora_layers(self.unet, e.lora_scale)


def _residuals(given: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], Tensor | None, tuple[Tensor, ...]]:
    """ControlNet's, a skip each and one for the middle, and T2I-Adapter's."""
    controlnet, middle = given["down_block_additional_residuals"], given["mid_block_additional_residual"]
    t2i = given["down_intrablock_additional_residuals"]
    if t2i is None and middle is None and controlnet is not None:  # T2I-Adapter's older way in
        t2i, controlnet = controlnet, None
    if controlnet is None or middle is None:
        controlnet, middle = (), None
    return tuple(controlnet), middle, tuple(t2i or ())


def _bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """1 = keep, 0 = discard, as a bias with one query: `batch × 1 × keys`."""
    return None if mask is None else ((1 - mask.to(dtype)) * -10000.0).unsqueeze(1)
