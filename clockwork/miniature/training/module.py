"""The base class of the miniature's training modules.

The scenes of a batch depend on the step and the process alone. A resumed run therefore trains on the same scenes as an
uninterrupted one, and processes never share scenes.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import CLIPTokenizer

from clockwork.miniature import scenes


class MiniatureModule(LightningModule):
    """Base class: batches by step, and AdamW with warm-up and cosine decay to zero.

    Args:
        batch_size: Scenes per batch and process.
        learning_rate: Peak learning rate.
        steps: Number of optimiser steps.
    """

    def __init__(self, batch_size: int, learning_rate: float, steps: int) -> None:
        super().__init__()
        self.save_hyperparameters("batch_size", "learning_rate", "steps")

    def train_dataloader(self) -> DataLoader[int]:
        """Returns step numbers; `training_step` renders its own scenes."""
        return DataLoader(range(self.hparams.steps), batch_size=None)  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Seeds the noise differently per process and per step at which training starts or resumes."""
        torch.manual_seed(torch.initial_seed() + 1_000_000 * self.global_rank + self.global_step)

    def scenes(self, split: str = "train") -> tuple[list[str], Tensor]:
        """Renders the scenes of this step and process.

        Args:
            split: Split of the scenes.

        Returns:
            The captions, and the images in [−1, 1], `batch × 3 × height × width`.
        """
        captions, images = scenes.render_batch(split, self.first_scene, self.hparams.batch_size)
        return captions, images.to(self.device)

    @property
    def first_scene(self) -> int:
        """Index of the first scene of this step and process."""
        batch: int = self.global_step * self.trainer.world_size + self.global_rank
        return batch * int(self.hparams.batch_size)

    def configure_optimizers(self) -> dict[str, Any]:
        """Creates AdamW and its learning rate schedule."""
        rate, steps = self.hparams.learning_rate, self.hparams.steps
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.03, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def tokens(words: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Tokenizes captions with padding and truncation, as Stable Diffusion's pipeline does.

    Args:
        words: The tokenizer.
        captions: The captions.

    Returns:
        Token ids, `batch × model_max_length`.
    """
    batch = words(captions, padding="max_length", truncation=True, return_tensors="pt")
    return batch.input_ids
