"""Trains an adaptor: `python scripts/train.py adaptor=resnet schedule=clock2`."""

from dataclasses import asdict

from _command import command
from omegaconf import DictConfig


@command("train")
def main(cfg: DictConfig) -> None:
    from _compose import adaptor_folder, claim, make_setup
    from hydra.utils import instantiate
    from pytorch_lightning import seed_everything

    from clockwork.adaptors import save_adaptor
    from clockwork.prompts import miniature
    from clockwork.reports.loggers import log_adaptor, make_logger
    from clockwork.setup import widths
    from clockwork.training.distillation import Distillation
    from clockwork.training.fit import fit
    from clockwork.training.samples import Samples
    from clockwork.training.trajectories import Trajectories

    seed_everything(cfg.seed, verbose=False)
    if cfg.adaptor_name in ("none", "folder", "identity"):
        raise ValueError(f"adaptor={cfg.adaptor_name} has nothing to train: say adaptor=resnet, unet or unet_light")
    teacher = instantiate(cfg.teacher)
    prompts = instantiate(cfg.prompts)
    adaptor = instantiate(cfg.adaptor)(widths(teacher, str(cfg.cut))).to(teacher.device)
    setup = make_setup(cfg, teacher, adaptor, cfg.adaptor_name)
    data = Trajectories(
        setup,
        prompts,
        cfg.prompts_per_epoch,
        cfg.passes,
        cfg.batch_size,
        cfg.generation_batch_size,
        cfg.seed,
        cfg.features,
    )
    output = adaptor_folder(cfg, cfg.adaptor_name, cfg.output)
    claim(output, cfg)
    samples = Samples(
        setup,
        miniature("validation", 8) if cfg.prompts.get("split") else prompts[:8],
        output / "samples",
        cfg.samples_every,
    )
    module = Distillation(adaptor, cfg.learning_rate, cfg.epochs, cfg.decay, cfg.guidance, cfg.guided)
    trainer = fit(
        module,
        output,
        data,
        (samples,),
        max_epochs=cfg.epochs,
        reload_dataloaders_every_n_epochs=1,
        logger=make_logger(cfg.logger, output),
        **cfg.trainer,
    )
    if trainer.is_global_zero:
        figures = {k: float(v) for k, v in trainer.callback_metrics.items()}
        about = {"training": figures, "openclip": teacher.pooled and teacher.pooled.config}
        save_adaptor(output / "adaptor", adaptor, setup.point, base_model=teacher.hub_name, **about)
        log_adaptor(trainer.loggers, output / "adaptor", asdict(setup.point))
        print(f"adaptor in {output / 'adaptor'}")


if __name__ == "__main__":
    main()
