"""The two things that are trained: an adaptor against a teacher, and a UNet to be a teacher."""

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import LightningModule, Trainer, seed_everything

from clockwork.adaptors import save_adaptor
from clockwork.data.prompts import Prompt
from clockwork.experiments.build import check_trainable, make_sampler
from clockwork.experiments.run_dir import adaptor_folder, claim, is_main_process, mark_trained, report_truncation
from clockwork.io.device import lightning_device
from clockwork.reports.loggers import log_adaptor, make_logger
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.training.datamodule import OnlineDataModule, check_items
from clockwork.training.fit import check_options, fit
from clockwork.training.objectives.adaptor import AdaptorDistillation
from clockwork.training.objectives.base import Objective
from clockwork.training.objectives.progressive import halvings
from clockwork.training.plan import Plan, adaptor_plan, total, unet_plan
from clockwork.training.samples import SampleImages, comparison_samplers
from clockwork.unet.split import SplitUNet


@dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
        folder: The folder of the adaptor or teacher.
        metrics: The figures of the epoch whose weights were kept, such as `val/loss`; empty if it was trained already.
    """

    folder: Path
    metrics: Mapping[str, float]


def train(cfg: DictConfig) -> Trained:
    """Trains the config's adaptor, or with an objective its teacher, unless that has been done.

    Args:
        cfg: The composed config of the command `train`.

    Raises:
        UserError: The config has nothing to train, its parts do not go together, or its folder holds another run.
    """
    seed_everything(cfg.seed, verbose=False)
    folder, trainer = train_adaptor(cfg) if cfg.objective is None else train_teacher(cfg)
    metrics = {} if trainer is None else dict(cast(Objective, trainer.lightning_module).figures)
    return Trained(folder, metrics)


def train_adaptor(cfg: DictConfig) -> tuple[Path, Trainer | None]:
    """Trains and saves the config's adaptor.

    Returns:
        The adaptor's folder, and the finished trainer; None if the adaptor had been trained already.
    """
    check_trainable(cfg)
    items, held_out = train_and_validation_items(cfg)
    teacher = instantiate(cfg.teacher)
    adaptor = instantiate(cfg.adaptor)(feature_dims(teacher, str(cfg.cut))).to(teacher.device)
    sampler = make_sampler(cfg, teacher, adaptor, cfg.adaptor_name)
    # Only the guided loss needs both halves of guidance in one batch: the paper's takes examples each for itself.
    data = _data(cfg, instantiate(cfg.data.examples)(sampler), items, held_out, grouped=cfg.guided > 0)
    output = adaptor_folder(cfg, cfg.adaptor_name, cfg.output)
    result = output / "adaptor"
    if claim(output, cfg, teacher, items, result) >= cfg.epochs:
        _print_finished(result, cfg.epochs)
        return result, None
    report_truncation(teacher, items)
    _print_plan(adaptor_plan(sampler, data, **_sizes(cfg)))
    guidance = cfg.guidance if teacher.unet_calls_per_step(cfg.guidance) == 2 else 1.0
    steps = sampler.schedule.adaptor_steps(sampler.num_unet_calls)
    module = AdaptorDistillation(adaptor, steps, guidance, cfg.guided, **optimisation(cfg))
    trainer = _fit(cfg, module, output, data, comparison_samplers(sampler), items, "val/guided_relative_l2")
    if trainer.is_global_zero:
        about = {
            "training": module.figures,
            "weights": {"epoch": cfg.keep, "ema": cfg.ema},
            "openclip": teacher.text_embedder and teacher.text_embedder.config,
        }
        save_adaptor(result, adaptor, sampler.point, base_model=teacher.hub_name, **about)
        mark_trained(output, cfg.epochs)
        log_adaptor(trainer.loggers, result, asdict(sampler.point))
        print(f"adaptor in {result}")
    return result, trainer


def train_teacher(cfg: DictConfig) -> tuple[Path, Trainer | None]:
    """Trains and saves a teacher: in one training, or with `start` and `end` in one for each halving of the steps.

    Returns:
        The teacher's folder, and the last finished trainer; None if the teacher had been trained already.
    """
    objective = instantiate(cfg.objective)
    items, held_out = train_and_validation_items(cfg)
    teacher = objective.func.check_teacher(instantiate(cfg.teacher))
    name = cfg.name or f"{teacher.name}_{cfg.objective_name}"
    scales = None if teacher.guidance == 1 else cfg.scales  # a teacher without guidance has no scale to draw
    stages = halvings(cfg.start, cfg.end) if "start" in cfg else [cfg.steps]
    # Before anything is written: not every UNet is fit for every objective, cut and solver.
    untrained, _ = objective.func.init_student(teacher), _full(cfg, teacher, stages[0])
    output, result = Path(cfg.output) / name, Path(cfg.teachers) / name
    if claim(output, cfg, teacher, items, result) >= cfg.epochs:
        _print_finished(result, cfg.epochs)
        return result, None
    report_truncation(teacher, items)
    guided = scales is not None or cfg.guidance != 1

    def examples(steps: int) -> tuple[Sampler, OnlineDataModule]:
        """Those from which a student of so many steps learns, of the teacher's roll-outs."""
        stride = objective.func.step_stride
        sampler = _full(cfg, teacher, steps * stride)
        return sampler, _data(
            cfg, instantiate(cfg.data.latents)(sampler, scales, cfg.step_counts, stride), items, held_out
        )

    trained = _full(cfg, teacher.with_components(name, unet=untrained), stages[-1])
    _print_plan(*[unet_plan(*examples(n), objective.func, trained, guided, **_sizes(cfg)) for n in stages])
    for steps in stages:
        student = teacher.with_components(name, unet=untrained)
        module = objective(teacher, untrained, steps, guided=guided, **optimisation(cfg))
        sampler, data = examples(steps)
        samplers = {f"before, {sampler.steps} steps": sampler, f"trained, {steps} steps": _full(cfg, student, steps)}
        folder = output / f"{steps}steps" if len(stages) > 1 else output
        trainer = _fit(cfg, module, folder, data, samplers, items, "val/loss")
        student.unet.to(teacher.device).eval().requires_grad_(False)
        teacher, untrained = student, objective.func.init_student(student) if steps != stages[-1] else None
    if trainer.is_global_zero:
        teacher.save(result)
        mark_trained(output, cfg.epochs)
        print(f"teacher in {result}: pass teacher.path={result}")
    return result, trainer


def _print_finished(result: Path, epochs: int) -> None:
    if is_main_process():
        print(f"already trained for {epochs} epochs: {result}")


def _full(cfg: DictConfig, teacher: Teacher, steps: int) -> Sampler:
    return Sampler(teacher, SplitUNet(teacher.unet, str(cfg.cut)), Schedule(), cfg.solver, steps, cfg.guidance)


def train_and_validation_items(cfg: DictConfig) -> tuple[Sequence[Any], Sequence[Any]]:
    """What is trained on, and what is held out for validation: the validation split of a source that has splits, else a
    random part, at most a tenth."""
    items = instantiate(cfg.data.source)
    check_items(min(cfg.prompts_per_epoch, len(items)), _processes(cfg))
    count = min(cfg.val_prompts, len(items) // 10)
    check_options(cfg.keep, cfg.patience, cfg.ema, cfg.trainer.precision, validated=count > 0)
    if not count:
        return items, []
    if cfg.data.source.get("split"):
        return items, _validation_split(cfg, count)
    chosen = set(random.Random(f"{cfg.seed}/validation").sample(range(len(items)), count))
    return [item for i, item in enumerate(items) if i not in chosen], [items[i] for i in sorted(chosen)]


def _validation_split(cfg: DictConfig, count: int) -> Sequence[Any]:
    """Returns the first items of the source's validation split."""
    items: Sequence[Any] = instantiate(cfg.data.source, split="validation", count=count)
    return items


def _processes(cfg: DictConfig) -> int:
    """How many train together: torchrun's, or those that Lightning will start."""
    return int(os.environ.get("WORLD_SIZE", cfg.trainer.devices * cfg.trainer.get("num_nodes", 1)))


def _sizes(cfg: DictConfig) -> dict[str, Any]:
    """What a plan depends on besides the examples and what is trained."""
    return {"epochs": cfg.epochs, "world_size": _processes(cfg), "ema": cfg.ema is not None}


def _print_plan(*plans: Plan) -> None:
    """Of trainings one after the other; the first process alone."""
    if is_main_process():
        print(total(plans))


def _data(
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


def optimisation(cfg: DictConfig) -> dict[str, Any]:
    """The optimiser and the learning-rate schedule, as objectives take them."""
    parts = {name: instantiate(cfg[name], _convert_="all") for name in ("optimizer", "lr_scheduler")}
    return parts if cfg.decay else {**parts, "lr_scheduler": None}  # plain lists and numbers: checkpoints hold them


def _fit(
    cfg: DictConfig,
    module: LightningModule,
    output: Path,
    data: OnlineDataModule,
    samplers: Mapping[str, Sampler],
    items: Sequence[Prompt],
    monitor: str,
) -> Trainer:
    """Trains with the config's callbacks, and sample images of the samplers."""
    device = next(iter(samplers.values())).teacher.device
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", cfg.trainer.devices))  # torchrun's, or for Lightning to start
    prompts = _validation_split(cfg, 8) if cfg.data.source.get("split") else items[:8]
    return fit(
        module,
        output,
        data,
        [
            *(instantiate(callback, _convert_="all") for callback in cfg.callbacks.values()),
            SampleImages(samplers, prompts, output / "samples", cfg.samples_every),
        ],
        ema=cfg.ema,
        monitor=monitor if data.validation else None,
        keep=cfg.keep,
        patience=cfg.patience,
        max_epochs=cfg.epochs,
        reload_dataloaders_every_n_epochs=1,
        logger=make_logger(cfg.logger, output),
        **{**cfg.trainer, **lightning_device(device, devices)},
    )
