"""Euler steps along a rectified flow (Liu et al. 2023), as InstaFlow is sampled: a solver in diffusers' form.

diffusers' own FlowMatchEulerDiscreteScheduler has the velocity's other sign and other timesteps.
"""

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor


@dataclass(frozen=True)
class Stepped:
    prev_sample: Tensor


class RectifiedFlow(SchedulerMixin, ConfigMixin):
    """Timesteps `1000 (1 − i/n)`; the UNet predicts v = data − noise, and `x ← x + v/n`."""

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, prediction_type: str = "flow") -> None:
        self.timesteps = torch.empty(0)

    def set_timesteps(self, steps: int, device: torch.device | str | None = None) -> None:
        self.num_inference_steps = steps
        times = [self.config.num_train_timesteps * (1 - i / steps) for i in range(steps)]
        self.timesteps = torch.tensor(times, device=device)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | None = None) -> Tensor:
        return sample

    def step(
        self, velocity: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True
    ) -> Stepped | tuple[Tensor]:
        after = sample + 1.0 / self.num_inference_steps * velocity
        return Stepped(after) if return_dict else (after,)

    def add_noise(self, data: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """On the straight line between the two."""
        noisy = (timesteps / self.config.num_train_timesteps).to(data)[:, None, None, None]
        return (1 - noisy) * data + noisy * noise
