"""Edits images by a text without and with Clockwork."""

import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from clockwork.data.image_files import check_image
from clockwork.data.image_io import check_image_file, write_grid, write_image
from clockwork.editing.edit import Editor
from clockwork.editing.evaluation import EditEvaluation
from clockwork.editing.source_image import read_source_image
from clockwork.errors import MissingFileError, UserError
from clockwork.evaluation.rows import read_rows
from clockwork.experiments.build import adaptor_source, chosen_editor, editor_differences, make_metrics
from clockwork.experiments.schemas.point import num_unet_calls
from clockwork.io import distributed
from clockwork.io.outputs import check_outputs
from clockwork.io.paths import check_file
from clockwork.reports.editing import COLUMNS, figures, readable, side_by_side
from clockwork.reports.loggers import log_rows
from clockwork.reports.tables import table
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher


def edit(cfg: DictConfig) -> None:
    """Edits an image, or every image of a benchmark, with each editor of `points`. Several processes share a benchmark.

    Args:
        cfg: The config of the command.
    """
    with distributed.process_group():
        _edit(cfg)


def _edit(cfg: DictConfig) -> None:
    benchmark = cfg.get("benchmark")
    if benchmark is None:  # before the teacher is loaded, so that a mistake shows at once
        for name in ("image", "source", "target"):
            if not cfg[name]:
                raise UserError(f"no {name}: pass image=<file> source=<prompt> target=<prompt>, or +benchmark=<set>")
        if not Path(cfg.image).is_file():
            raise MissingFileError(f"no image at {cfg.image}: pass image=<a file>")
        check_image(Path(cfg.image))
        for name in ("source", "edit"):
            _check_output(cfg, name)
    else:
        check_file(Path(cfg.output) / "rows.jsonl")
        measured = {row["benchmark"] for row in read_rows(Path(cfg.output) / "rows.jsonl") if "benchmark" in row}
        plots = (f"figure15-{name}.png" for name in sorted({cfg.name, *measured}))
        check_outputs(Path(cfg.output), "figure6.png", *plots, f"images-{cfg.name}-{cfg.inversion.steps}.png")
    differences: Any = OmegaConf.to_container(cfg.points)
    for difference in differences:
        inversion, generation = editor_differences(cfg, difference)
        for of_phase, steps in ((inversion, cfg.inversion.steps), (generation, generation["steps"])):
            adaptor_source(cfg, of_phase)
            if of_phase["adaptor"] != "none":
                Schedule.parse(str(of_phase["schedule"])).adaptor_steps(num_unet_calls(steps, cfg.solver))
    teacher = instantiate(cfg.teacher)
    editors = [chosen_editor(cfg, teacher, difference) for difference in differences]
    if benchmark is None and distributed.rank() == 0:
        edit_one(cfg, editors, read_source_image(Path(cfg.image), teacher.resolution, cfg.resize))
    elif benchmark is not None:
        edit_set(cfg, teacher, editors)


def edit_one(cfg: DictConfig, editors: list[Editor], image: Any) -> None:
    """`edit.png`: source and edits side by side; and each by itself."""
    images, output = {"source": image}, Path(cfg.output)
    for editor in editors:
        _check_output(cfg, editor.clock)
    for editor in editors:
        print(f"{editor.label}: {editor.flops().full / 1e9:.4g} GFLOPs")
        images[editor.clock] = editor.edit(editor.invert(image, cfg.source), cfg.target)
    output.mkdir(parents=True, exist_ok=True)
    for label, image in images.items():
        write_image(_image_file(cfg, label), image)
    write_grid(_image_file(cfg, "edit"), {"": torch.stack(list(images.values()))}, 192, list(images))
    print(f"images in {output}")


def _image_file(cfg: DictConfig, label: str) -> Path:
    return Path(cfg.output) / f"{label.replace(' ', '-')}.png"


def _check_output(cfg: DictConfig, label: str) -> None:
    """Refuses to replace the image that is edited, and images that Clockwork has not written."""
    file = _image_file(cfg, label)
    if file.exists() and file.samefile(cfg.image):
        raise UserError(f"{file} would be replaced, which is the image to edit: pass output=<another folder>")
    check_image_file(file)


def edit_set(cfg: DictConfig, teacher: Teacher, editors: list[Editor]) -> None:
    """Measures a row per editor; the main process then reports all rows of the output folder."""
    evaluation = EditEvaluation(
        benchmark=cfg.name,
        pairs=instantiate(cfg.benchmark)(teacher),
        metrics=make_metrics(cfg.edit_metrics),
        folder=Path(cfg.output),
        latents=Path(cfg.latents) if cfg.latents else None,
        command=shlex.join(["python", *sys.argv]),
    )
    for editor in editors:
        evaluation.evaluate(editor)
    if distributed.rank() == 0:
        _report(cfg, evaluation, {evaluation.digest(editor) for editor in editors})


def _report(cfg: DictConfig, evaluation: EditEvaluation, digests: set[str]) -> None:
    """Prints the table and writes the figures of all rows, and the images of the rows with these digests."""
    rows, output = read_rows(evaluation.rows), evaluation.folder
    print(table(readable(rows), COLUMNS))
    figures(rows, output)
    side_by_side([row for row in rows if row["digest"] in digests], evaluation.pairs, output)
    log_rows(cfg.logger, rows, output)
