"""Measures operating points: `python scripts/evaluate.py adaptor=identity schedule=clock2`, a sweep, or `+table=3`."""

import shlex
import sys
from pathlib import Path

from _command import command
from omegaconf import DictConfig, OmegaConf


def measure(cfg: DictConfig) -> list[str]:
    """Measures one teacher's points as far as their rows are missing; the rows' digests, in the points' order."""
    from _compose import chosen_setup
    from hydra.utils import instantiate

    from clockwork import processes
    from clockwork.adaptors import add_row
    from clockwork.evaluation.evaluate import Evaluation
    from clockwork.reports.adaptors import trained
    from clockwork.reports.figures import pareto, pictures_side_by_side
    from clockwork.reports.html import write_report
    from clockwork.reports.loggers import log_rows
    from clockwork.reports.tables import table
    from clockwork.rows import read_rows

    processes.join()
    first = processes.rank() == 0
    teacher = instantiate(cfg.teacher)
    differences = OmegaConf.to_container(cfg.points) if cfg.points is not None else [{}]
    # Every point is made before the first is run, so that a mistake in the last shows at once.
    setups = [chosen_setup(cfg, teacher, difference) for difference in differences]
    output = Path(cfg.output)
    with processes.one_by_one():  # the first makes the reference's statistics, the others read them
        metrics = instantiate(cfg.metrics)
    made_by = shlex.join(["python", *sys.argv])
    evaluation = Evaluation(instantiate(cfg.prompts), metrics, output, cfg.seed, cfg.batch_size, made_by)
    for number, setup in enumerate(setups, 1):
        print(
            f"[{number}/{len(setups)}] {setup.point.teacher} {setup.adaptor_name} {setup.schedule} {setup.steps} steps"
        )
        evaluation.evaluate(setup)
    processes.leave()
    asked = [evaluation.digest(setup) for setup in setups]
    if not first:
        return asked
    rows = [row for row in read_rows(evaluation.rows) if row["digest"] in asked]
    rows.sort(key=lambda row: asked.index(row["digest"]))
    for setup in setups:  # an adaptor's folder tells what was measured with it
        if setup.folder is not None:
            add_row(setup.folder, next(row for row in rows if row["digest"] == evaluation.digest(setup)))
    print(table(rows))
    if len(rows) > 1:
        pareto(rows, output / "pareto.png")
        pictures_side_by_side(rows, evaluation.prompts, output)
        print(f"report in {write_report(output, Path(cfg.adaptors))}")
    log_rows(cfg.logger, rows, output, trained(Path(cfg.adaptors), rows))
    return asked


@command("evaluate")
def main(cfg: DictConfig) -> None:
    from _tables import Table

    table = Table.asked(cfg)
    if table is None:
        measure(cfg)
    else:
        table.run(measure)


if __name__ == "__main__":
    main()
