"""Distillation of an adaptor from the frozen teacher's features (paper, Section 4.3, equation 3)."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from clockwork.adaptors import Adaptor
from clockwork.deprecated import renamed
from clockwork.metrics.similarity import distance
from clockwork.training.adaptor_example import AdaptorExample
from clockwork.training.epoch_means import Figure
from clockwork.training.objectives.base import Objective
from clockwork.training.objectives.guided_output import GuidedOutput, guided_distance

__getattr__ = renamed(__name__)


@final
class AdaptorDistillation(Objective):
    """Trains an adaptor to predict the teacher's features; the loss is in float32 for every precision of the teacher.

    Classifier-free guidance amplifies the errors of its two halves: `e₋ + guidance × (e₊ − e₋)` of them reaches the
    image. `guided` adds the size of this guided error to the loss. The paper's loss has `guided=0` and treats the
    halves as independent examples.

    Args:
        adaptor: The adaptor to train.
        steps: The schedule's adaptor steps, for which figures are logged per step; none by default.
        guidance: Guidance scale; 1 if the teacher takes one pass per step.
        guided: Weight of the guided error in the loss.
        output: Computes the error of the UNet's guided output.
        output_loss: Weight of that error in the loss; the paper's is 0. If this weight or `guided` is not 0, batches
            consist of complete groups, with the negative half first.
        **training: Arguments of `Objective`.
    """

    def __init__(
        self,
        adaptor: Adaptor,
        steps: Sequence[int] = (),
        guidance: float = 1.0,
        guided: float = 0.0,
        output: GuidedOutput | None = None,
        output_loss: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.adaptor, self.steps = adaptor, tuple(steps)
        self.guidance, self.guided = guidance, guided if guidance > 1 else 0.0
        self.output, self.output_loss = output, 0.0 if output is None else output_loss

    def training_step(self, batch: AdaptorExample) -> Tensor:
        """Computes the loss of a batch."""
        estimate, target, previous = self.features(batch)
        with torch.autocast(target.device.type, enabled=False):
            loss = distance(estimate, target)
            self.means.add(self.step_figures(batch, loss, target, previous))
            total = loss.mean()
            if self.guided:
                guided = guided_distance(estimate - target, self.guidance)
                guided_identity = guided_distance(previous - target, self.guidance)
                self.means.add({"guided": Figure(guided), "guided_identity": Figure(guided_identity)})
                total = total + self.guided * guided.mean()
            if self.output is not None and self.output_loss:
                output = self.output.error(estimate, target, batch)
                self.means.add({"output": Figure(output)})
                total = total + self.output_loss * output.mean()
            return total

    def validation_step(self, batch: AdaptorExample) -> None:
        """Adds the figures of held-out examples, including those after guidance: batches consist of complete groups."""
        estimate, target, previous = self.features(batch)
        self.validation_means.add(self.step_figures(batch, distance(estimate, target), target, previous))
        size = guided_distance(target, self.guidance)
        errors = {"guided_relative_l2": estimate - target, "guided_relative_l2_identity": previous - target}
        relative = {name: guided_distance(error, self.guidance) / size for name, error in errors.items()}
        self.validation_means.add({name: Figure(values) for name, values in relative.items()})
        if self.output is not None:
            self.validation_means.add({"output": Figure(self.output.error(estimate, target, batch))})

    def features(self, batch: AdaptorExample) -> tuple[Tensor, Tensor, Tensor]:
        """Runs the adaptor on a batch.

        Args:
            batch: The examples.

        Returns:
            The adaptor's estimate of `r_out`, the teacher's `r_out`, and that of the previous step, in float32, each
            `batch × channels × height × width`.
        """
        estimate = batch.to(batch.r_in.device, self.dtype).estimate(self.adaptor, self.guidance > 1)
        return estimate.float(), batch.r_out.float(), batch.r_out_prev.float()

    def step_figures(self, batch: AdaptorExample, loss: Tensor, target: Tensor, previous: Tensor) -> dict[str, Figure]:
        """Computes the figures that are logged for every batch.

        Args:
            batch: The examples.
            loss: Distance of the adaptor's estimate to the target, `batch`.
            target: The teacher's features, `batch × channels × height × width`.
            previous: Those of the previous step, of the same shape.

        Returns:
            The loss and that of the identity adaptor, which repeats the previous step; and for each adaptor step both
            of them relative to the size of the target.
        """
        identity = distance(previous, target)
        size = distance(torch.zeros_like(target), target)
        figures = {"loss": Figure(loss), "identity": Figure(identity)}
        steps = batch.step.to(loss.device)
        for step in self.steps:
            at_step = steps == step
            figures[f"relative_l2/step{step}"] = Figure(loss / size, at_step)
            figures[f"relative_l2_identity/step{step}"] = Figure(identity / size, at_step)
        return figures
