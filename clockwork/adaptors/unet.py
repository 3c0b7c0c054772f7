"""The paper's larger adaptors (Table 3): UNet, 151.87M parameters on SD v1.5, and UNet-light, 2.87M."""

from typing import Any, final

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from clockwork.adaptors.base import INPUTS, Adaptor, FeatureDims, ResBlock, resize_to


@final
class UNet(Adaptor, kind="unet"):
    """Two levels down and two up around `blocks` ResBlocks, half of them at each level; residual over all.

    UNet-light is the same at width 96 with two blocks.
    """

    def __init__(self, dims: FeatureDims, width: int = 640, blocks: int = 4, inputs: tuple[str, ...] = INPUTS) -> None:
        super().__init__(dims, inputs)
        self.width, self.count = width, blocks
        time = None
        if "t_emb" in self.inputs:
            # The printed parameters leave room for a time MLP of 4 × width that reads `width` numbers, no more.
            self.time_width = min(width, dims.t_emb)
            time = 4 * width
            self.time = nn.Sequential(nn.Linear(self.time_width, time), nn.SiLU(), nn.Linear(time, time))
        self.text = nn.Linear(dims.text_emb, width) if "text_emb" in self.inputs else None

        def level(into: int, number: int) -> nn.ModuleList:
            return nn.ModuleList(ResBlock(into, width, time) for _ in range(number))

        self.stem = nn.Conv2d(self.feature_width, width, 2, stride=2)
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
        return {**super().config(), "width": self.width, "blocks": self.count}

    def forward(
        self, r_in: Tensor | None, r_out_prev: Tensor | None, t_emb: Tensor | None, text_emb: Tensor | None
    ) -> Tensor:
        features = self.features(r_in, r_out_prev)
        time = None if t_emb is None or "t_emb" not in self.inputs else self.time(t_emb[:, : self.time_width])
        h = self.stem(features)
        if self.text is not None:
            h = h + self.text(text_emb)[:, :, None, None]
        levels = []  # of each: its size, and what leaves it for the level below
        for blocks, halve in ((self.down1, self.half1), (self.down2, self.half2)):
            for block in blocks:
                h = block(h, time)
            size, h = h.shape[-2:], halve(h)
            levels.append((size, h))
        for block in self.middle:
            h = block(h, time)
        for blocks, double in ((self.up2, self.double2), (self.up1, self.double1)):
            size, skip = levels.pop()
            for block in blocks:
                h = block(torch.cat([h, skip], dim=1), time)
            h = resize_to(double(h), size)
        h = resize_to(self.out(F.silu(h)), features.shape[-2:])
        return h + r_out_prev if "r_out_prev" in self.inputs and r_out_prev is not None else h
