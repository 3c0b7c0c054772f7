"""Model-step distillation: the adaptor's features against the frozen teacher's (paper, Section 4.3, equation 3)."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from clockwork.adaptors import Adaptor
from clockwork.metrics.similarity import distance
from clockwork.sampling.guidance import apply_guidance
from clockwork.training.epoch_means import Figure
from clockwork.training.examples import AdaptorExample
from clockwork.training.objectives.base import Objective


@final
class AdaptorDistillation(Objective):
    """Trains an adaptor; the loss is computed in float32 whatever the precision of the teacher and of training.

    Guidance runs every step twice and pushes the two apart: `e₋ + guidance × (e₊ − e₋)` of their errors reaches the
    image. With `guided` above 0 that error's distance is added to the loss, so weighted; batches then hold the negative
    halves first. The paper's loss is `guided` 0, each half by itself.

    Args:
        adaptor: What is trained.
        steps: The adaptor steps of the schedule, for figures by step; none by default.
        guidance: The guidance scale; 1 where the teacher takes one pass per step.
        guided: Weight in the loss of the error after guidance.
        training: `Objective`'s optimiser and learning-rate schedule.
    """

    def __init__(
        self,
        adaptor: Adaptor,
        steps: Sequence[int] = (),
        guidance: float = 1.0,
        guided: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.adaptor, self.steps = adaptor, tuple(steps)
        self.guidance, self.guided = guidance, guided if guidance != 1 else 0.0

    def training_step(self, batch: AdaptorExample) -> Tensor:
        estimate, truth, before = self.features(batch)
        with torch.autocast(truth.device.type, enabled=False):
            loss = distance(estimate, truth)
            self.means.add(self.step_figures(batch, loss, truth, before))
            if not self.guided:
                return loss.mean()
            guided = guided_distance(estimate - truth, self.guidance)
            guided_identity = guided_distance(before - truth, self.guidance)
            self.means.add({"guided": Figure(guided), "guided_identity": Figure(guided_identity)})
            return loss.mean() + self.guided * guided.mean()

    def validation_step(self, batch: AdaptorExample) -> None:
        """Figures of held-out examples, in batches with both halves of guidance, whatever the loss."""
        estimate, truth, before = self.features(batch)
        self.validation_means.add(self.step_figures(batch, distance(estimate, truth), truth, before))
        size = guided_distance(truth, self.guidance)
        errors = {"guided_relative_l2": estimate - truth, "guided_relative_l2_identity": before - truth}
        relative = {name: guided_distance(error, self.guidance) / size for name, error in errors.items()}
        self.validation_means.add({name: Figure(values) for name, values in relative.items()})

    def features(self, batch: AdaptorExample) -> tuple[Tensor, Tensor, Tensor]:
        """The adaptor's estimate of `r_out`, the teacher's, and the step before's, all in float32."""
        inputs = batch.to(batch.r_in.device, self.dtype)
        text = inputs.text_emb if inputs.text_emb.shape[1] else None
        estimate = self.adaptor(inputs.r_in, inputs.r_out_prev, inputs.t_emb, text)
        return estimate.float(), batch.r_out.float(), batch.r_out_prev.float()

    def step_figures(self, batch: AdaptorExample, loss: Tensor, truth: Tensor, before: Tensor) -> dict[str, Figure]:
        """The loss, and the loss of repeating the step before, from which the adaptor earns the difference; and both
        relative to the teacher's features, by step."""
        identity = distance(before, truth)
        size = distance(torch.zeros_like(truth), truth)
        figures = {"loss": Figure(loss), "identity": Figure(identity)}
        number = batch.step.to(loss.device)
        for step in self.steps:
            here = number == step
            figures[f"relative_l2/step{step}"] = Figure(loss / size, here)
            figures[f"relative_l2_identity/step{step}"] = Figure(identity / size, here)
        return figures


def guided_distance(error: Tensor, guidance: float) -> Tensor:
    """The distance that guidance makes of two halves' errors: `2n × …` → `n`, negative halves first. At guidance 1,
    without a negative half, each error's own: `n × …` → `n`."""
    guided = error if guidance == 1 else apply_guidance(error, guidance)
    return distance(guided, torch.zeros_like(guided))
