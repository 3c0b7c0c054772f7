"""Disturbing one layer's features from some step on (paper, Section 3 and Appendix C, equation 1; Figures 2, 10–13)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.metrics.similarity import distance
from clockwork.sampling.denoisers import Denoised, Denoiser
from clockwork.sampling.sampler import Setup
from clockwork.teachers import Condition

# The axes of mu and sigma, which the paper leaves open: all of an example's values, or each of its channels'.
OVER = {"example": (1, 2, 3), "channel": (2, 3)}


def layers(unet: UNet2DConditionModel, which: str) -> dict[str, nn.Module]:
    """The layers of one figure, in the order they run: `up` (Figures 2, 12), `down`, `bottleneck`, `conv_in`
    (Figures 11, 13)."""
    up = [layer for block in unet.up_blocks for layer in block.upsamplers or []]
    down = [layer for block in unet.down_blocks for layer in block.downsamplers or []]
    found: dict[str, dict[str, nn.Module]] = {
        "up": {f"up{i}": layer for i, layer in enumerate(up, 1)},
        "down": {f"down{i}": layer for i, layer in enumerate(down, 1)},
        "bottleneck": {} if unet.mid_block is None else {"bottleneck": unet.mid_block},
        "conv_in": {"conv_in": unet.conv_in},
    }
    if not found.get(which):
        there = " or ".join(name for name, modules in found.items() if modules)
        raise UserError(f"no layers {which!r} on this UNet: say layers={there}")
    return found[which]


def perturb(f: Tensor, alpha: float, noise: Tensor, over: str = "example") -> Tensor:
    """Equation 1: `mu + sqrt(alpha) (f − mu) + sqrt(1 − alpha) sigma × noise`, of `f`'s shape.

    `f` is `batch × channels × height × width`, `noise` standard normal of that shape. Mean and variance stay as they
    are in expectation: `alpha sigma² + (1 − alpha) sigma²`. `over` says of what mu and sigma are taken.
    """
    mu = f.mean(OVER[over], keepdim=True)
    sigma = f.std(OVER[over], correction=0, keepdim=True)
    return mu + alpha**0.5 * (f - mu) + (1 - alpha) ** 0.5 * sigma * noise


@dataclass(frozen=True)
class Perturbed:
    """A denoiser around a denoiser: on every step after the first `clean` ones, one layer's output is disturbed."""

    denoiser: Denoiser
    layer: nn.Module
    alpha: float  # how much of the features' variance stays: 1 all, 0 none
    clean: int
    ids: Sequence[int]  # of the batch's prompts: each has noise of its own, whatever batch it is in
    seed: int = 0
    over: str = "example"

    def __call__(
        self, sample: Tensor, t: Tensor, condition: Condition, step: int, r_out_prev: Tensor | None
    ) -> Denoised:
        if step <= self.clean:
            return self.denoiser(sample, t, condition, step, r_out_prev)

        def disturb(_: nn.Module, __: object, f: Tensor) -> Tensor:
            return perturb(f, self.alpha, self._noise(f, step), self.over)

        with self.layer.register_forward_hook(disturb):  # the handle removes the hook, also after an exception
            return self.denoiser(sample, t, condition, step, r_out_prev)

    def _noise(self, f: Tensor, step: int) -> Tensor:
        """New on every step; guidance's two halves have their own."""
        keys = [(self.seed, i, step, half) for half in range(len(f) // len(self.ids)) for i in self.ids]
        seeds = [int(np.random.SeedSequence(key).generate_state(1)[0]) for key in keys]
        return torch.stack([torch.randn(f.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]).to(f)


@dataclass(frozen=True)
class Perturbation:
    """One cell of a figure: a layer, disturbed after the first `from_step` steps."""

    layer: str
    module: nn.Module
    from_step: int
    alpha: float
    over: str = "example"
    seed: int = 0

    @classmethod
    def each(
        cls, setup: Setup, which: str, from_steps: Sequence[int], alpha: float, over: str = "example", seed: int = 0
    ) -> "list[Perturbation]":
        """Every layer of a figure from each of `from_steps` on."""
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha {alpha} is no share: say a number from 0 (all noise) to 1 (untouched)")
        if over not in OVER:
            raise UserError(f"no statistics over={over}: say over={' or over='.join(OVER)}")
        if not from_steps or not 0 <= min(from_steps) <= max(from_steps) < setup.calls:
            raise UserError(
                f"from_steps {list(from_steps)} does not fit {setup.calls} steps: say some from 0 to {setup.calls - 1}"
            )
        found = layers(setup.split.unet, which)
        return [cls(name, module, k, alpha, over, seed) for name, module in found.items() for k in from_steps]

    @property
    def name(self) -> str:
        return f"{self.layer}-from{self.from_step}"

    def around(self, denoiser: Denoiser, ids: Sequence[int]) -> Perturbed:
        return Perturbed(denoiser, self.module, self.alpha, self.from_step, ids, self.seed, self.over)

    def effects(
        self, prompts: Sequence[Prompt], disturbed: Iterable[Tensor], untouched: Iterable[Tensor]
    ) -> list[dict[str, Any]]:
        """A row a prompt: the L2 distance of its two pictures, values from 0 to 1, by the root of their count.

        Pictures are 8-bit batches `batch × 3 × height × width`, in the prompts' order.
        """
        pairs = zip(disturbed, untouched, strict=True)
        each = torch.cat([distance(a.float() / 255, b.float() / 255) for a, b in pairs]).tolist()
        about = {"layer": self.layer, "from_step": self.from_step, "alpha": self.alpha}
        return [{**about, "prompt": p.id, "distance": d} for p, d in zip(prompts, each, strict=True)]
