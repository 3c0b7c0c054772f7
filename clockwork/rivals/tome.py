"""Token merging for Stable Diffusion (Bolya and Hoffman 2023, arXiv:2303.17604), by its authors' package."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from diffusers import UNet2DConditionModel
from torch import Tensor

from clockwork.errors import UserError, import_extra
from clockwork.rivals.base import Rival


@dataclass(frozen=True)
class ToMe(Rival):
    """Merges similar tokens before self-attention, and copies its result to all tokens that were merged.

    Tokens are chosen without randomness (`use_rand=False`), so that an image is the same in any batch.

    Attributes:
        ratio: Share of the tokens that are merged, from 0 to 0.75.
        max_downsample: Only transformers at up to this downsampling of the latents merge tokens: 1, 2, 4 or 8. The
            authors recommend 1 or 2. With 1, nothing changes in a UNet without attention at the highest resolution.

    Raises:
        UserError: If the package is not installed, or a setting is out of range.
    """

    package: ClassVar[str] = "tomesd"
    ratio: float = 0.5
    max_downsample: int = 1

    def __post_init__(self) -> None:
        import_extra(self.package, "rivals")
        if not 0 <= self.ratio <= 0.75:
            raise UserError(f"ratio={self.ratio} is not allowed: use a share of tokens from 0 to 0.75")
        if self.max_downsample not in (1, 2, 4, 8):
            raise UserError(f"max_downsample={self.max_downsample} is not allowed: use 1, 2, 4 or 8")

    def attach(self, unet: UNet2DConditionModel, timesteps: Tensor) -> Callable[[], None]:
        """Changes a UNet; arguments and result are those of `Rival.attach`."""
        tomesd = import_extra(self.package, "rivals")
        tomesd.apply_patch(unet, ratio=self.ratio, max_downsample=self.max_downsample, use_rand=False)
        return lambda: None  # nothing is kept from one step to the next
