"""The UNet as a chain of layers, and the cut that splits it (paper, Section 4.1).

A diffusers `UNet2DConditionModel`, flattened, is a list of *down layers* (a resnet with its attention, or a
downsampler), a middle, and a list of *up layers* (a resnet with its attention, which first concatenates one
skip; or an upsampler).
"""

import re
from dataclasses import dataclass
from typing import Any

from diffusers import UNet2DConditionModel
from torch import nn

from clockwork.errors import UserError

KNOWN_BLOCKS = {
    "CrossAttnDownBlock2D",
    "DownBlock2D",
    "UNetMidBlock2DCrossAttn",
    "CrossAttnUpBlock2D",
    "UpBlock2D",
}


@dataclass(frozen=True)
class Layer:
    """A resnet with its attention if it has one, or a down- or upsampler."""

    block: Any
    index: int  # of the block
    resnet: Any = None
    attention: Any = None
    sampler: Any = None
    last: bool = False  # the block's last resnet
    ends: bool = False  # the block's last layer


def _layers(blocks: Any, samplers: str) -> list[Layer]:
    layers: list[Layer] = []
    for index, block in enumerate(blocks):
        attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
        below = getattr(block, samplers) or []
        for i, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True), 1):
            last = i == len(block.resnets)
            layers.append(Layer(block, index, resnet, attention, last=last, ends=last and not len(below)))
        layers.extend(Layer(block, index, sampler=sampler, ends=True) for sampler in below)
    return layers


@dataclass(frozen=True)
class Chain:
    """The layers of a UNet in the order they run; the middle stays one module (or None: BK-SDM-Tiny)."""

    down: tuple[Layer, ...]
    middle: nn.Module | None
    up: tuple[Layer, ...]

    @classmethod
    def of(cls, unet: UNet2DConditionModel) -> "Chain":
        blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        for block in blocks:
            if block is not None and type(block).__name__ not in KNOWN_BLOCKS:
                raise UserError(
                    f"cannot split a UNet with {type(block).__name__}: "
                    f"a chain is made of {', '.join(sorted(KNOWN_BLOCKS))}"
                )
        down = tuple(_layers(unet.down_blocks, "downsamplers"))
        return cls(down, unet.mid_block, tuple(_layers(unet.up_blocks, "upsamplers")))


@dataclass(frozen=True)
class Cut:
    """Where the UNet is split: the first `down` and the last `up` layers of the chain are always run."""

    down: int
    up: int

    @classmethod
    def named(cls, name: str, chain: Chain) -> "Cut":
        """`stage1`, `stage2`, …: that many levels stay outside, and the upsampler that leads into them (the
        paper's cut-off); `stage1_upsampled`: without that upsampler (the authors' public code); `layer1`,
        `layer2`, …: DeepCache's branches 0, 1, …; `3,4`: by numbers. Counted from the ends of the chain, so
        that a name means the same on every UNet."""
        if numbers := re.fullmatch(r"(\d+),\s*(\d+)", name):
            return cls(int(numbers[1]), int(numbers[2]))
        if layer := re.fullmatch(r"layer([1-9]\d*)", name):
            return cls(int(layer[1]) - 1, int(layer[1]))
        if stage := re.fullmatch(r"stage([1-9]\d*)(_upsampled)?", name):
            levels, last = int(stage[1]), chain.up[-1].index
            down = sum(layer.index < levels for layer in chain.down)
            up = sum(layer.index > last - levels for layer in chain.up)
            if levels <= last:
                return cls(down, up + (stage[2] is None))
        raise UserError(
            f"no cut {name!r} on this UNet: say stage1, stage1_upsampled, stage2, layer1, … or two numbers such as 3,4"
        )

    def check(self, chain: Chain) -> None:
        if not (0 <= self.down <= len(chain.down) and 1 <= self.up <= len(chain.up)):
            raise UserError(
                f"{self} does not fit a UNet of {len(chain.down)} down and {len(chain.up)} up layers "
                "(down from 0, up from 1)"
            )
        if self.kept_skips(chain) > self.down + 1:
            raise UserError(
                f"{self} keeps {self.kept_skips(chain)} up layers that read a skip, but only {self.down + 1} skips: "
                "raise down or lower up"
            )

    def kept_skips(self, chain: Chain) -> int:
        return sum(layer.resnet is not None for layer in chain.up[len(chain.up) - self.up :])

    def __str__(self) -> str:
        return f"{self.down},{self.up}"
