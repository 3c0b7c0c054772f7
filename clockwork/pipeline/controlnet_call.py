"""A call of a ControlNet, whole or in part."""

from dataclasses import dataclass
from typing import Any

from diffusers import ControlNetModel

from clockwork.unet.controlnet import kept_part


@dataclass(frozen=True)
class ControlNetCall:
    """A ControlNet's call before a step of the UNet.

    Attributes:
        net: The ControlNet.
        call: Arguments of its `forward` by name.
        kept: How many residuals for skip connections were computed; None for all.
    """

    net: ControlNetModel
    call: dict[str, Any]
    kept: int | None

    def run(self) -> Any:
        """Returns what the ControlNet returns; residuals after the kept ones are zeros."""
        net = self.net if self.kept is None else kept_part(self.net, self.kept)
        return ControlNetModel.forward(net, **self.call)
