"""A pipeline folder of a published model at real size with random weights."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from clockwork.errors import UserError
from clockwork.io.device import choose_precision
from clockwork.teachers import Teacher
from clockwork.teachers.random_weights import random_pipeline


def make_random_teacher(cfg: DictConfig) -> Path:
    """Returns the folder of the pipeline."""
    path = Path(cfg.path)
    if path.exists():
        raise UserError(f"{path} is there already: name another, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    pipe = random_pipeline(cfg.architecture, cfg.seed)
    millions = sum(p.numel() for p in pipe.unet.parameters()) / 1e6
    Teacher(cfg.architecture, pipe.to(choose_precision(cfg.precision, torch.device("cpu")))).save(path)
    print(f"{cfg.architecture}, UNet of {millions:.2f}M random parameters, in {path}")
    return path
