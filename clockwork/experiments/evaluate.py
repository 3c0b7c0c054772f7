"""Measures operating points: images, metrics, rows, report."""

import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from clockwork.adaptors import add_row
from clockwork.evaluation.rows import read_rows
from clockwork.evaluation.text_to_image import Evaluation
from clockwork.experiments.build import adaptor_source, build_sampler, make_metrics, require_values
from clockwork.experiments.paper_tables import Table
from clockwork.experiments.run_dir import report_truncation
from clockwork.io import distributed
from clockwork.reports.adaptors import find_trained_adaptors
from clockwork.reports.figures import images_side_by_side
from clockwork.reports.html import write_report
from clockwork.reports.loggers import log_rows
from clockwork.reports.pareto import save_pareto
from clockwork.reports.tables import card_labels, table


def evaluate(cfg: DictConfig) -> list[dict[str, Any]]:
    """Measures the config's operating points, or those of a table, as far as their rows are missing.

    Returns:
        The rows, in the points' order.
    """
    with distributed.process_group():
        table_of_points = Table.from_config(cfg)
        digests = measure(cfg) if table_of_points is None else table_of_points.run(measure)
        distributed.barrier()
        rows = {row["digest"]: row for row in read_rows(Path(cfg.output) / "rows.jsonl")}
    return [rows[digest] for digest in digests]


def measure(cfg: DictConfig) -> list[str]:
    """Measures one teacher's points as far as their rows are missing; the rows' digests, in the points' order."""
    main_process = distributed.rank() == 0
    differences: Any = OmegaConf.to_container(cfg.points) if cfg.points is not None else [{}]
    # All that is cheap to look at comes before the teacher is loaded, and so do mistakes in it.
    require_values(cfg, "metrics", "prompts")
    prompts = instantiate(cfg.prompts)
    for difference in differences:
        adaptor_source(cfg, difference)
    teacher = instantiate(cfg.teacher)
    # Every point is made before the first is run, so that a mistake in the last shows at once.
    samplers = [build_sampler(cfg, teacher, difference) for difference in differences]
    report_truncation(teacher, prompts)
    evaluation = Evaluation(
        prompts=prompts,
        metrics=make_metrics(cfg.metrics),
        folder=Path(cfg.output),
        seed=cfg.seed,
        batch_size=cfg.batch_size,
        latency=cfg.metrics.latency,
        command=shlex.join(["python", *sys.argv]),
    )
    for number, sampler in enumerate(samplers, 1):
        if main_process:
            name = f"{sampler.point.teacher} {sampler.adaptor_name} {sampler.schedule} {sampler.steps} steps"
            print(f"[{number}/{len(samplers)}] {name}")
        evaluation.evaluate(sampler)
    if main_process:
        _report(cfg, evaluation, samplers)
    return [evaluation.digest(sampler) for sampler in samplers]


def _report(cfg: DictConfig, evaluation: Any, samplers: list[Any]) -> None:
    """The table on the terminal, the report in the folder, the rows to the logger and with their adaptors."""
    measured = {row["digest"]: row for row in read_rows(evaluation.rows)}
    rows = [measured[digest] for digest in dict.fromkeys(map(evaluation.digest, samplers))]
    output, adaptors = Path(cfg.output), Path(cfg.adaptors)
    for sampler in samplers:
        if sampler.folder is not None:
            row = measured[evaluation.digest(sampler)]
            add_row(sampler.folder, row, card_labels(row))
    print(table(rows))
    if len(rows) > 1:
        save_pareto(rows, output / "pareto.png")
        images_side_by_side(rows, evaluation.prompts, output)
        print(f"report in {write_report(output, adaptors)}")
    log_rows(cfg.logger, rows, output, find_trained_adaptors(adaptors, rows))
