"""The command that trains a stage of the miniature."""

from pathlib import Path

from omegaconf import DictConfig
from pytorch_lightning import seed_everything
from torch import set_num_threads

from clockwork.experiments.optimisation import check_strategy
from clockwork.io.device import choose_device, lightning_device
from clockwork.miniature.training import Recipe


def train_stage(cfg: DictConfig) -> None:
    """Trains the config's stage, unless its result exists."""
    device = choose_device(cfg.device)
    check_strategy(cfg.trainer.strategy)
    seed_everything(cfg.seed, verbose=False)
    if device.type == "cpu":
        set_num_threads(1)  # two processes of one thread beat one of two
    one, several = lightning_device(device), {**cfg.trainer, **lightning_device(device, cfg.trainer.devices)}
    recipe, start = Recipe(Path(cfg.output)), {"miniature": "draft", "miniature_sd": "miniature"}
    if cfg.stage == "ship":
        recipe.ship()
    elif cfg.stage == "autoencoder":
        recipe.autoencoder(cfg.autoencoder, one)
    elif cfg.stage == "clip":
        recipe.clip(cfg.clip, one)
    else:
        recipe.teacher(cfg.stage, cfg[cfg.stage], cfg.scenes, several, start.get(cfg.stage))
