"""A UNet that runs in two parts, with the same result as `unet(...)` bit for bit (paper, Section 4.1)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers
from torch import Tensor, nn

from clockwork.unet.binding import Binder
from clockwork.unet.blocks import apply_block_freeu, middle_arguments
from clockwork.unet.chain import Chain, Cut, Layer
from clockwork.unet.inputs import EmbeddedInputs
from clockwork.unet.models import unet_kind
from clockwork.unet.modifications import refuse_own_forward


@dataclass(frozen=True)
class HighResFeatures:
    """The output of the kept down layers.

    Attributes:
        r_in: The output of the last kept down layer, `batch × channels × height × width`.
        skips: The output of `conv_in`, then that of each kept down layer.
    """

    r_in: Tensor
    skips: tuple[Tensor, ...] = field(repr=False)


class SplitUNet:
    """A UNet in two parts: high-res (`high_in`, `high_out`), and low-res (`low`), which an adaptor can replace.

    At every cut, the three parts in sequence equal `unet(...)` bit for bit:

        embedded = split.embed(sample, timestep, encoder_hidden_states)
        high = split.high_in(embedded)
        output = split.high_out(split.low(high, embedded), high, embedded)

    The object refers to the UNet and owns no weights. Move the UNet itself between devices and modes.

    Args:
        unet: The UNet to split.
        cut: A cut, its two numbers, or its name (see `Cut.parse`).

    Raises:
        UserError: If the UNet has unknown blocks or other code that would not run, or the cut is unknown or does not
            fit.
    """

    def __init__(self, unet: ModelMixin, cut: Cut | str | Sequence[int] = "stage1") -> None:
        self.kind = unet_kind(unet)
        refuse_own_forward(unet)
        self.unet, self.chain = unet, Chain.from_unet(unet)
        self.cut = Cut.parse(cut, self.chain)
        self.cut.validate(self.chain)
        self.bind = Binder(type(unet).forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Runs all layers: the full pass.

        Args:
            *args: Positional arguments of `unet.forward`.
            **kwargs: Keyword arguments of `unet.forward`.

        Returns:
            The UNet's output `sample`, of the shape of its input with the UNet's own number of channels.
        """
        embedded = self.embed(*args, **kwargs)
        high = self.high_in(embedded)
        return self.high_out(self.low(high, embedded), high, embedded)

    @property
    def reads_text(self) -> bool:
        """Whether the UNet's `forward` has an argument for text features."""
        return "encoder_hidden_states" in self.bind.names

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the UNet computes."""
        # `unet.dtype` iterates over all modules, which takes 0.5 ms per step. Quantised weights have no float dtype.
        dtype: torch.dtype = self.unet.conv_in.weight.dtype
        return dtype if dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64) else self.unet.dtype

    def embed(self, *args: Any, **kwargs: Any) -> EmbeddedInputs:
        """Embeds the inputs of a UNet call.

        Args:
            *args: Positional arguments of `unet.forward`.
            **kwargs: Keyword arguments of `unet.forward`.

        Returns:
            The inputs of the chain's layers.
        """
        return self.kind.embed(self.unet, self.arguments(*args, **kwargs))

    def arguments(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Names the arguments of a UNet call.

        Args:
            *args: Positional arguments of `unet.forward`.
            **kwargs: Keyword arguments of `unet.forward`.

        Returns:
            All arguments by name, with their defaults, but without `return_dict`.
        """
        call = {**self.bind.defaults, **self.bind(args, kwargs)}
        call.pop("return_dict", None)
        return call

    def high_in(self, embedded: EmbeddedInputs) -> HighResFeatures:
        """Runs `conv_in` and the kept down layers.

        Args:
            embedded: The inputs of the UNet call.

        Returns:
            `r_in`, and the skip connections of these layers.
        """
        with self.scaled_lora(embedded.lora_scale):
            sample = self.kind.first(self.unet, embedded)
            return self._down(sample, (sample,), self.chain.down[: self.cut.down], embedded)

    def low(self, high: HighResFeatures, embedded: EmbeddedInputs) -> Tensor:
        """Runs the low-res path: the remaining down layers, the middle block, and the up layers before the cut.

        Args:
            high: The output of `high_in`.
            embedded: The inputs of the UNet call.

        Returns:
            `r_out`, the input of the first kept up layer, `batch × channels × height × width`.
        """
        with self.scaled_lora(embedded.lora_scale):
            low = self._down(high.r_in, high.skips, self.chain.down[self.cut.down :], embedded)
            sample = self._middle(low.r_in, embedded)
            return self._up(sample, low.skips, self.chain.up[: len(self.chain.up) - self.cut.up], embedded)

    def high_out(self, r_out: Tensor, high: HighResFeatures, embedded: EmbeddedInputs) -> Tensor:
        """Runs the kept up layers and the output convolution.

        Args:
            r_out: The output of `low`, or an adaptor's estimate of it. It is not modified.
            high: The output of `high_in` on the same step.
            embedded: The inputs of the UNet call.

        Returns:
            The UNet's output, `batch × channels × height × width`; for a video `batch × frames × channels × height ×
            width` or, as its class has it, `batch × channels × frames × height × width`.
        """
        with self.scaled_lora(embedded.lora_scale):
            layers = self.chain.up[len(self.chain.up) - self.cut.up :]
            sample = self._up(r_out, high.skips[: self.cut.num_kept_skips(self.chain)], layers, embedded)
            if self.unet.conv_norm_out:
                sample = self.unet.conv_act(self.unet.conv_norm_out(sample))
            return self.kind.last(self.unet.conv_out(sample), embedded)

    def low_res_modules(self) -> list[nn.Module]:
        """Returns the modules of the low-res path, in the order in which they run on full steps."""
        down, up = self.chain.down[self.cut.down :], self.chain.up[: len(self.chain.up) - self.cut.up]
        layers = [[(layer.resnet, *layer.followers, layer.resampler) for layer in part] for part in (down, up)]
        modules = [*sum(layers[0], ()), self.chain.middle, *sum(layers[1], ())]
        return [module for module in modules if module is not None]

    @cached_property
    def low_res_attentions(self) -> list[Any]:
        """The modules of the low-res path that have an attention processor."""
        return [module for part in self.low_res_modules() for module in part.modules() if hasattr(module, "processor")]

    def _down(
        self, sample: Tensor, skips: tuple[Tensor, ...], layers: tuple[Layer, ...], embedded: EmbeddedInputs
    ) -> HighResFeatures:
        """Runs down layers, and appends the output of each to the skip connections."""
        for layer in layers:
            sample = layer.run(sample, embedded)
            # T2I-Adapter's residual is added before the downsampler if the block has attention, else after it.
            has_attention = getattr(layer.block, "has_cross_attention", False)
            adds_residual = layer.is_last_resnet if has_attention else layer.is_last_layer
            if adds_residual and layer.block_index < len(embedded.t2i_residuals):
                sample = sample + embedded.t2i_residuals[layer.block_index]
            skips += (sample,)
        return HighResFeatures(sample, skips)

    def _middle(self, sample: Tensor, embedded: EmbeddedInputs) -> Tensor:
        """Runs the middle block, if there is one, and adds the residuals of T2I-Adapter and ControlNet."""
        if self.chain.middle is not None:
            middle = self.chain.middle
            sample = middle(sample, embedded.t_emb, **middle_arguments(middle, embedded))
            residual = embedded.t2i_residuals[len(self.unet.down_blocks) :]
            if residual and residual[0].shape == sample.shape:  # T2I-Adapter-XL
                sample = sample + residual[0]
        if embedded.controlnet_mid_residual is not None:
            sample = sample + embedded.controlnet_mid_residual
        return sample

    def _up(
        self, sample: Tensor, skips: tuple[Tensor, ...], layers: tuple[Layer, ...], embedded: EmbeddedInputs
    ) -> Tensor:
        """Runs up layers; each resnet consumes the last skip connection that is left."""
        skips_left = list(enumerate(skips))
        for layer in layers:
            if layer.resnet is None:
                size = skips_left[-1][1].shape[2:] if embedded.force_upsample_size else None
                sample = layer.run(sample, embedded, size)
                continue
            i, skip = skips_left.pop()
            if embedded.controlnet_residuals:
                skip = skip + embedded.controlnet_residuals[i]
            sample, skip = apply_block_freeu(layer.kind, layer.block, sample, skip)
            sample = layer.run(torch.cat([sample, skip], dim=1), embedded)
        return sample

    @contextmanager
    def scaled_lora(self, scale: float) -> Iterator[None]:
        """Applies LoRA's scale within the context, as diffusers' `forward` does during a call.

        Args:
            scale: The scale of all LoRA layers.
        """
        if not USE_PEFT_BACKEND or scale == 1.0:
            yield
            return
        scale_lora_layers(self.unet, scale)
        try:
            yield
        finally:
            unscale_lora_layers(self.unet, scale)
