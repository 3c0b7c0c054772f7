"""Deterministic DDIM steps between any two timesteps (Song et al. 2021, equation 12 without noise)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clockwork.errors import UserError
from clockwork.sampling.solvers import make_solver


class DDIM:
    """DDIM on a teacher's noise schedule.

    Every method takes integer timesteps of shape `batch`; a timestep below 0 is the end of a roll-out. Latents have the
    shape `batch × channels × height × width`.

    Args:
        noise_schedule: Config of a diffusers scheduler.

    Raises:
        UserError: The teacher predicts neither epsilon nor v.
    """

    def __init__(self, noise_schedule: Mapping[str, Any]) -> None:
        solver = make_solver("ddim", noise_schedule)
        self.prediction_type = solver.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(
                f"this objective does not support teachers that predict {self.prediction_type}: "
                "use one with epsilon or v_prediction"
            )
        self._alphas_cumprod = torch.cat([solver.alphas_cumprod, solver.final_alpha_cumprod.reshape(1)]).double()

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the weights of the clean latent and of the noise in a noisy latent.

        Args:
            t: Timesteps.

        Returns:
            Alpha and sigma in float64, `batch × 1 × 1 × 1` each.
        """
        alphas_cumprod = self._alphas_cumprod.to(t.device)
        last = len(alphas_cumprod) - 1
        squared_alpha = alphas_cumprod[torch.where(t < 0, last, t).long()][:, None, None, None]
        return squared_alpha.sqrt(), (1 - squared_alpha).sqrt()

    def clean(self, output: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Computes the clean latent from a UNet's prediction.

        Args:
            output: Prediction of epsilon or v.
            z: Noisy latent for which it was predicted.
            t: Timesteps of the noisy latent.

        Returns:
            The clean latent, in the precision of `z`.
        """
        alpha, sigma = (x.to(z.dtype) for x in self.alpha_sigma(t))
        return alpha * z - sigma * output if self.prediction_type == "v_prediction" else (z - sigma * output) / alpha

    def step(self, clean: Tensor, z: Tensor, t: Tensor, to: Tensor) -> Tensor:
        """Computes the latent at another timestep.

        Args:
            clean: Clean latent.
            z: Noisy latent.
            t: Timesteps of the noisy latent.
            to: Timesteps of the result.

        Returns:
            The noisy latent at `to`, in the precision of `z`.
        """
        (alpha, sigma), (alpha_to, sigma_to) = self.alpha_sigma(t), self.alpha_sigma(to)
        return (alpha_to * clean + sigma_to / sigma * (z - alpha * clean)).to(z.dtype)

    def clean_between(self, z: Tensor, z_to: Tensor, t: Tensor, to: Tensor) -> Tensor:
        """Computes the clean latent with which one `step` leads from one noisy latent to another.

        Args:
            z: Noisy latent at which the step starts.
            z_to: Noisy latent at which it ends.
            t: Timesteps of `z`.
            to: Timesteps of `z_to`.

        Returns:
            The clean latent, in the precision of `z`.
        """
        (alpha, sigma), (alpha_to, sigma_to) = self.alpha_sigma(t), self.alpha_sigma(to)
        ratio = sigma_to / sigma
        return ((z_to - ratio * z) / (alpha_to - ratio * alpha)).to(z.dtype)
