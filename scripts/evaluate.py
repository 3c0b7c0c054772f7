"""Measures operating points: `python scripts/evaluate.py adaptor=identity schedule=clock2`, or a sweep of them."""

from pathlib import Path

from _command import command
from omegaconf import DictConfig, OmegaConf


@command("evaluate")
def main(cfg: DictConfig) -> None:
    from _compose import chosen_setup
    from hydra.utils import instantiate

    from clockwork import processes
    from clockwork.adaptors import add_row
    from clockwork.evaluation.evaluate import Evaluation
    from clockwork.evaluation.rows import read_rows
    from clockwork.reports.figures import pareto, pictures_side_by_side
    from clockwork.reports.loggers import log_rows
    from clockwork.reports.tables import table

    processes.join()
    first = processes.rank() == 0
    teacher = instantiate(cfg.teacher)
    differences = OmegaConf.to_container(cfg.points) if cfg.points is not None else [{}]
    # Every point is made before the first is run, so that a mistake in the last shows at once.
    setups = [chosen_setup(cfg, teacher, difference) for difference in differences]
    output = Path(cfg.output)
    with processes.one_by_one():  # the first makes the reference's statistics, the others read them
        metrics = instantiate(cfg.metrics)
    evaluation = Evaluation(instantiate(cfg.prompts), metrics, output, cfg.seed, cfg.batch_size)
    for number, setup in enumerate(setups, 1):
        print(
            f"[{number}/{len(setups)}] {setup.point.teacher} {setup.adaptor_name} {setup.schedule} {setup.steps} steps"
        )
        evaluation.evaluate(setup)
    processes.leave()
    if not first:
        return
    asked = [evaluation.digest(setup) for setup in setups]
    rows = [row for row in read_rows(evaluation.rows) if row["digest"] in asked]
    rows.sort(key=lambda row: asked.index(row["digest"]))
    for setup in setups:  # an adaptor's folder tells what was measured with it
        if setup.folder is not None:
            add_row(setup.folder, next(row for row in rows if row["digest"] == evaluation.digest(setup)))
    print(table(rows))
    if len(rows) > 1:
        pareto(rows, output / "pareto.png")
        pictures_side_by_side(rows, evaluation.prompts, output)
    log_rows(cfg.logger, rows, output)


if __name__ == "__main__":
    main()
