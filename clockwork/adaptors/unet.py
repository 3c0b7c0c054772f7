"""The paper's UNet adaptors (Table 3): UNet and UNet-light, 151.87 and 2.87 million parameters on SD v1.5."""

from typing import Any, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from clockwork.adaptors.base import INPUTS, Adaptor, FeatureDims
from clockwork.adaptors.blocks import ResBlock, resize_to
from clockwork.errors import check_whole


@final
class UNet(Adaptor, kind="unet"):
    """A UNet with two levels, added to `r_out_prev`.

    There are `blocks` ResBlocks in the middle and half as many on each level, down and up. UNet-light has width 96 and
    two blocks.

    Args:
        dims: Channels of the features at the cut, and widths of the embeddings.
        width: Channels on all levels.
        blocks: Number of ResBlocks in the middle.
        inputs: Which inputs the adaptor reads.
    """

    def __init__(self, dims: FeatureDims, width: int = 640, blocks: int = 4, inputs: tuple[str, ...] = INPUTS) -> None:
        super().__init__(dims, inputs)
        check_whole("width", width, 1)
        check_whole("blocks", blocks, 0)
        self.width, self.num_blocks = width, blocks
        t_emb_width = None
        if "t_emb" in self.inputs:
            # The published number of parameters implies a time MLP of width 4 × `width` with `width` inputs.
            self.time_width = min(width, dims.t_emb)
            t_emb_width = 4 * width
            self.time = nn.Sequential(
                nn.Linear(self.time_width, t_emb_width), nn.SiLU(), nn.Linear(t_emb_width, t_emb_width)
            )
        self.text = nn.Linear(dims.text_emb, width) if "text_emb" in self.inputs else None

        def level(in_channels: int, num_blocks: int) -> nn.ModuleList:
            return nn.ModuleList(ResBlock(in_channels, width, t_emb_width) for _ in range(num_blocks))

        self.stem = nn.Conv2d(self.feature_channels, width, 2, stride=2)
        self.down1, self.half1 = level(width, blocks // 2), nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.down2, self.half2 = level(width, blocks // 2), nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.middle = level(width, blocks)
        self.double2, self.up2 = nn.ConvTranspose2d(width, width, 2, stride=2), level(2 * width, blocks // 2)
        self.double1, self.up1 = nn.ConvTranspose2d(width, width, 2, stride=2), level(2 * width, blocks // 2)
        self.out = nn.ConvTranspose2d(width, dims.r_out, 3, stride=2, padding=1, output_padding=1)
        if "r_out_prev" in self.inputs:  # starts as the identity adaptor
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain data."""
        return {**super().config(), "width": self.width, "blocks": self.num_blocks}

    def forward(
        self, r_in: Tensor | None, r_out_prev: Tensor | None, t_emb: Tensor | None, text_emb: Tensor | None
    ) -> Tensor:
        """Estimates `r_out`; arguments and result as in `Adaptor.forward`."""
        features = self.features(r_in, r_out_prev)
        time = None if t_emb is None or "t_emb" not in self.inputs else self.time(t_emb[:, : self.time_width])
        h = self.stem(features)
        if self.text is not None:
            h = h + self.text(text_emb)[:, :, None, None]
        skips = []  # per level: the size of its features, and its output, which the way up reads
        for blocks, halve in ((self.down1, self.half1), (self.down2, self.half2)):
            for block in blocks:
                h = block(h, time)
            size, h = h.shape[-2:], halve(h)
            skips.append((size, h))
        for block in self.middle:
            h = block(h, time)
        for blocks, double in ((self.up2, self.double2), (self.up1, self.double1)):
            size, skip = skips.pop()
            for block in blocks:
                h = block(torch.cat([h, skip], dim=1), time)
            h = resize_to(double(h), size)
        h = resize_to(self.out(F.silu(h)), features.shape[-2:])
        return h + r_out_prev if "r_out_prev" in self.inputs and r_out_prev is not None else h
