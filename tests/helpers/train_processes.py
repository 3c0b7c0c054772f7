"""What `test_training_processes.py` starts in two processes: objectives' trainings, and a batch's gradient.

Arguments: a folder, and the objectives' names. The gradient belongs to the adaptor's.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from helpers.commands import config
from helpers.models import small_teacher
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from clockwork.adaptors import ResNet
from clockwork.data.prompts import Prompt
from clockwork.experiments.train import train_adaptor, train_teacher
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.fit import fit
from clockwork.training.objectives.adaptor import AdaptorDistillation
from clockwork.unet.split import SplitUNet

# Three prompts for two processes, in generation batches of two: a step count is drawn for each.
SMALL = ["teacher=miniature_sd", "teacher.resolution=16"]
FEW = [*SMALL, "prompts_per_epoch=3", "generation_batch_size=1", "batch_size=4"]
OBJECTIVES = {
    "adaptor": ["adaptor.width=16", "steps=4"],
    "guidance": ["objective=guidance", "step_counts=[1,4]"],
    "recover": ["objective=recover", "step_counts=[1,4]"],
    "consistency": ["objective=consistency", "step_counts=[2,4]", "clocked=0.5", "adaptor=linear"],
    "progressive": ["objective=progressive", "teacher.guidance=1", "start=2", "end=1"],
}


def train(folder: Path, rank: int, names: Sequence[str]) -> None:
    """Writes the optimiser's steps of this process in each objective's last training."""
    steps = {}
    for name in names:
        seed_everything(0, verbose=False)
        cfg = config(folder / name, *FEW, "trainer.devices=2", "+trainer.strategy=ddp", *OBJECTIVES[name])
        _, trainer = (train_adaptor if name == "adaptor" else train_teacher)(cfg)
        assert trainer is not None
        steps[name] = trainer.global_step
    (folder / f"steps{rank}.json").write_text(json.dumps(steps))


class Gradient(Callback):
    """Keeps the gradient of the first step."""

    def __init__(self) -> None:
        self.first: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: object) -> None:
        if not self.first:
            self.first = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def first_gradient(folder: Path, processes: int) -> dict[str, torch.Tensor]:
    """Of an adaptor on four prompts, all of which are one batch."""
    seed_everything(0, verbose=False)
    teacher = small_teacher("bk_sdm_tiny", guidance=3.0)
    adaptor = ResNet(feature_dims(teacher, "stage1"), 8, 1, ("r_in", "r_out_prev", "t_emb"))
    sampler = Sampler(teacher, SplitUNet(teacher.unet), Schedule.parse("clock2"), "dpm++", 2, 3.0, adaptor, "resnet")
    prompts = [Prompt(i, f"a star {i}") for i in range(4)]
    data = OnlineDataModule(TrajectoryExamples(sampler), prompts, 4, 1, 8 // processes)
    module, gradient = AdaptorDistillation(adaptor, guidance=3.0, guided=1.0), Gradient()
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": processes}
    fit(module, folder, data, (gradient,), max_epochs=1, reload_dataloaders_every_n_epochs=1, **quiet)
    return gradient.first


if __name__ == "__main__":
    output, number = Path(sys.argv[1]), int(os.environ["RANK"])
    train(output, number, sys.argv[2:])
    if "adaptor" in sys.argv:
        torch.save(first_gradient(output / "gradient", 2), output / f"gradient{number}.pt")
