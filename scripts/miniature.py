"""Trains the miniature: tokenizer, autoencoder, small CLIP, then text encoder and UNet. Resumes; `make miniature`."""

from pathlib import Path
from typing import Any

from _command import command
from omegaconf import DictConfig


@command("miniature")
def main(cfg: DictConfig) -> None:
    from pytorch_lightning import seed_everything
    from torch import set_num_threads

    from clockwork.training.miniature import Recipe

    seed_everything(cfg.seed, verbose=False)
    if cfg.trainer.accelerator != "gpu":
        set_num_threads(1)  # two processes of one thread beat one of two
    one: dict[str, Any] = {"accelerator": cfg.trainer.accelerator, "devices": 1}
    recipe = Recipe(Path(cfg.output))
    recipe.autoencoder(cfg.autoencoder, one)
    recipe.clip(cfg.clip, one)
    for name, start in (("draft", None), ("miniature", "draft"), ("miniature_sd", "miniature")):
        recipe.teacher(name, cfg[name], cfg.scenes, dict(cfg.trainer), start)
    if cfg.ship:
        recipe.ship()


if __name__ == "__main__":
    main()
