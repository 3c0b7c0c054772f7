"""The training loop on random features: a ResNet for tiny maps, in a second."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import LightningDataModule, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clockwork.adaptors import FeatureDims, ResNet
from clockwork.training.adaptor_example import AdaptorExample
from clockwork.training.fit import fit
from clockwork.training.objectives.adaptor import AdaptorDistillation

QUIET = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
SGD = partial(torch.optim.SGD, lr=0.05)
STEPS = (2, 4)


def batch(seed: int, pairs: int = 4) -> AdaptorExample:
    """Negative halves, then the prompts'; of steps 2 and 4 in turn."""
    rng = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.randn(2 * pairs, *size, generator=rng)

    r_in, before = random(4, 6, 6), random(6, 6, 6)
    step, half = torch.tensor(STEPS).repeat(pairs), torch.arange(2).repeat_interleave(pairs)
    return AdaptorExample(r_in, before, random(8), random(5), before + 0.3 * r_in.mean(1, keepdim=True), step, half)


def loader(batches: Sequence[AdaptorExample]) -> DataLoader[AdaptorExample]:
    """Loads the batches as they are."""
    return DataLoader(cast(Dataset[AdaptorExample], batches), batch_size=None)


class Examples(LightningDataModule):
    def __init__(self, batches: Sequence[AdaptorExample]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[AdaptorExample]:
        return loader(self.batches)

    def val_dataloader(self) -> DataLoader[AdaptorExample]:
        return loader([batch(100), batch(101, pairs=2)])


def module(**options: Any) -> AdaptorDistillation:
    seed_everything(0, verbose=False)
    adaptor = ResNet(FeatureDims(4, 6, 8, 5), 8, 1)
    return AdaptorDistillation(adaptor, STEPS, **{"guidance": 3.0, "guided": 1.0, "optimizer": SGD, **options})


BATCHES = [batch(seed) for seed in range(3)] + [batch(3, pairs=1)]  # the last is smaller
VALIDATED: dict[str, Any] = {"monitor": "val/guided_relative_l2"}


def run(folder: Path, epochs: int = 2, options: dict[str, Any] | None = None, **training: Any) -> AdaptorDistillation:
    made = module(**(options or {}))
    fit(made, folder, Examples(BATCHES), max_epochs=epochs, **{**QUIET, **training})
    return made
