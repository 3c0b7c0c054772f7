"""Noise in one layer's features from some step on (paper, Section 3 and Appendix C, equation 1; Figures 2, 10–13)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from clockwork.adaptors import History
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.metrics.similarity import distance
from clockwork.sampling.denoisers import Denoised, Denoiser
from clockwork.sampling.sampler import Sampler
from clockwork.teachers import Condition

# The axes over which mu and sigma are computed, which the paper does not specify: per example or per channel.
STATISTICS_AXES = {"example": (1, 2, 3), "channel": (2, 3)}


def layers(unet: UNet2DConditionModel, which: str) -> dict[str, nn.Module]:
    """Finds the layers that one figure of the paper perturbs.

    Args:
        unet: The UNet.
        which: `up` (upsamplers; Figures 2, 10, 12), or `down` (downsamplers), `bottleneck` (the middle block) or
            `conv_in` (Figures 11, 13).

    Returns:
        The modules by name, in the order in which they run.

    Raises:
        UserError: If the name is unknown or the UNet has no such layers.
    """
    up = [layer for block in unet.up_blocks for layer in block.upsamplers or []]
    down = [layer for block in unet.down_blocks for layer in block.downsamplers or []]
    groups: dict[str, dict[str, nn.Module]] = {
        "up": {f"up{i}": layer for i, layer in enumerate(up, 1)},
        "down": {f"down{i}": layer for i, layer in enumerate(down, 1)},
        "bottleneck": {} if unet.mid_block is None else {"bottleneck": unet.mid_block},
        "conv_in": {"conv_in": unet.conv_in},
    }
    if not groups.get(which):
        available = " or ".join(name for name, modules in groups.items() if modules)
        raise UserError(f"this UNet has no layers {which!r}: use layers={available}")
    return groups[which]


def perturb(f: Tensor, alpha: float, noise: Tensor, over: str = "example") -> Tensor:
    """Mixes features with noise of the same mean and variance (equation 1).

    Computes `mu + sqrt(alpha) (f − mu) + sqrt(1 − alpha) sigma noise`. In expectation this has mean `mu` and variance
    `alpha sigma² + (1 − alpha) sigma² = sigma²`.

    Args:
        f: Features, `batch × channels × height × width`.
        alpha: Share of the features' variance that is kept, from 0 (all noise) to 1 (unchanged).
        noise: Standard normal noise of the same shape.
        over: Compute mu and sigma per `example` or per `channel` of each example.

    Returns:
        The perturbed features, of the same shape.
    """
    mu = f.mean(STATISTICS_AXES[over], keepdim=True)
    sigma = f.std(STATISTICS_AXES[over], correction=0, keepdim=True)
    return mu + alpha**0.5 * (f - mu) + (1 - alpha) ** 0.5 * sigma * noise


@dataclass(frozen=True)
class PerturbedDenoiser:
    """A denoiser that wraps another one and perturbs the output of one layer after the first steps.

    Attributes:
        denoiser: The wrapped denoiser.
        layer: The module of its UNet whose output is perturbed.
        alpha: Share of the features' variance that is kept, from 0 to 1.
        num_clean_steps: How many steps run unperturbed.
        ids: Ids of the batch's prompts. The noise depends on the id and not on the rest of the batch.
        seed: Seed of the noise.
        over: Compute mu and sigma per `example` or per `channel`.
    """

    denoiser: Denoiser
    layer: nn.Module
    alpha: float
    num_clean_steps: int
    ids: Sequence[int]
    seed: int = 0
    over: str = "example"

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        """Denoises one step; arguments and result are those of `Denoiser`."""
        if step <= self.num_clean_steps:
            return self.denoiser(sample, t, condition, step, history)

        def perturb_output(_: nn.Module, __: object, f: Tensor) -> Tensor:
            return perturb(f, self.alpha, self._noise(f, step), self.over)

        with self.layer.register_forward_hook(perturb_output):  # the context removes the hook, even after an error
            return self.denoiser(sample, t, condition, step, history)

    def _noise(self, f: Tensor, step: int) -> Tensor:
        """Draws noise of the features' shape, which differs between steps and between the two passes of guidance."""
        keys = [(self.seed, i, step, half) for half in range(len(f) // len(self.ids)) for i in self.ids]
        seeds = [int(np.random.SeedSequence(key).generate_state(1)[0]) for key in keys]
        return torch.stack([torch.randn(f.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]).to(f)


@dataclass(frozen=True)
class Perturbation:
    """One cell of a figure: a layer that is perturbed from one step on.

    Attributes:
        layer: Name of the layer.
        module: The layer.
        from_step: How many steps run unperturbed.
        alpha: Share of the features' variance that is kept, from 0 to 1.
        over: Compute mu and sigma per `example` or per `channel`.
        seed: Seed of the noise.
    """

    layer: str
    module: nn.Module
    from_step: int
    alpha: float
    over: str = "example"
    seed: int = 0

    @classmethod
    def each(
        cls, sampler: Sampler, which: str, from_steps: Sequence[int], alpha: float, over: str = "example", seed: int = 0
    ) -> "list[Perturbation]":
        """Combines every layer of a figure with every number of unperturbed steps.

        Args:
            sampler: The UNet and its number of steps.
            which: Name of the figure's layers (see `layers`).
            from_steps: How many steps run unperturbed, each from 0 to one less than the number of steps.
            alpha: Share of the features' variance that is kept, from 0 to 1.
            over: Compute mu and sigma per `example` or per `channel`.
            seed: Seed of the noise.

        Returns:
            The perturbations, grouped by layer.

        Raises:
            UserError: If an argument is out of range, the UNet has no such layers, or the teacher's steps are compiled.
        """
        sampler.require_uncompiled("perturbation")
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha {alpha} is out of range: use a value from 0 (all noise) to 1 (unperturbed)")
        if over not in STATISTICS_AXES:
            raise UserError(f"unknown value over={over}: use over={' or over='.join(STATISTICS_AXES)}")
        if not from_steps or not 0 <= min(from_steps) <= max(from_steps) < sampler.num_unet_calls:
            raise UserError(
                f"from_steps {list(from_steps)} does not fit {sampler.num_unet_calls} steps: "
                f"use one or more values from 0 to {sampler.num_unet_calls - 1}"
            )
        modules = layers(sampler.split.unet, which)
        return [cls(name, module, k, alpha, over, seed) for name, module in modules.items() for k in from_steps]

    @property
    def name(self) -> str:
        """Name of the cell, for example `up1-from5`."""
        return f"{self.layer}-from{self.from_step}"

    def around(self, denoiser: Denoiser, ids: Sequence[int]) -> PerturbedDenoiser:
        """Wraps a denoiser in this perturbation.

        Args:
            denoiser: A denoiser of the UNet that the layer belongs to.
            ids: Ids of the batch's prompts.

        Returns:
            The perturbed denoiser.
        """
        return PerturbedDenoiser(denoiser, self.module, self.alpha, self.from_step, ids, self.seed, self.over)

    def effects(
        self, prompts: Sequence[Prompt], perturbed: Iterable[Tensor], unperturbed: Iterable[Tensor]
    ) -> list[dict[str, Any]]:
        """Measures how far the perturbed images are from the unperturbed ones.

        Args:
            prompts: The prompts of the images.
            perturbed: Perturbed 8-bit images in the order of the prompts, `batch × 3 × height × width` each.
            unperturbed: Unperturbed images of the same prompts and seeds, in batches of the same sizes.

        Returns:
            One row per prompt. Its `distance` is the root mean square difference of pixel values from 0 to 1.
        """
        pairs = zip(perturbed, unperturbed, strict=True)
        distances = torch.cat([distance(a.float() / 255, b.float() / 255) for a, b in pairs]).tolist()
        cell = {"layer": self.layer, "from_step": self.from_step, "alpha": self.alpha}
        return [{**cell, "prompt": p.id, "distance": d} for p, d in zip(prompts, distances, strict=True)]
