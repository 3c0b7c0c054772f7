"""DDIM's arithmetic between any two timesteps (Song et al. 2021, equation 12 without noise)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clockwork.errors import UserError
from clockwork.sampling.solvers import make_solver


class DDIM:
    """On a teacher's noise schedule; timesteps `batch`, and below 0 the end of a roll-out."""

    def __init__(self, noise_schedule: Mapping[str, Any]) -> None:
        solver = make_solver("ddim", noise_schedule)
        self.prediction = solver.config.prediction_type
        if self.prediction not in ("epsilon", "v_prediction"):
            raise UserError(f"progressive distillation knows epsilon and v_prediction, not {self.prediction}")
        self._squares = torch.cat([solver.alphas_cumprod, solver.final_alpha_cumprod.reshape(1)]).double()

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """What picture and noise weigh in a latent at t: `batch × 1 × 1 × 1` each."""
        squares = self._squares.to(t.device)
        square = squares[torch.where(t < 0, len(squares) - 1, t).long()][:, None, None, None]
        return square.sqrt(), (1 - square).sqrt()

    def clean(self, output: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The picture's latent that a prediction says."""
        alpha, sigma = (x.to(z.dtype) for x in self.alpha_sigma(t))
        return alpha * z - sigma * output if self.prediction == "v_prediction" else (z - sigma * output) / alpha

    def step(self, clean: Tensor, z: Tensor, t: Tensor, to: Tensor) -> Tensor:
        """From the latent at t to the one at `to`, the picture's latent given."""
        (alpha, sigma), (alpha_to, sigma_to) = self.alpha_sigma(t), self.alpha_sigma(to)
        return (alpha_to * clean + sigma_to / sigma * (z - alpha * clean)).to(z.dtype)

    def clean_between(self, z: Tensor, z_to: Tensor, t: Tensor, to: Tensor) -> Tensor:
        """The clean latent with which one step leads from z at t to z_to: `step`, solved for it."""
        (alpha, sigma), (alpha_to, sigma_to) = self.alpha_sigma(t), self.alpha_sigma(to)
        ratio = sigma_to / sigma
        return ((z_to - ratio * z) / (alpha_to - ratio * alpha)).to(z.dtype)
