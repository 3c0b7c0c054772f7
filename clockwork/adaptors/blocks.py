"""The blocks that adaptors are built from (paper, Section 4.1 and Appendix A)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResBlock(nn.Module):
    """Two times group norm, SiLU and convolution, with the time embedding added in between; residual.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        t_emb_width: Width of the time embedding; None for a block without one.
    """

    def __init__(self, in_channels: int, out_channels: int, t_emb_width: int | None) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_num_groups(in_channels), in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(_num_groups(out_channels), out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.time = None if t_emb_width is None else nn.Linear(t_emb_width, out_channels)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, t_emb: Tensor | None) -> Tensor:
        """Runs the block.

        Args:
            x: Features, `batch × in_channels × height × width`.
            t_emb: Time embedding, `batch × t_emb_width`, if the block has one.

        Returns:
            Features, `batch × out_channels × height × width`.
        """
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None and t_emb is not None:
            h = h + self.time(F.silu(t_emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


def _num_groups(channels: int) -> int:
    """Returns the largest power of two up to 32 that divides the number of channels."""
    return next(n for n in (32, 16, 8, 4, 2, 1) if channels % n == 0)


def nearest_index(steps: Sequence[int], step: int) -> int:
    """Returns the index of the nearest of some steps, of the earlier one of two.

    Args:
        steps: The steps, ascending.
        step: The step that is looked for.
    """
    return min(range(len(steps)), key=lambda i: abs(steps[i] - step))


def resize_to(x: Tensor, size: torch.Size) -> Tensor:
    """Resizes features, if necessary, to a size that strided layers have rounded.

    Args:
        x: Features, `batch × channels × height × width`.
        size: Height and width of the result.

    Returns:
        The features, interpolated to the nearest value; `x` itself if it has that size.
    """
    return x if x.shape[-2:] == size else F.interpolate(x, size=tuple(size))
