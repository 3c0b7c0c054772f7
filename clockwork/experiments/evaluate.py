"""Measures operating points: images, metrics, rows, report."""

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from clockwork.adaptors import add_row
from clockwork.data.prompts import Prompt
from clockwork.evaluation.latencies import measure_latencies
from clockwork.evaluation.plan import TRIAL_IMAGES, disk_usage, evaluation_plan, missing_images, run_trial
from clockwork.evaluation.rows import read_rows
from clockwork.evaluation.text_to_image import Evaluation
from clockwork.experiments.build import adaptor_source, build_sampler, make_metrics, make_rival, require_values
from clockwork.experiments.paper_tables import Table
from clockwork.experiments.run_dir import report_truncation
from clockwork.experiments.runs import at_fit, paired
from clockwork.io import distributed
from clockwork.io.outputs import check_outputs
from clockwork.io.paths import check_file
from clockwork.metrics.base import few_images_notes
from clockwork.reports.adaptors import find_trained_adaptors
from clockwork.reports.categories import category_sheet
from clockwork.reports.figures import images_side_by_side
from clockwork.reports.formats import check_sheet, markdown
from clockwork.reports.html import write_report
from clockwork.reports.loggers import log_rows
from clockwork.reports.pareto import save_pareto
from clockwork.reports.spreads import with_spreads
from clockwork.reports.tables import card_labels, table
from clockwork.sampling.sampler import Sampler


def evaluate(cfg: DictConfig) -> list[dict[str, Any]]:
    """Measures the config's operating points, or those of a table, as far as their rows are missing.

    Returns:
        The rows, in the points' order, run by run where there are several seeds or fits.
    """
    with distributed.process_group():
        check_file(Path(cfg.output) / "rows.jsonl")
        table_of_points = Table.from_config(cfg)
        digests = measure(cfg) if table_of_points is None else table_of_points.run(measure)
        distributed.barrier()
        rows = {row["digest"]: row for row in read_rows(Path(cfg.output) / "rows.jsonl")}
    return [rows[digest] for digest in digests]


def measure(cfg: DictConfig) -> list[str]:
    """Measures one teacher's points as far as their rows are missing; the rows' digests, in the points' order."""
    differences: Any = OmegaConf.to_container(cfg.points) if cfg.points is not None else [{}]
    runs = paired(cfg.seeds or [cfg.seed], cfg.fits)
    # All that is cheap to look at comes before the teacher is loaded, and so do mistakes in it.
    require_values(cfg, "metrics", "prompts")
    prompts = instantiate(cfg.prompts)
    for difference in differences:
        make_rival(cfg, difference)
        for fit in dict.fromkeys(fit for _, fit in runs):
            adaptor_source(at_fit(cfg, fit), difference)
    if len(differences) * len(runs) > 1:
        check_report(Path(cfg.output))
    teacher = instantiate(cfg.teacher)
    report_truncation(teacher, prompts)
    evaluation = Evaluation(
        prompts=prompts,
        metrics=make_metrics(cfg.metrics),
        folder=Path(cfg.output),
        batch_size=cfg.batch_size,
        keep_images=cfg.keep_images,
        latency=False,  # measured at the end, of all points in turn
        command=shlex.join(["python", *sys.argv]),
    )
    for note in few_images_notes(evaluation.metrics, len(prompts)) if distributed.rank() == 0 else ():
        print(note)
    # Every point of a fit is made before the first is run, so that a mistake in the last shows at once.
    of_fits = {fit: [build_sampler(at_fit(cfg, fit), teacher, d) for d in differences] for _, fit in runs}
    of_runs = [(replace(evaluation, seed=seed, fit=fit), point) for seed, fit in runs for point in of_fits[fit]]
    with _cost_printed(of_runs):
        for number, (of_run, sampler) in enumerate(of_runs, 1):
            if distributed.rank() == 0:
                name = f"{sampler.point.teacher} {sampler.adaptor_name} {sampler.schedule} {sampler.steps} steps"
                print(f"[{number}/{len(of_runs)}] {name}{f', seed {of_run.seed}' if len(runs) > 1 else ''}")
            of_run.evaluate(sampler)
        if cfg.metrics.latency:
            measure_latencies(of_runs)
    digests = [of_run.digest(sampler) for of_run, sampler in of_runs]
    if distributed.rank() == 0:
        _report(cfg, digests, [sampler for _, sampler in of_runs], prompts)
    return digests


def check_report(output: Path) -> None:
    """Checks that the report will replace nothing of others.

    Args:
        output: The folder of the rows.

    Raises:
        UserError: Something else is there.
    """
    check_outputs(output, "report.html", "grid.png", "pareto.png")
    check_sheet(output / "categories")


@contextmanager
def _cost_printed(of_runs: Sequence[tuple[Evaluation, Sampler]]) -> Iterator[None]:
    """Prints what the rows that are missing cost before the block, and what they took after it."""
    main_process = distributed.rank() == 0
    distinct = {evaluation.digest(point): (evaluation, point) for evaluation, point in of_runs if main_process}
    work = [missing_images(evaluation, point) for evaluation, point in distinct.values()]
    by_folder = {folder: item for of_row in work for folder, item in of_row.items()}
    if not by_folder:
        yield
        return
    evaluation, (first, count) = of_runs[0][0], max(by_folder.values(), key=lambda item: item[1])
    trial = run_trial(first, evaluation.prompts) if count > TRIAL_IMAGES else None
    # The teacher's images are generated for every row where they are not kept.
    once = evaluation.keep_images in ("all", "teacher")
    generated = list(by_folder.values()) if once else [item for of_row in work for item in of_row.values()]
    written = sum(evaluation.num_written(*item) for item in generated)
    rows, processes = sum(map(bool, work)), distributed.world_size()
    plan = evaluation_plan(generated, rows, trial, processes, written=written)
    print(f"{plan}\n", flush=True)
    before, start = disk_usage(by_folder), time.monotonic()
    yield
    images, size = (after - earlier for after, earlier in zip(disk_usage(by_folder), before, strict=True))
    # Images that were not written cannot be counted; those of the plan have been measured.
    print(plan.outcome(time.monotonic() - start, images if evaluation.keep_images == "all" else plan.images, size))


def _report(cfg: DictConfig, digests: Sequence[str], samplers: Sequence[Sampler], prompts: Sequence[Prompt]) -> None:
    """The table on the terminal, the report in the folder, the rows to the logger and with their adaptors."""
    output, adaptors = Path(cfg.output), Path(cfg.adaptors)
    measured = {row["digest"]: row for row in read_rows(output / "rows.jsonl")}
    rows = [measured[digest] for digest in dict.fromkeys(digests)]
    for digest, sampler in zip(digests, samplers, strict=True):
        if sampler.folder is not None:
            add_row(sampler.folder, measured[digest], card_labels(measured[digest]))
    points = with_spreads(rows)
    print(table(points))
    if (categories := category_sheet(rows, output)) is not None:
        categories.write(output / "categories")
        print(f"\n{markdown(categories.columns, categories.cells)}")
    if len(points) > 1:
        save_pareto(rows, output / "pareto.png")
        images_side_by_side(points, prompts, output)
        print(f"report in {write_report(output, adaptors)}")
    log_rows(cfg.logger, rows, output, find_trained_adaptors(adaptors, rows))
