"""A solver in diffusers' form for rectified flows (Liu et al. 2023), as InstaFlow is sampled.

diffusers' FlowMatchEulerDiscreteScheduler expects the velocity with the opposite sign and other timesteps.
"""

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor


@dataclass(frozen=True)
class SolverOutput:
    """The sample after a step, in the form of diffusers' scheduler outputs."""

    prev_sample: Tensor


class RectifiedFlow(SchedulerMixin, ConfigMixin):
    """Euler's method: timesteps `1000 (1 − i/n)`, where the UNet predicts v = data − noise and `x ← x + v/n`."""

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, prediction_type: str = "flow") -> None:
        self.timesteps = torch.empty(0)

    def set_timesteps(self, steps: int, device: torch.device | str | None = None) -> None:
        """Sets `steps` equally spaced timesteps."""
        self.num_inference_steps = steps
        times = [self.config.num_train_timesteps * (1 - i / steps) for i in range(steps)]
        self.timesteps = torch.tensor(times, device=device)

    def scale_model_input(self, sample: Tensor, timestep: Tensor | None = None) -> Tensor:
        """Returns the sample as it is."""
        return sample

    def step(
        self, velocity: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True
    ) -> SolverOutput | tuple[Tensor]:
        """Moves the sample by one step along the predicted velocity."""
        after = sample + 1.0 / self.num_inference_steps * velocity
        return SolverOutput(after) if return_dict else (after,)

    def add_noise(self, data: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Interpolates linearly between data and noise.

        Args:
            data: `batch × channels × height × width`.
            noise: As `data`.
            timesteps: One per example.
        """
        noisy = (timesteps / self.config.num_train_timesteps).to(data)[:, None, None, None]
        return (1 - noisy) * data + noisy * noise
