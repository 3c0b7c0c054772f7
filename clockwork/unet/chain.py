"""The UNet as a chain of layers, and the cut that splits it (paper, Section 4.1).

A UNet of diffusers is flattened to a list of *down layers* (a resnet with its attention, or a downsampler), a middle
block, and a list of *up layers* (a resnet with its attention, or an upsampler). The resnet of an up layer takes the
features concatenated with one skip connection.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import ModelMixin
from torch import Tensor, nn

from clockwork.errors import UserError
from clockwork.unet.blocks import DOWN_BLOCKS, UP_BLOCKS, BlockKind, block_kind
from clockwork.unet.inputs import EmbeddedInputs
from clockwork.unet.modifications import refuse_modifications


@dataclass(frozen=True)
class Layer:
    """One layer of the chain: a resnet with the modules that follow it, or a down- or upsampler.

    Attributes:
        block: The diffusers block that the layer belongs to.
        block_index: The block's index in `unet.down_blocks` or `unet.up_blocks`.
        kind: How the block runs its layers.
        resnet: The resnet, or None if the layer is a down- or upsampler.
        followers: The modules that follow the resnet, in the order of `kind.followers`.
        resampler: The down- or upsampler, or None if the layer is a resnet.
        is_last_resnet: Whether this is the last resnet of its block.
        is_last_layer: Whether this is the last layer of its block.
    """

    block: Any
    block_index: int
    kind: BlockKind
    resnet: Any = None
    followers: tuple[Any, ...] = ()
    resampler: Any = None
    is_last_resnet: bool = False
    is_last_layer: bool = False

    @property
    def attention(self) -> Any:
        """The attention that follows the resnet; None if there is none."""
        names = [name for name, _ in self.kind.followers] if self.followers else []
        return self.followers[names.index("attentions")] if "attentions" in names else None

    def run(self, sample: Tensor, embedded: EmbeddedInputs, size: Any = None) -> Tensor:
        """Runs the layer as its block does.

        Args:
            sample: Features, `batch × channels × height × width`.
            embedded: The inputs of the UNet call.
            size: Height and width of an upsampler's output, if its input does not determine them.

        Returns:
            Features, `batch × channels × height × width`.
        """
        if self.resampler is not None:
            return self.kind.resample(self.resampler, sample, embedded, size)
        sample = self.kind.resnet(self.resnet, sample, embedded)
        for (_, run), module in zip(self.kind.followers, self.followers, strict=True):
            sample = run(module, sample, embedded)
        return sample


def _layers(blocks: Any, kinds: tuple[BlockKind, ...], resamplers_name: str) -> list[Layer]:
    """Flattens down or up blocks, whose resamplers are in the attribute `downsamplers` or `upsamplers`."""
    layers: list[Layer] = []
    for index, block in enumerate(blocks):
        kind = block_kind(block, kinds)
        assert kind is not None
        resamplers = getattr(block, resamplers_name) or []
        lists = [getattr(block, name) for name, _ in kind.followers]
        for i, (resnet, *followers) in enumerate(zip(block.resnets, *lists, strict=True), 1):
            last = i == len(block.resnets)
            ends = {"is_last_resnet": last, "is_last_layer": last and not len(resamplers)}
            layers.append(Layer(block, index, kind, resnet, tuple(followers), **ends))
        layers.extend(Layer(block, index, kind, resampler=resampler, is_last_layer=True) for resampler in resamplers)
    return layers


@dataclass(frozen=True)
class Chain:
    """The layers of a UNet in the order in which they run.

    Attributes:
        down: The down layers, highest resolution first.
        middle: The middle block, or None if the UNet has none (BK-SDM-Tiny).
        up: The up layers, lowest resolution first.
    """

    down: tuple[Layer, ...]
    middle: nn.Module | None
    up: tuple[Layer, ...]

    @classmethod
    def from_unet(cls, unet: ModelMixin) -> "Chain":
        """Flattens a UNet into a chain that refers to the UNet's own modules.

        Args:
            unet: A UNet of a class in `clockwork.unet.models.UNETS`, made of the blocks in `clockwork.unet.blocks`.

        Returns:
            The chain.

        Raises:
            UserError: If the UNet has a block of another class, or other code that would not run.
        """
        refuse_modifications(unet)
        down = tuple(_layers(unet.down_blocks, DOWN_BLOCKS, "downsamplers"))
        return cls(down, unet.mid_block, tuple(_layers(unet.up_blocks, UP_BLOCKS, "upsamplers")))

    def refuse_exchanged_layers(self, unet: ModelMixin) -> None:
        """Checks that a UNet still has the layers of this chain, and nothing that would not run.

        Args:
            unet: The UNet that the chain was made from.

        Raises:
            UserError: If its layers are others.
        """
        if Chain.from_unet(unet) != self:
            raise UserError(
                "layers of the UNet were exchanged after it was split: call clockwork.enable(pipe) again, and "
                "calibrate or train an adaptor for the new layers"
            )


@dataclass(frozen=True)
class Cut:
    """Where the UNet is split. The layers in between are the low-res path, which an adaptor replaces.

    Attributes:
        down: How many layers at the start of `Chain.down` run on every step.
        up: How many layers at the end of `Chain.up` run on every step.
    """

    down: int
    up: int

    @classmethod
    def parse(cls, name: "str | Sequence[int] | Cut", chain: Chain) -> "Cut":
        """Resolves the name of a cut for a given chain.

        Names count from the ends of the chain, so the same name works on every UNet:

        - `stage1`, `stage2`, …: that many resolution levels run on every step, and so does the upsampler that leads
          into them (the paper's cut-off).
        - `stage1_upsampled`, `stage2_upsampled`, …: the same without that upsampler (the authors' public code).
        - `layer1`, `layer2`, …: DeepCache's branches 0, 1, ….
        - `3,4`: the values of `down` and `up`.

        Args:
            name: The name, or the values of `down` and `up`; a `Cut` is returned as it is.
            chain: The chain of the UNet to split.

        Returns:
            The cut. Its numbers are not validated; see `validate`.

        Raises:
            UserError: If the name is unknown or this UNet has too few levels for it.
        """
        if isinstance(name, Cut):
            return name
        if hasattr(name, "tolist"):  # of numpy or torch
            name = name.tolist()
        if isinstance(name, (list, tuple)):
            name = ",".join(map(str, name))
        if not isinstance(name, str):
            raise UserError(f"cut {name!r} is not text: use stage1, layer1, …, or two numbers such as (3, 4)")
        if numbers := re.fullmatch(r"(\d{1,9}),\s*(\d{1,9})", name):
            return cls(int(numbers[1]), int(numbers[2]))
        if layer := re.fullmatch(r"layer([1-9]\d{0,8})", name):
            return cls(int(layer[1]) - 1, int(layer[1]))
        if stage := re.fullmatch(r"stage([1-9]\d{0,8})(_upsampled)?", name):
            levels, last_block = int(stage[1]), chain.up[-1].block_index
            down = sum(layer.block_index < levels for layer in chain.down)
            up = sum(layer.block_index > last_block - levels for layer in chain.up)
            if levels <= last_block:
                return cls(down, up + (stage[2] is None))
        raise UserError(
            f"unknown cut {name[:50]!r} for this UNet: use stage1, stage1_upsampled, stage2, layer1, …, "
            "or two numbers such as 3,4"
        )

    def validate(self, chain: Chain) -> None:
        """Checks that the cut fits a chain.

        Args:
            chain: The chain of the UNet to split.

        Raises:
            UserError: If the chain has too few layers, or if the kept up layers read more skip connections than
                the kept down layers produce.
        """
        are_whole = isinstance(self.down, int) and isinstance(self.up, int)
        if not (are_whole and 0 <= self.down <= len(chain.down) and 1 <= self.up <= len(chain.up)):
            raise UserError(
                f"{self} does not fit a UNet with {len(chain.down)} down and {len(chain.up)} up layers: "
                f"choose down from 0 to {len(chain.down)} and up from 1 to {len(chain.up)}"
            )
        if self.num_kept_skips(chain) > self.down + 1:
            raise UserError(
                f"{self} keeps {self.num_kept_skips(chain)} up layers that read a skip connection, but only "
                f"{self.down + 1} skip connections: raise down or lower up"
            )

    def cheapest_for_identity(self, chain: Chain) -> "Cut":
        """Returns the cheapest cut with the same output, bit for bit, if the adaptor repeats `r_out`.

        Such an adaptor does not read `r_in`, so down layers whose skip connections are not read need not run. An
        upsampler would make the same of the same `r_out` again, so its output can be repeated instead.

        Args:
            chain: The chain of the UNet to split.
        """
        up = self.up
        while up > 1 and chain.up[len(chain.up) - up].resnet is None:
            up -= 1
        return Cut(max(Cut(self.down, up).num_kept_skips(chain) - 1, 0), up)

    def num_kept_skips(self, chain: Chain) -> int:
        """Counts the skip connections that the kept up layers read.

        Args:
            chain: The chain of the UNet to split.

        Returns:
            The number of kept up layers that contain a resnet.
        """
        return sum(layer.resnet is not None for layer in chain.up[len(chain.up) - self.up :])

    def __str__(self) -> str:
        return f"{self.down},{self.up}"
