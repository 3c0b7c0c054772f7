"""Model-step distillation: the adaptor's features against the frozen teacher's (paper, Section 4.3, equation 3)."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from clockwork.adaptors import Adaptor
from clockwork.metrics.similarity import distance
from clockwork.sampling.rollout import guide
from clockwork.training.examples import AdaptorExample
from clockwork.training.fit import adam


class Distillation(LightningModule):
    """Holds the adaptor and nothing frozen: so does its checkpoint.

    Guidance runs every step twice and pushes the two apart: `e₋ + guidance × (e₊ − e₋)` of their errors reaches the
    picture. With `guided` above 0 that error's distance is added to the loss, so weighted; batches then hold the
    negative halves first. The paper's loss is `guided` 0, each half for itself.
    """

    def __init__(
        self,
        adaptor: Adaptor,
        learning_rate: float = 1e-4,
        epochs: int = 120,
        decay: bool = False,
        guidance: float = 1.0,
        guided: float = 0.0,
    ) -> None:
        super().__init__()
        self.adaptor = adaptor
        self.learning_rate, self.epochs, self.decay = learning_rate, epochs, decay
        self.guidance, self.guided = guidance, guided if guidance != 1 else 0.0

    def training_step(self, batch: AdaptorExample) -> Tensor:
        batch = batch.to(self.device, self.dtype)
        text = batch.text_emb if batch.text_emb.shape[1] else None
        estimate = self.adaptor(batch.r_in, batch.r_out_prev, batch.t_emb, text)
        loss = distance(estimate, batch.r_out)
        # What standing still would have cost on the same batch: the adaptor earns the difference.
        still = distance(batch.r_out_prev, batch.r_out)
        self.log("loss", loss.mean(), prog_bar=True, on_step=True, on_epoch=True)
        self.log("identity", still.mean(), prog_bar=True, on_step=False, on_epoch=True)
        size = distance(torch.zeros_like(batch.r_out), batch.r_out)
        for step in batch.step.unique().tolist():
            here = batch.step == step
            for name, value in (("relative_l2", loss.detach()), ("relative_l2_identity", still)):
                mean = (value / size)[here].mean()
                self.log(f"{name}/step{step}", mean, on_step=False, on_epoch=True, batch_size=int(here.sum()))
        if not self.guided:
            return loss.mean()
        pushed = guided_distance(estimate - batch.r_out, self.guidance).mean()
        still = guided_distance(batch.r_out_prev - batch.r_out, self.guidance).mean()
        self.log_dict({"guided": pushed, "guided_identity": still}, on_step=False, on_epoch=True)
        return loss.mean() + self.guided * pushed

    def configure_optimizers(self) -> Any:
        return adam(self.adaptor.parameters(), self.learning_rate, self.epochs, self.decay)


def guided_distance(error: Tensor, guidance: float) -> Tensor:
    """The distance that guidance makes of two halves' errors: `2n × …` → `n`, negative halves first."""
    guided = guide(error, guidance)
    return distance(guided, torch.zeros_like(guided))
