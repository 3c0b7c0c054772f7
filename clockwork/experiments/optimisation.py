"""The parts of a training that a config names by class: optimiser, learning-rate schedule, options of the trainer."""

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import StrategyRegistry
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from clockwork.errors import UserError
from clockwork.io.foreign import one_line

_CLASSES = {"optimizer": torch.optim.Optimizer, "lr_scheduler": torch.optim.lr_scheduler.LRScheduler}
# What depends on the machine; Lightning checks it when training begins.
_OF_MACHINE = ("accelerator", "devices", "num_nodes", "precision", "strategy")


def optimisation(cfg: DictConfig) -> dict[str, Any]:
    """Creates the optimiser and the learning-rate schedule, as objectives take them.

    Args:
        cfg: The composed config of the command `train`.
    """
    parts = {name: instantiate(cfg[name], _convert_="all") for name in _CLASSES}
    return parts if cfg.decay else {**parts, "lr_scheduler": None}  # plain lists and numbers: checkpoints hold them


def check_trainer(cfg: DictConfig) -> None:
    """Checks the optimiser, the learning-rate schedule and the trainer's options, before anything is loaded.

    Args:
        cfg: The composed config of the command `train`.

    Raises:
        UserError: One of them is not one, or has options that Lightning refuses.
    """
    for name, part in optimisation(cfg).items():
        target = getattr(part, "func", None)
        if part is not None and not (isinstance(target, type) and issubclass(target, _CLASSES[name])):
            known = f"torch.optim.{'' if name == 'optimizer' else 'lr_scheduler.'}"
            raise UserError(f"{name}._target_={cfg[name]._target_} is no {name}: use a class of {known}*")
    check_strategy(cfg.trainer.get("strategy", "auto"))
    options: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    plain = {name: value for name, value in options.items() if name not in _OF_MACHINE}
    try:
        # Without a look at the variables of Slurm or torchrun, of which the training itself takes care.
        alone: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "plugins": [LightningEnvironment()]}
        Trainer(**{**plain, "logger": False, "enable_checkpointing": False, **alone})
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"Lightning refuses the options in trainer: {one_line(error)}") from error


def check_strategy(strategy: str) -> None:
    """Checks the name of a strategy of Lightning.

    Args:
        strategy: The name.

    Raises:
        UserError: Lightning has none of that name.
    """
    if isinstance(strategy, str) and strategy not in ("auto", *StrategyRegistry.available_strategies()):
        raise UserError(f"trainer.strategy={strategy} is not known to Lightning: use ddp, or leave it out")
