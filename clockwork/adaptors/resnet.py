"""The paper's default adaptor: two ResBlocks at half resolution (Section 4.1; 13.86 million parameters on SD v1.5)."""

from typing import Any, final

import torch.nn as nn
from torch import Tensor

from clockwork.adaptors.base import INPUTS, Adaptor, FeatureDims
from clockwork.adaptors.blocks import ResBlock, resize_to
from clockwork.errors import check_whole


@final
class ResNet(Adaptor, kind="resnet"):
    """A strided convolution, ResBlocks at half resolution and a transposed convolution, added to `r_out_prev`.

    The text embedding is added before the ResBlocks, the time embedding inside them. The paper states the numbers of
    parameters and FLOPs but not the width; 448 reproduces them.

    Args:
        dims: Channels of the features at the cut, and widths of the embeddings.
        width: Channels at half resolution.
        blocks: Number of ResBlocks.
        inputs: Which inputs the adaptor reads.
    """

    def __init__(self, dims: FeatureDims, width: int = 448, blocks: int = 2, inputs: tuple[str, ...] = INPUTS) -> None:
        super().__init__(dims, inputs)
        check_whole("width", width, 1)
        check_whole("blocks", blocks, 0)
        self.width = width
        t_emb_width = dims.t_emb if "t_emb" in self.inputs else None
        self.down = nn.Conv2d(self.feature_channels, width, 3, stride=2, padding=1)
        self.text = nn.Linear(dims.text_emb, width) if "text_emb" in self.inputs else None
        self.blocks = nn.ModuleList(ResBlock(width, width, t_emb_width) for _ in range(blocks))
        self.up = nn.ConvTranspose2d(width, dims.r_out, 2, stride=2)
        # If the previous step is an input, training starts from the identity adaptor.
        if "r_out_prev" in self.inputs:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain data."""
        return {**super().config(), "width": self.width, "blocks": len(self.blocks)}

    def forward(
        self, r_in: Tensor | None, r_out_prev: Tensor | None, t_emb: Tensor | None, text_emb: Tensor | None
    ) -> Tensor:
        """Estimates `r_out`; arguments and result as in `Adaptor.forward`."""
        features = self.features(r_in, r_out_prev)
        h = self.down(features)
        if self.text is not None:
            h = h + self.text(text_emb)[:, :, None, None]
        for block in self.blocks:
            h = block(h, t_emb)
        h = resize_to(self.up(h), features.shape[-2:])
        return h + r_out_prev if "r_out_prev" in self.inputs and r_out_prev is not None else h
