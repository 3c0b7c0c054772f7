"""Trains an adaptor, `python scripts/train.py adaptor=resnet schedule=clock2`, or a teacher, `objective=recover`."""

from _command import command
from omegaconf import DictConfig


@command("train")
def main(cfg: DictConfig) -> None:
    from _train import train_adaptor, train_teacher
    from pytorch_lightning import seed_everything

    seed_everything(cfg.seed, verbose=False)
    if cfg.objective is None:
        train_adaptor(cfg)
    else:
        train_teacher(cfg)


if __name__ == "__main__":
    main()
