"""Trains an adaptor, `python scripts/train.py adaptor=resnet schedule=clock2`, or a teacher, `objective=recover`."""

from omegaconf import DictConfig

from clockwork.experiments.command import command


@command("train", kept="the checkpoints of finished epochs")
def main(cfg: DictConfig) -> None:
    from pytorch_lightning import seed_everything

    from clockwork.experiments.train import train_adaptor, train_teacher

    seed_everything(cfg.seed, verbose=False)
    if cfg.objective is None:
        train_adaptor(cfg)
    else:
        train_teacher(cfg)


if __name__ == "__main__":
    main()
