"""The menu of cuts and schedules of a teacher: `scripts/calibrate.py menu`."""

from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from clockwork.adaptors import save_adaptor
from clockwork.calibration.options import FitOptions
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.io import distributed
from clockwork.io.outputs import check_outputs
from clockwork.io.paths import folder_name
from clockwork.pipeline.menu import Menu
from clockwork.pipeline.tune import tune
from clockwork.reports.menu import write_menu
from clockwork.sampling.solvers import make_solver


def make_menu(cfg: DictConfig, prompts: Sequence[Prompt], options: FitOptions) -> Menu:
    """Calibrates the config's cuts and schedules, and measures what each costs and how near it comes.

    Args:
        cfg: The composed config of the command `calibrate`.
        prompts: The captions, of which the last ones are measured instead of fitted on.
        options: How the maps are fitted.

    Returns:
        The menu. Its adaptors and a page with the images are in the folder of the menu.

    Raises:
        UserError: If several processes run, a value does not fit, or no entry is near or fast enough.
    """
    if distributed.world_size() > 1:
        raise UserError("a menu is made by one process: run it without torchrun")
    folder = Path(cfg.menu.output) / folder_name(cfg.teacher.path)
    check_outputs(folder, "menu.html")
    teacher = instantiate(cfg.teacher)
    teacher.pipe.scheduler = make_solver(cfg.solver, teacher.noise_schedule)
    size = {"height": teacher.resolution, "width": teacher.resolution}
    menu = tune(
        teacher.pipe,
        [prompt.text for prompt in prompts],
        [str(cut) for cut in cfg.menu.cuts],
        [str(schedule) for schedule in cfg.menu.schedules],
        budget=cfg.menu.budget,
        quality=cfg.menu.quality,
        num_measured=cfg.menu.measured,
        options=options,
        seed=cfg.seed,
        runs=cfg.menu.runs,
        compile=teacher.compile,
        num_inference_steps=cfg.steps,
        guidance_scale=cfg.guidance,
        negative_prompt=list(cfg.negatives),
        **size,
    )
    for entry in menu.entries:
        save_adaptor(folder / f"{entry.cut}-{entry.schedule}".replace(",", "_"), entry.adaptor)
    print(f"images in {write_menu(menu, folder / 'menu.html')}, adaptors beside it")
    return menu
