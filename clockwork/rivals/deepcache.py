"""DeepCache (Ma et al. 2024, arXiv:2312.00858), by its authors' package."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

from diffusers import UNet2DConditionModel
from torch import Tensor

from clockwork.errors import UserError, import_extra
from clockwork.rivals.base import Rival, at_least_one

LAYERS_PER_BLOCK = 3  # to which the package turns a branch into a block and a layer: two resnets and a downsampler


@dataclass(frozen=True)
class DeepCache(Rival):
    """Runs the full UNet on every `interval`-th step, and only its outermost layers on the others.

    The other layers' outputs are repeated. This equals the identity adaptor at the cut `branch,branch + 1` with the
    schedule `clock<interval>`. The package finds a step by its timestep, so with PNDM, which has one timestep twice,
    full steps come at other places.

    Attributes:
        interval: Number of steps from one full step to the next.
        branch: The skip connection up to which layers run on every step; 0 is the outermost.

    Raises:
        UserError: If the package is not installed, or a setting is out of range.
    """

    package: ClassVar[str] = "DeepCache"
    interval: int = 2
    branch: int = 0

    def __post_init__(self) -> None:
        import_extra(self.package, "rivals")
        at_least_one("interval", self.interval)
        if self.branch < 0:
            raise UserError(f"branch={self.branch} is not allowed: use 0 for the outermost, or a higher number")

    def attach(self, unet: UNet2DConditionModel, timesteps: Tensor) -> Callable[[], None]:
        """Changes a UNet; arguments and result are those of `Rival.attach`."""
        self._check(unet)
        pipe = SimpleNamespace(unet=unet, scheduler=SimpleNamespace(timesteps=timesteps))
        helper = import_extra(self.package, "rivals").DeepCacheSDHelper(pipe=pipe)
        helper.set_params(cache_interval=self.interval, cache_branch_id=self.branch)
        helper.enable()

        def reset() -> None:
            helper.disable()
            helper.enable()

        return reset

    def _check(self, unet: UNet2DConditionModel) -> None:
        """Raises a `UserError` if the UNet has no such branch, or none of the modules that the package expects."""
        if unet.mid_block is None:
            raise UserError("DeepCache needs a middle block, which this UNet does not have: use another rival")
        block, layer = divmod(self.branch, LAYERS_PER_BLOCK)
        blocks = unet.down_blocks
        num_layers = len(blocks[block].resnets) + len(blocks[block].downsamplers or ()) if block < len(blocks) else 0
        if layer >= num_layers:
            raise UserError(f"branch={self.branch} of DeepCache is not a layer of this UNet: use branch=0")
