"""Fits a linear adaptor at an operating point in closed form."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from clockwork.adaptors import Identity, check_adaptor_folder, read_config, save_adaptor
from clockwork.calibration.fit import Calibrated, calibrate_sampler
from clockwork.calibration.options import FitOptions
from clockwork.calibration.plan import calibration_plan
from clockwork.calibration.progress import remove_progress
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.experiments.build import counted_prompts, is_linear, make_sampler
from clockwork.experiments.menu import make_menu
from clockwork.experiments.run_dir import adaptor_folder, claim, mark_trained, report_truncation
from clockwork.experiments.schemas.point import num_unet_calls
from clockwork.io import distributed
from clockwork.io.lock import release_folders
from clockwork.io.outputs import check_outputs
from clockwork.pipeline.menu import Menu
from clockwork.reports.calibration import save_step_errors, step_table
from clockwork.reports.loggers import log_calibration
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule


@dataclass(frozen=True)
class CalibratedAdaptor:
    """What a calibration made.

    Attributes:
        folder: The adaptor's folder.
        figures: Captions, seconds and the fit of each step, as the folder's `config.json` holds them.
    """

    folder: Path
    figures: Mapping[str, Any]


def calibrate(cfg: DictConfig) -> CalibratedAdaptor | Menu:
    """Fits and saves the config's linear adaptor, unless that has been done. Several processes share the captions.

    With `what=menu`, calibrates and measures several cuts and schedules instead.

    Args:
        cfg: The composed config of the command `calibrate`.

    Returns:
        The adaptor's folder and the figures of its fits, or the menu.

    Raises:
        UserError: The adaptor is not a linear one, the schedule cannot be calibrated, the captions are too few, or the
            folder holds another run.
    """
    with release_folders(), distributed.process_group():
        return _calibrate(cfg)


def _calibrate(cfg: DictConfig) -> CalibratedAdaptor | Menu:
    check_adaptor_and_schedule(cfg)  # this and the captions before the teacher is loaded: a mistake shows at once
    output = adaptor_folder(cfg, cfg.adaptor_name, cfg.output)
    if cfg.what != "menu":
        check_outputs(output, "errors.png")
    prompts, options = calibration_prompts(cfg), fit_options(cfg)
    if cfg.what == "menu":
        return make_menu(cfg, prompts, options)
    teacher = instantiate(cfg.teacher)
    sampler = make_sampler(cfg, teacher, Identity(feature_dims(teacher, str(cfg.cut))), "identity")
    plan = calibration_plan(sampler, len(prompts), options, distributed.world_size())
    result, is_main_process = output / "adaptor", distributed.rank() == 0
    if claim(
        output, cfg, teacher, prompts, result, ignored=("batch_size", "what", "menu"), check_result=check_adaptor_folder
    ):
        if is_main_process:
            print(f"already calibrated: {result}")
        return CalibratedAdaptor(result, read_config(result)["calibration"])
    report_truncation(teacher, prompts)
    if is_main_process:
        print(plan)
        if teacher.compile is not False:
            print("the calibration runs uncompiled: teacher.compile is for evaluation, generation and training")
    calibrated = calibrate_sampler(sampler, prompts, list(cfg.negatives), cfg.seed, options, output)
    figures = {"captions": len(prompts), "negatives": list(cfg.negatives), **calibrated.figures()}
    if is_main_process:
        _save(cfg, sampler, calibrated, figures, result)
    distributed.barrier()
    if is_main_process:
        remove_progress(output)
    return CalibratedAdaptor(result, figures)


def fit_options(cfg: DictConfig) -> FitOptions:
    """Returns how the config's maps are fitted.

    Args:
        cfg: The composed config of the command.
    """
    values = {"guided_weight": cfg.guided_weight, "held_out_every": cfg.held_out_every, "batch": cfg.batch_size}
    return FitOptions(tuple(cfg.adaptor.terms), cfg.adaptor.rank, cfg.joint, cfg.positive_only, **values)


def check_adaptor_and_schedule(cfg: DictConfig) -> None:
    """Refuses an adaptor that is not linear, a schedule without full or without adaptor steps, and other misfits.

    Args:
        cfg: The composed config of the command.

    Raises:
        UserError: The adaptor or the schedule cannot be calibrated.
    """
    if not is_linear(cfg.adaptor):
        raise UserError(f"adaptor={cfg.adaptor_name} is not fitted in closed form: use adaptor=linear")
    if cfg.positive_only and cfg.guidance <= 1:
        raise UserError(f"guidance={cfg.guidance:g} has no negative half: pass guidance=3, or positive_only=false")
    for text in cfg.menu.schedules if cfg.what == "menu" else [cfg.schedule]:
        schedule = Schedule.parse(str(text))
        if not schedule.is_full(1):
            raise UserError(f"schedule={schedule} has no full step, which a linear adaptor needs: use schedule=clock2")
        if not schedule.adaptor_steps(num_unet_calls(cfg.steps, cfg.solver)):
            raise UserError(
                f"schedule={schedule} has no adaptor step in {cfg.steps} steps: use schedule=clock2 and steps=8"
            )
    if cfg.what == "menu" and not cfg.menu.measured < cfg.count:
        raise UserError(
            f"menu.measured={cfg.menu.measured} of count={cfg.count} captions leaves none to fit on: pass a smaller one"
        )


def calibration_prompts(cfg: DictConfig) -> Sequence[Prompt]:
    """Draws captions from the config's source: other ones for another seed.

    Args:
        cfg: The composed config of the command.

    Raises:
        UserError: The source has fewer captions than the config's `count`.
    """
    return draw(counted_prompts(cfg), cfg.count, cfg.seed)


def draw(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """Draws captions to calibrate on.

    Args:
        prompts: The source.
        count: Number of captions.
        seed: Other captions for another seed.
    """
    return random.Random(f"{seed}/calibration").sample(prompts, count)


def _save(cfg: DictConfig, sampler: Sampler, calibrated: Calibrated, figures: Mapping[str, Any], result: Path) -> None:
    """Saves the adaptor and the figure of its errors, and prints both."""
    image = result.parent / "errors.png"
    save_adaptor(
        result, calibrated.adaptor, sampler.point, base_model=sampler.teacher.hub_name, calibration=dict(figures)
    )
    save_step_errors(figures["steps"], image)
    mark_trained(result.parent, 1)
    log_calibration(cfg.logger, result, figures, image)
    print(step_table(figures["steps"]))
    print(f"adaptor in {result}, fitted in {figures['seconds']:.1f} s; errors by step in {image}")
