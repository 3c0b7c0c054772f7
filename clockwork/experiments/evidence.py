"""Evidence: every adaptor at many operating points, with several noise seeds and fits, as means with spreads.

Everything that is there already, adaptors and rows, is kept, so that a stopped run goes on where it was.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from clockwork.errors import UserError
from clockwork.evaluation.rows import read_rows
from clockwork.experiments.before_loading import check_cuts
from clockwork.experiments.build import adaptor_source, make_rival
from clockwork.experiments.configs import compose_config, override
from clockwork.experiments.evaluate import check_report
from clockwork.experiments.evidence_plan import wanted_rows
from clockwork.experiments.run_dir import adaptor_folder
from clockwork.experiments.runs import fit_folder, paired
from clockwork.experiments.tables import failed_commands
from clockwork.io.outputs import check_outputs
from clockwork.io.paths import folder_name
from clockwork.io.units import duration
from clockwork.reports.evidence import plot_name, write_evidence
from clockwork.reports.formats import check_sheet

Point = dict[str, Any]
QUIET = {"TQDM_DISABLE": "1"}


def make_evidence(cfg: DictConfig) -> Path:
    """Makes the adaptors and rows that are missing, and writes the table and the plots.

    Args:
        cfg: The composed config of the command `evidence`.

    Returns:
        The table, as Markdown.

    Raises:
        UserError: If a command failed.
    """
    for name in ("evidence", "evidence-short"):
        check_sheet(Path(cfg.output) / name)
    points: list[Point] = OmegaConf.to_container(cfg.points, resolve=True)  # type: ignore[assignment]
    runs, start = paired(cfg.seeds, cfg.fits), time.monotonic()
    composed = compose_config("evaluate", measuring(cfg, points, cfg.seeds[0], cfg.fits[0]))
    check_plots(cfg, composed, points)
    check_cuts(composed)
    for point in points:
        make_rival(composed, point)
        if point.get("adaptor") not in cfg.made_by:
            adaptor_source(composed, point)
    if any(str(point.get("schedule", composed.schedule)) == "full" for point in to_make(cfg, points)):
        raise UserError("points have an adaptor that is made and schedule=full, which runs none: use adaptor=none")
    for point in {point["adaptor"]: point for point in to_make(cfg, points)}.values():
        compose_config(*making(cfg, point, cfg.fits[0]))
    rows = wanted_rows(composed, points, runs)
    adaptors = len(to_make(cfg, points)) * len(cfg.fits)
    plan = rows.plan(f"at most, as images may exist; metrics and up to {adaptors} fits come on top")
    print(f"{plan}\n", flush=True)
    with rows.progress():
        failed = _run(cfg, points)
    file = write_evidence(read_rows(Path(cfg.rows) / "rows.jsonl"), Path(cfg.output), Path(cfg.rows))
    print(f"\n{file.read_text(encoding='utf-8')}\nevidence in {file}")
    measured = plan.rows - len(rows.missing())
    print(
        f"took {duration(time.monotonic() - start)} for {measured} of {plan.rows} planned rows, with fits and metrics"
    )
    if failed:
        raise UserError(f"{len(failed)} of the commands above failed: correct what their messages name, then go on")
    return file


def check_plots(cfg: DictConfig, composed: DictConfig, points: Sequence[Point]) -> None:
    """Checks that the plots, of old and new rows, and the report of the rows will replace nothing of others.

    Args:
        cfg: The config of the command `evidence`.
        composed: The config of the evaluation.
        points: The operating points to measure.

    Raises:
        UserError: Something else is there.
    """
    teacher = composed.teacher.name or folder_name(composed.teacher.path)
    plots = {(teacher, point.get("solver", composed.solver)) for point in points}
    measured = read_rows(Path(cfg.rows) / "rows.jsonl")
    plots |= {(row["teacher"], row["solver"]) for row in measured if "solver" in row}
    check_outputs(Path(cfg.output), *(plot_name(*plot) for plot in sorted(plots)))
    check_report(Path(cfg.rows))


def _run(cfg: DictConfig, points: Sequence[Point]) -> list[str]:
    """Makes adaptors and rows, run by run; the verbs of the commands that failed. They draw no bars of their own."""
    failed = []
    for seed, fit in paired(cfg.seeds, cfg.fits):
        assert fit is not None
        for point in to_make(cfg, points):
            failed += failed_commands(*making(cfg, point, fit), environment=QUIET)
        failed += failed_commands("evaluate", measuring(cfg, points, seed, fit), environment=QUIET)
    return failed


def to_make(cfg: DictConfig, points: Sequence[Point]) -> list[Point]:
    """Returns the points whose adaptors have weights, and those of their bases, each before what is made from it.

    Args:
        cfg: The config of the command `evidence`.
        points: The operating points to measure.
    """
    named = [(point.get("adaptor"), point) for point in points]  # a rival's point has none
    bases = [(cfg.bases[name], {**point, "adaptor": cfg.bases[name]}) for name, point in named if name in cfg.bases]
    with_weights = [point for name, point in (*named, *bases) if name in cfg.made_by]
    order = list(cfg.made_by)
    unique = {str(sorted(point.items())): point for point in with_weights}
    return sorted(unique.values(), key=lambda point: order.index(point["adaptor"]))


def making(cfg: DictConfig, point: Point, fit: int) -> tuple[str, list[str]]:
    """Returns the command that makes an adaptor, and its overrides.

    Args:
        cfg: The config of the command `evidence`.
        point: An operating point whose adaptor has weights.
        fit: Seed of the fit.
    """
    verb, *overrides = cfg.made_by[point["adaptor"]]
    at = [override(key, value) for key, value in point.items() if key != "adaptor"]
    if base := cfg.bases.get(point["adaptor"]):
        at.append(override("base", str(adaptor_of(cfg, {**point, "adaptor": base}, fit))))
    into = [f"seed={fit}", f"output={fit_folder(cfg.adaptors, fit)}"]
    return verb, [f"teacher={cfg.teacher_name}", *overrides, *at, *into]


def adaptor_of(cfg: DictConfig, point: Point, fit: int) -> Path:
    """Returns the folder of an adaptor of a fit, whether or not it was made.

    Args:
        cfg: The config of the command `evidence`.
        point: An operating point whose adaptor has weights.
        fit: Seed of the fit.
    """
    composed = compose_config(*making(cfg, point, fit))
    return adaptor_folder(composed, point["adaptor"], composed.output) / "adaptor"


def measuring(cfg: DictConfig, points: Sequence[Point], seed: int, fit: int) -> list[str]:
    """Returns the overrides of the evaluation of some points.

    Args:
        cfg: The config of the command `evidence`.
        points: The operating points.
        seed: Seed of the noise.
        fit: Seed of the fits.
    """
    listed = ",".join("{" + ",".join(_pairs(point)) + "}" for point in points)
    where = [f"adaptors={cfg.adaptors}", f"output={cfg.rows}", f"points=[{listed}]"]
    run = [f"seeds=[{seed}]", f"fits=[{fit}]", f"prompts.count={cfg.count}"]
    return [f"teacher={cfg.teacher_name}", *run, *cfg.evaluate, *where]


def _pairs(point: Point) -> Iterator[str]:
    """Formats a point for a command line."""
    for key, value in point.items():
        text = str(value)
        yield f"{key}:'{text}'" if "," in text else f"{key}:{text}"
