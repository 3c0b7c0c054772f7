"""Training of an adaptor through whole roll-outs: the clocked roll-out has to end where the teacher's does."""

from collections import deque
from typing import Any, final

import torch
from torch import Tensor

from clockwork.metrics.similarity import distance
from clockwork.sampling.denoisers import ClockworkDenoiser
from clockwork.sampling.rollout import rollout_with_gradients
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.training.ends import RolloutEnds
from clockwork.training.epoch_means import Figure
from clockwork.training.objectives.base import Objective, frozen
from clockwork.training.objectives.guided_output import split_in_float32


@final
class RolloutDistillation(Objective):
    """Trains an adaptor so that the clocked roll-out ends at the teacher's latents, from the same noise and caption.

    The loss is the distance of the two. Its gradient passes through the solver, guidance and all later UNet calls, so
    each estimate is trained for its effect on the image. Everything runs in float32. Memory grows with the number of
    steps, so that this is for few steps.

    Args:
        sampler: The operating point, with the adaptor to train.
        **training: Arguments of `Objective`.
    """

    def __init__(self, sampler: Sampler, **training: Any) -> None:
        super().__init__(**training)
        assert sampler.adaptor is not None
        self.adaptor, self.sampler = sampler.adaptor, sampler
        self.denoiser = ClockworkDenoiser(split_in_float32(sampler), sampler.adaptor, sampler.schedule)

    def training_step(self, batch: RolloutEnds) -> Tensor:
        """Computes the loss of a batch."""
        loss = self.distances(batch)
        self.means.add({"loss": Figure(loss)})
        return loss.mean()

    def validation_step(self, batch: RolloutEnds) -> None:
        """Adds the loss of held-out captions."""
        self.validation_means.add({"loss": Figure(self.distances(batch))})

    def distances(self, batch: RolloutEnds) -> Tensor:
        """Runs the clocked roll-out.

        Args:
            batch: Noise and captions, and the latents at which the teacher ends.

        Returns:
            The root mean square difference of the final latents, one number per image.
        """
        sampler = self.sampler
        with frozen(batch.noise.device):
            conditions = sampler.conditions(list(batch.captions))
            condition, negative = (None if part is None else part.to(torch.float32) for part in conditions)
        assert condition is not None
        solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
        with torch.autocast(batch.noise.device.type, enabled=False):
            records = rollout_with_gradients(
                self.denoiser, solver, sampler.steps, batch.noise, condition, negative, sampler.guidance
            )
            return distance(deque(records, maxlen=1).pop().latents, batch.latents)
