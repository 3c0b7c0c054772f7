"""The two things that are trained: an adaptor against a teacher, and a UNet to be a teacher."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning import LightningModule, Trainer, seed_everything

from clockwork.adaptors import adaptor_hash, check_adaptor_folder, save_adaptor
from clockwork.data.prompts import Prompt
from clockwork.experiments.adaptor_in_training import clocked_student, load_base, make_adaptor
from clockwork.experiments.build import make_sampler
from clockwork.experiments.optimisation import check_trainer, optimisation
from clockwork.experiments.run_dir import adaptor_folder, claim, is_main_process, mark_trained, report_truncation
from clockwork.experiments.training_data import make_data, num_processes, train_and_validation_items, validation_split
from clockwork.io.atomic import check_folder
from clockwork.io.device import lightning_device
from clockwork.io.fingerprint import weights_hash
from clockwork.io.lock import release_folders
from clockwork.reports.loggers import log_adaptor, make_logger
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.ends import RolloutEndSource
from clockwork.training.fit import fit
from clockwork.training.objectives.adaptor import AdaptorDistillation
from clockwork.training.objectives.base import Objective
from clockwork.training.objectives.guided_output import GuidedOutput
from clockwork.training.objectives.progressive import halvings
from clockwork.training.objectives.rollout import RolloutDistillation
from clockwork.training.plan import Plan, adaptor_plan, total, unet_plan
from clockwork.training.samples import SampleImages, comparison_samplers
from clockwork.training.source import ExampleSource
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


@release_folders()
def train(cfg: DictConfig) -> Trained:
    """Trains the config's adaptor, or with an objective its teacher, unless that has been done.

    Args:
        cfg: The composed config of the command `train`.

    Raises:
        UserError: The config has nothing to train, its parts do not go together, or its folder holds another run.
    """
    check_trainer(cfg)
    seed_everything(cfg.seed, verbose=False)
    folder, trainer = train_adaptor(cfg) if cfg.objective is None else train_teacher(cfg)
    metrics = {} if trainer is None else dict(cast(Objective, trainer.lightning_module).figures)
    return Trained(folder, metrics)


def train_adaptor(cfg: DictConfig) -> tuple[Path, Trainer | None]:
    """Trains and saves the config's adaptor.

    Returns:
        The adaptor's folder, and the finished trainer; None if the adaptor had been trained already.
    """
    base = load_base(cfg)
    items, held_out = train_and_validation_items(cfg)
    teacher = instantiate(cfg.teacher)
    base_hash = None if base is None else adaptor_hash(base)
    name, adaptor = make_adaptor(cfg, teacher, base)
    sampler = make_sampler(cfg, teacher, adaptor.to(teacher.device), name)
    # Losses after guidance and joint maps need both halves in one batch: the paper's takes examples each for itself.
    grouped = cfg.guided + cfg.output_loss > 0 or adaptor.reads_both_halves
    data = make_data(cfg, _source(cfg, sampler), items, held_out, grouped)
    output = adaptor_folder(cfg, name, cfg.output)
    result = output / "adaptor"
    if claim(output, cfg, teacher, items, result, base=base_hash, check_result=check_adaptor_folder) >= cfg.epochs:
        _print_finished(result, cfg.epochs)
        return result, None
    report_truncation(teacher, items)
    of_loss = {"output_loss": cfg.output_loss > 0, "through_rollout": cfg.loss == "latents"}
    _print_plan(adaptor_plan(sampler, data, **of_loss, **_sizes(cfg)))
    monitor = "val/loss" if cfg.loss == "latents" else "val/guided_relative_l2"
    trainer = _fit(cfg, _distillation(cfg, sampler), output, data, comparison_samplers(sampler), items, monitor)
    if trainer.is_global_zero:
        about = {
            "training": cast(Objective, trainer.lightning_module).figures,
            "base": base_hash,
            "weights": {"epoch": cfg.keep, "ema": cfg.ema},
            "openclip": teacher.text_embedder and teacher.text_embedder.config,
        }
        save_adaptor(result, adaptor, sampler.point, base_model=teacher.hub_name, **about)
        mark_trained(output, cfg.epochs)
        log_adaptor(trainer.loggers, result, asdict(sampler.point))
        print(f"adaptor in {result}")
    return result, trainer


def _source(cfg: DictConfig, sampler: Sampler) -> ExampleSource:
    """The examples from which the sampler's adaptor is trained."""
    if cfg.loss == "latents":
        return RolloutEndSource(sampler)
    source: ExampleSource = instantiate(cfg.data.examples)(
        sampler, **({"with_latents": True} if cfg.output_loss else {})
    )
    return source


def _distillation(cfg: DictConfig, sampler: Sampler) -> Objective:
    """The objective that trains the sampler's adaptor."""
    assert sampler.adaptor is not None
    if cfg.loss == "latents":
        return RolloutDistillation(sampler, **optimisation(cfg))
    guidance = cfg.guidance if sampler.teacher.unet_calls_per_step(cfg.guidance) == 2 else 1.0
    steps = sampler.schedule.adaptor_steps(sampler.num_unet_calls)
    output = GuidedOutput(sampler) if cfg.output_loss else None
    weights = {"guided": cfg.guided, "output_loss": cfg.output_loss}
    return AdaptorDistillation(sampler.adaptor, steps, guidance, output=output, **weights, **optimisation(cfg))


def train_teacher(cfg: DictConfig) -> tuple[Path, Trainer | None]:
    """Trains and saves a teacher: in one training, or with `start` and `end` in one for each halving of the steps.

    Returns:
        The teacher's folder, and the last finished trainer; None if the teacher had been trained already.
    """
    objective = instantiate(cfg.objective)
    items, held_out = train_and_validation_items(cfg)
    teacher = objective.func.check_teacher(instantiate(cfg.teacher))
    name = cfg.name or f"{teacher.name}_{cfg.objective_name}"
    scales = None if teacher.guidance <= 1 else cfg.scales  # a teacher without guidance has no scale to draw
    stages = halvings(cfg.start, cfg.end) if "start" in cfg else [cfg.steps]
    # Before anything is written: not every UNet is fit for every objective, cut and solver.
    untrained, _ = objective.func.init_student(teacher), _full(cfg, teacher, stages[0])
    output, result = Path(cfg.output) / name, Path(cfg.teachers) / name
    if claim(output, cfg, teacher, items, result, check_result=check_folder) >= cfg.epochs:
        _print_finished(result, cfg.epochs)
        return result, None
    report_truncation(teacher, items)
    guided, solver = scales is not None or cfg.guidance > 1, objective.func.student_solver or cfg.solver

    def examples(steps: int) -> tuple[Sampler, OnlineDataModule]:
        """Those from which a student of so many steps learns, of the teacher's roll-outs."""
        stride = objective.func.step_stride
        sampler = _full(cfg, teacher, steps * stride)
        latents = instantiate(cfg.data.latents)(sampler, scales, cfg.step_counts, stride)
        return sampler, make_data(cfg, latents, items, held_out)

    trained = _full(cfg, objective.func.as_teacher(teacher, name, untrained), stages[-1], solver)
    _print_plan(*[unet_plan(*examples(n), objective.func, trained, guided, **_sizes(cfg)) for n in stages])
    for steps in stages:
        student = objective.func.as_teacher(teacher, name, untrained)
        after = clocked_student(cfg, student, solver) if cfg.get("clocked") else _full(cfg, student, steps, solver)
        together = {} if after.adaptor is None else {"clocked": after, "share": cfg.clocked}
        module = objective(teacher, untrained, steps, guided=guided, **together, **optimisation(cfg))
        sampler, data = examples(steps)
        samplers = {f"before, {sampler.steps} steps": sampler, f"trained, {steps} steps": after}
        trainer = _fit(cfg, module, output / (f"{steps}steps" if stages[1:] else ""), data, samplers, items, "val/loss")
        student.unet.to(teacher.device).eval().requires_grad_(False)
        teacher, untrained = student, objective.func.init_student(student) if steps != stages[-1] else None
    if trainer.is_global_zero:
        _save_student(after, result, output / "adaptor")
        mark_trained(output, cfg.epochs)
    return result, trainer


def _print_finished(result: Path, epochs: int) -> None:
    if is_main_process():
        print(f"already trained for {epochs} epochs: {result}")


def _full(cfg: DictConfig, teacher: Teacher, steps: int, solver: str | None = None) -> Sampler:
    split = SplitUNet(teacher.unet, str(cfg.cut))
    return Sampler(teacher, split, Schedule(), solver or cfg.solver, steps, cfg.guidance)


def _save_student(student: Sampler, result: Path, folder: Path) -> None:
    """Saves a trained teacher, and the adaptor that was trained with it, if there is one."""
    student.teacher.save(result)
    print(f"teacher in {result}: pass teacher.path={result}")
    if student.adaptor is not None:
        point = replace(student.point, teacher_hash=weights_hash(student.split.unet))  # of the weights as they are now
        save_adaptor(folder, student.adaptor, point)
        print(f"adaptor in {folder}: pass adaptor=folder adaptor.path={folder}")


def _sizes(cfg: DictConfig) -> dict[str, Any]:
    """What a plan depends on besides the examples and what is trained."""
    return {"epochs": cfg.epochs, "world_size": num_processes(cfg), "ema": cfg.ema is not None}


def _print_plan(*plans: Plan) -> None:
    """Of trainings one after the other; the first process alone."""
    if is_main_process():
        print(total(plans))


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
    nodes = {"num_nodes": num_processes(cfg) // devices} if "WORLD_SIZE" in os.environ else {}
    prompts = validation_split(cfg, 8) if cfg.data.source.get("split") else items[:8]
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
        **{**cfg.trainer, **nodes, **lightning_device(device, devices)},
    )
