"""Model-step distillation: the adaptor's features against the frozen teacher's (paper, Section 4.3, equation 3)."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from clockwork.adaptors import Adaptor
from clockwork.metrics.similarity import distance
from clockwork.training.trajectories import AdaptorExample


class Distillation(LightningModule):
    """Holds the adaptor and nothing frozen: so does its checkpoint."""

    def __init__(self, adaptor: Adaptor, learning_rate: float = 1e-4, epochs: int = 120, decay: bool = False) -> None:
        super().__init__()
        self.adaptor = adaptor
        self.learning_rate, self.epochs, self.decay = learning_rate, epochs, decay

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
        return loss.mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.adaptor.parameters(), lr=self.learning_rate)
        if not self.decay:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)]
