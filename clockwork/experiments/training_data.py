"""What a training command trains on and validates with, from its config."""

import os
import random
from collections.abc import Sequence
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from clockwork.io import slurm
from clockwork.training.datamodule import OnlineDataModule, check_items
from clockwork.training.fit import check_options


def train_and_validation_items(cfg: DictConfig) -> tuple[Sequence[Any], Sequence[Any]]:
    """What is trained on, and what is held out for validation: the validation split of a source that has splits, else a
    random part, at most a tenth."""
    items = instantiate(cfg.data.source)
    check_items(min(cfg.prompts_per_epoch, len(items)), num_processes(cfg))
    count = min(cfg.val_prompts, len(items) // 10)
    check_options(cfg.keep, cfg.patience, cfg.ema, cfg.trainer.precision, validated=count > 0)
    if not count:
        return items, []
    if cfg.data.source.get("split"):
        return items, validation_split(cfg, count)
    chosen = set(random.Random(f"{cfg.seed}/validation").sample(range(len(items)), count))
    return [item for i, item in enumerate(items) if i not in chosen], [items[i] for i in sorted(chosen)]


def validation_split(cfg: DictConfig, count: int) -> Sequence[Any]:
    """Returns the first items of the source's validation split."""
    items: Sequence[Any] = instantiate(cfg.data.source, split="validation", count=count)
    return items


def num_processes(cfg: DictConfig) -> int:
    """How many train together: torchrun's or Slurm's, or those that Lightning will start."""
    slurm.check_equal_nodes()
    return int(os.environ.get("WORLD_SIZE", cfg.trainer.devices * cfg.trainer.get("num_nodes", 1)))


def make_data(
    cfg: DictConfig, source: Any, items: Sequence[Any], held_out: Sequence[Any], grouped: bool = True
) -> OnlineDataModule:
    return OnlineDataModule(
        source,
        items,
        per_epoch=cfg.prompts_per_epoch,
        repeats_per_epoch=cfg.repeats_per_epoch,
        batch_size=cfg.batch_size,
        generation_batch_size=cfg.generation_batch_size,
        seed=cfg.seed,
        max_gb=cfg.max_examples_gb,
        examples_device=cfg.examples_device,
        grouped=grouped,
        validation=held_out,
    )
