"""A diffusers scheduler for rectified flows (Liu et al. 2023) such as InstaFlow.

diffusers' FlowMatchEulerDiscreteScheduler expects the velocity with the opposite sign and other timesteps.
"""

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor


@dataclass(frozen=True)
class SolverOutput:
    """The sample after a step, as in the outputs of diffusers' schedulers."""

    prev_sample: Tensor


class RectifiedFlow(SchedulerMixin, ConfigMixin):
    """Euler's method with n equal steps: `x ← x + v/n`, where the UNet predicts the velocity v = data − noise."""

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, prediction_type: str = "flow") -> None:
        self.timesteps = torch.empty(0)

    def set_timesteps(self, steps: int, device: torch.device | str | None = None) -> None:
        """Sets the timesteps `1000 (1 − i/steps)`, where i is 0 for the first.

        Args:
            steps: Number of steps.
            device: Device of the timesteps.
        """
        self.num_inference_steps = steps
        times = [self.config.num_train_timesteps * (1 - i / steps) for i in range(steps)]
        self.timesteps = torch.tensor(times, device=device)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | None = None) -> Tensor:
        """Returns the sample unchanged."""
        return sample

    def step(
        self, velocity: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True
    ) -> SolverOutput | tuple[Tensor]:
        """Takes one step along the predicted velocity.

        Args:
            velocity: The UNet's prediction, `batch × channels × height × width`.
            timestep: The timestep, which is not used.
            sample: The current sample, of the same shape.
            return_dict: Whether to return a `SolverOutput` instead of a tuple.
        """
        after = sample + 1.0 / self.num_inference_steps * velocity
        return SolverOutput(after) if return_dict else (after,)

    def add_noise(self, data: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Interpolates linearly between data and noise.

        Args:
            data: Latents, `batch × channels × height × width`.
            noise: Noise of the same shape.
            timesteps: One timestep per example, from 0 (data) to 1000 (noise).
        """
        noise_share = (timesteps / self.config.num_train_timesteps).to(data)[:, None, None, None]
        return (1 - noise_share) * data + noise_share * noise
