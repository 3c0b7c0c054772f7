"""The half of FasterCache (Lv et al. 2024, arXiv:2410.19355) that diffusers' hooks can do on a UNet.

Its other half repeats attention. diffusers looks for attention by names that a UNet's layers do not have.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import UNet2DConditionModel
from diffusers.hooks import FasterCacheConfig, HookRegistry, apply_faster_cache
from torch import Tensor

from clockwork.errors import UserError
from clockwork.rivals.base import Rival, Timestep, at_least_one


@dataclass(frozen=True)
class FasterCache(Rival):
    """Runs the unconditional half of guidance on some steps, and extrapolates it on the others.

    Between those steps, the difference of the two halves is kept, in high and low frequencies.

    Attributes:
        interval: Number of steps from one with both halves to the next.
        below: The unconditional half is extrapolated at timesteps below this one only.

    Raises:
        UserError: If a setting is out of range.
    """

    package: ClassVar[str] = "diffusers"
    interval: int = 5
    below: int = 641

    def __post_init__(self) -> None:
        at_least_one("interval", self.interval)

    def check_guidance(self, guided: bool) -> None:
        """Raises a `UserError` without guidance; argument as in `Rival.check_guidance`."""
        if not guided:
            raise UserError("FasterCache saves the unconditional half of guidance: use a guidance above 1")

    def attach(self, unet: UNet2DConditionModel, timesteps: Tensor) -> Callable[[], None]:
        """Changes a UNet; arguments and result are those of `Rival.attach`."""
        if unet.config.addition_embed_type is not None:
            raise UserError("FasterCache does not halve the added conditions of this UNet: use another rival")
        config = FasterCacheConfig(
            unconditional_batch_skip_range=self.interval,
            unconditional_batch_timestep_skip_range=(-1, self.below),
            tensor_format="BCHW",
            attention_weight_callback=lambda module: 0.5,
            current_timestep_callback=Timestep(unet),
            _unconditional_conditional_input_kwargs_identifiers=["encoder_hidden_states"],
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
            torch.meshgrid(torch.arange(1), torch.arange(1))  # warns once per process, about a call in diffusers
            apply_faster_cache(unet, config)
        unet.register_forward_pre_hook(_timestep_by_name, with_kwargs=True)
        return HookRegistry.check_if_exists_or_initialize(unet).reset_stateful_hooks


def _timestep_by_name(
    unet: torch.nn.Module, arguments: tuple[Any, ...], by_name: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Passes the timestep by name: diffusers' hook halves all positional tensors, which a scalar cannot be."""
    sample, timestep = arguments
    return (sample,), {**by_name, "timestep": timestep}
