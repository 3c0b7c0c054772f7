"""Plug-and-Play (arXiv 2211.12572): a denoiser that wraps a denoiser and injects the source picture's features.

Its batch is one row longer than what the loop sees: the source's latent with the empty prompt goes first.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from clockwork.errors import UserError
from clockwork.sampling.denoisers import Denoised, Denoiser
from clockwork.teachers import Condition
from clockwork.unet.chain import Chain

Features = Mapping[nn.Module, Tensor]  # a module's output for the source: 1 × …


@dataclass(frozen=True)
class Injection:
    """Whose outputs are replaced by the source's, and for how many of the first steps (Table 7)."""

    convolution: nn.Module  # the second in its resnet, before the residual is added
    attention: tuple[nn.Module, ...]  # self-attentions' projections to queries and keys
    convolution_steps: int
    attention_steps: int

    @classmethod
    def of(cls, chain: Chain, steps: int, tau_f: float = 0.8, tau_a: float = 0.5) -> "Injection":
        """The authors' layers, by place: of the decoder's layers with attention the second one's resnet, and the
        self-attention of the second and all later ones."""
        if not (0 <= tau_f <= 1 and 0 <= tau_a <= 1):
            raise UserError(f"tau_f {tau_f} and tau_a {tau_a} are shares of the steps: choose them in 0 … 1")
        chosen = places(chain)
        selves = [block.attn1 for i in chosen for block in chain.up[i].attention.transformer_blocks]
        if any(attention.fused_projections for attention in selves):
            raise UserError("queries and keys can't be injected into fused projections: unfuse_qkv_projections() first")
        projections = tuple(projection for attention in selves for projection in (attention.to_q, attention.to_k))
        return cls(chain.up[chosen[0]].resnet.conv2, projections, int(steps * tau_f), int(steps * tau_a))

    @property
    def steps(self) -> int:
        """How many steps inject anything."""
        return max(self.convolution_steps, self.attention_steps)

    def modules(self, step: int) -> tuple[nn.Module, ...]:
        """Those injected at a step, which counts from 1."""
        convolution = (self.convolution,) if step <= self.convolution_steps else ()
        return convolution + (self.attention if step <= self.attention_steps else ())


def places(chain: Chain) -> tuple[int, ...]:
    """Where in `chain.up` self-attention is injected; the first of them is also the convolution's place."""
    with_attention = [i for i, layer in enumerate(chain.up) if layer.attention is not None]
    if len(with_attention) < 2:
        raise UserError(
            f"Plug-and-Play injects from the decoder's second layer with attention on; this UNet has "
            f"{len(with_attention)}: choose another teacher"
        )
    return tuple(with_attention[1:])


@contextmanager
def injecting(modules: Sequence[nn.Module], features: Features | None = None) -> Iterator[None]:
    """Every row of the modules' outputs becomes the source's: `features`, or the batch's first row."""

    def source(module: nn.Module, _: object, output: Tensor) -> Tensor:
        return (output[:1] if features is None else features[module]).expand_as(output)

    handles = [module.register_forward_hook(source) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recording(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """What the modules put out last, as they run."""
    seen: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        seen[module] = output

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class PlugAndPlay:
    """The authors' form: the source's latent runs with the others, on every step.

    Its own features are its `r_out`'s first row: with a clock the source too lives on adaptor steps, and layers in
    the low-res path, which do not run there, inject nothing. With `source_to_the_end` false the source leaves the
    batch once injection is over; the others' rows are what they were.
    """

    denoiser: Denoiser
    injection: Injection
    source: Mapping[int, Tensor]  # latents 1 × channels × height × width, by timestep
    empty: Condition  # the empty prompt's
    source_to_the_end: bool = True

    def __call__(
        self, sample: Tensor, t: Tensor, condition: Condition, step: int, r_out_prev: Tensor | None
    ) -> Denoised:
        if step > self.injection.steps and not self.source_to_the_end:
            own = None if r_out_prev is None else r_out_prev[-len(sample) :]
            return self.denoiser(sample, t, condition, step, own)
        batch = torch.cat([self.source[int(t)].to(sample), sample])
        with injecting(self.injection.modules(step)):
            seen = self.denoiser(batch, t, Condition.join(self.empty, condition), step, r_out_prev)
        return replace(seen, output=seen.output[1:])


@dataclass(frozen=True)
class Replay:
    """The saving the authors name: features that one pass over the source recorded are injected in every edit of it.

    Memory, a step, on SD v1.5 at 512 × 512 in half precision: 26 MB while attention is injected, 0.7 MB after.
    """

    denoiser: Denoiser
    injection: Injection
    features: Sequence[Features]  # a step

    def __call__(
        self, sample: Tensor, t: Tensor, condition: Condition, step: int, r_out_prev: Tensor | None
    ) -> Denoised:
        with injecting(self.injection.modules(step), self.features[step - 1] if step <= len(self.features) else {}):
            return self.denoiser(sample, t, condition, step, r_out_prev)


@dataclass(frozen=True)
class Source:
    """The source alone, whatever latents the loop is at: what `Replay`'s features are recorded from."""

    denoiser: Denoiser
    source: Mapping[int, Tensor]

    def __call__(
        self, sample: Tensor, t: Tensor, condition: Condition, step: int, r_out_prev: Tensor | None
    ) -> Denoised:
        return self.denoiser(self.source[int(t)].to(sample), t, condition, step, r_out_prev)
