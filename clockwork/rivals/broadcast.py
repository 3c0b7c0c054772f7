"""Pyramid Attention Broadcast (Zhao et al. 2024, arXiv:2408.12588), by diffusers' hooks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from diffusers import UNet2DConditionModel
from diffusers.hooks import HookRegistry, PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast
from torch import Tensor

from clockwork.errors import UserError
from clockwork.rivals.base import Rival, Timestep, at_least_one


@dataclass(frozen=True)
class AttentionBroadcast(Rival):
    """Computes an attention layer on every n-th step, and repeats its output on the others.

    Attributes:
        spatial: The n of self-attention; None to compute it on every step.
        cross: The n of cross-attention; None to compute it on every step.
        above: Outputs are repeated at timesteps above this one only.
        below: Outputs are repeated at timesteps below this one only.

    Raises:
        UserError: If both kinds of attention are computed on every step, or a number is out of range.
    """

    package: ClassVar[str] = "diffusers"
    spatial: int | None = 2
    cross: int | None = None
    above: int = 100
    below: int = 800

    def __post_init__(self) -> None:
        at_least_one("spatial", self.spatial)
        at_least_one("cross", self.cross)
        if self.spatial is None and self.cross is None:
            raise UserError("spatial and cross are both null, so that nothing is repeated: set one of them")

    def attach(self, unet: UNet2DConditionModel, timesteps: Tensor) -> Callable[[], None]:
        """Changes a UNet; arguments and result are those of `Rival.attach`."""
        config = PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=self.spatial,
            cross_attention_block_skip_range=self.cross,
            spatial_attention_timestep_skip_range=(self.above, self.below),
            cross_attention_timestep_skip_range=(self.above, self.below),
            current_timestep_callback=Timestep(unet),
        )
        apply_pyramid_attention_broadcast(unet, config)  # a UNet has no `enable_cache`
        return HookRegistry.check_if_exists_or_initialize(unet).reset_stateful_hooks
