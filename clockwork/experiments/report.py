"""Reports: the paper's tables and figures beside what was measured, FLOPs, and an HTML page."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from clockwork.errors import UserError
from clockwork.evaluation.rows import read_rows
from clockwork.experiments.configs import compose_config
from clockwork.experiments.paper_tables import KINDS, Table, numbers
from clockwork.experiments.paper_tables import kind as adaptor_kind
from clockwork.flops.paper_models import PaperModels
from clockwork.flops.published_unets import PUBLISHED_UNETS
from clockwork.io.outputs import check_outputs
from clockwork.io.progress import progress_bar
from clockwork.reports.compare import comparison_sheet, full_teacher_of, operating_point
from clockwork.reports.formats import check_sheet
from clockwork.reports.html import write_report
from clockwork.reports.index import edited, measured
from clockwork.reports.paper import figures as paper_figures
from clockwork.reports.paper.comparison import Comparison, settings_sheet
from clockwork.reports.paper.flops_audit import Line, read_flops, summary, write_flops
from clockwork.reports.paper.flops_lines import flops_lines
from clockwork.reports.paper.scale import Scale
from clockwork.reports.spreads import with_spreads
from clockwork.reports.unet_savings import savings_sheet


def flops(cfg: DictConfig) -> Path:
    """Counts every FLOPs and parameter figure of the paper at real size."""
    file = Path(cfg.output) / "flops.csv"
    check_outputs(file.parent, file.name)
    tables = [Table.load(of, number, "paper") for of in KINDS for number in numbers(of)]
    kinds = {p["adaptor"]: adaptor_kind(p) for table in tables for p in table.spec["points"] if p["adaptor"] != "none"}
    adaptors = {
        n: instantiate(compose_config("train", ["teacher=sd15", f"adaptor={k}"]).adaptor) for n, k in kinds.items()
    }
    counted = flops_lines({table.name: table.spec for table in tables}, PaperModels(adaptors))
    lines = list(progress_bar(counted, "counting at real size", unit="figure", leave=False))
    write_flops(lines, file)
    print(f"{summary(lines)}\n{len(lines)} figures in {file}")
    return file


def _counted_lines(cfg: DictConfig) -> list[Line]:
    """Reads the output folder's `flops.csv`, which is written first if it is missing."""
    file = Path(cfg.output) / "flops.csv"
    return read_flops(file if file.is_file() else flops(cfg))


def tables(cfg: DictConfig) -> None:
    """Joins what was measured to what the paper prints."""
    requested = list(_requested_tables(cfg))  # all are loaded before anything is written
    for table in requested:
        check_sheet(_stem(cfg, table))
        check_outputs(Path(cfg.output), f"{_stem(cfg, table).name}.png", f"{_stem(cfg, table).name}.pdf")
    lines = _counted_lines(cfg)
    for table in requested:
        _write(cfg, table, lines)


def _requested_tables(cfg: DictConfig) -> Iterator[Any]:
    run = HydraConfig.get()
    chosen = {kind: run.runtime.choices.get(kind) for kind in KINDS}
    given = tuple(
        o.replace("rows=", "output=") for o in run.overrides.task if o.startswith(("rows=", "adaptors=", "scale."))
    )
    for kind, number in chosen.items():
        all_numbers = number == "all" or not any(chosen.values())
        for each in numbers(kind) if all_numbers else [number] if number else []:
            yield Table.load(kind, each, cfg.scale.name, given)


def html(cfg: DictConfig) -> None:
    """One page of a folder of rows, with the tables of which something was measured there."""
    check_outputs(Path(cfg.rows), "report.html")
    measured_tables = [table for table in _requested_tables(cfg) if _measured(cfg, table)]
    lines = _counted_lines(cfg) if measured_tables else []
    sheets = [_sheet(cfg, table, lines) for table in measured_tables]
    print(f"report in {write_report(Path(cfg.rows), Path(cfg.adaptors), sheets)}")


def _measured(cfg: DictConfig, table: Any) -> Any:
    if "inversion_steps" in table.spec:
        return edited(Path(cfg.edits), table.spec)
    return measured(Path(cfg.rows), table.name, cfg.scale.name)


def _sheet(cfg: DictConfig, table: Any, lines: Any) -> Any:
    comparison = Comparison(table.name, table.spec, _scale(cfg), _measured(cfg, table), lines)
    notes = table.note_on_missing_rows(comparison.unmeasured())
    return comparison.sheet(notes) if table.spec["points"] else settings_sheet(table.name, table.spec, notes)


def _scale(cfg: DictConfig) -> Scale:
    scale = cfg.scale
    return Scale(scale.metrics, scale.suffix, scale.note, scale.flops_unit, scale.flops_factor)


def _stem(cfg: DictConfig, table: Any) -> Path:
    return Path(cfg.output) / f"{table.kind}-{table.number}-{cfg.scale.name}"


def _write(cfg: DictConfig, table: Any, lines: Any) -> None:
    stem = _stem(cfg, table)
    _sheet(cfg, table, lines).write(stem)
    print(f"\n{stem.with_suffix('.md').read_text()}")
    if draw := table.spec.get("draw"):
        figure_written = getattr(paper_figures, draw)(_measured(cfg, table), _scale(cfg), stem)
        print(f"figure in {stem}.png" if figure_written else "no figure: nothing of it has been measured")


def compare(cfg: DictConfig) -> Path:
    """Tables the differences of operating points of a folder of rows, with their intervals."""
    stem = Path(cfg.output) / "compare"
    check_sheet(stem)
    rows = read_rows(Path(cfg.rows) / "rows.jsonl")
    chosen = _matching(cfg, rows, "point")
    if cfg.to is None:
        points = with_spreads(rows)
        pairs = [(row, teacher) for row in chosen if (teacher := full_teacher_of(row, points)) is not None]
        if not pairs:
            raise UserError(
                f"{cfg.rows} has no rows of an adaptor and of the full teacher at the same steps, prompts and seeds: "
                "measure both, or pass to={…}"
            )
    else:
        others = _matching(cfg, rows, "to")
        if len(others) > 1:
            listed = "; ".join(map(operating_point, others))
            raise UserError(f"to={_shown(cfg.to)} is {len(others)} operating points ({listed}): name further fields")
        pairs = [(row, others[0]) for row in chosen if row["digest"] != others[0]["digest"]]
        if not pairs:
            raise UserError("point and to are the same operating point: name another")
    comparison_sheet(pairs, Path(cfg.rows)).write(stem)
    print(f"\n{stem.with_suffix('.md').read_text(encoding='utf-8')}")
    return stem.with_suffix(".md")


def _matching(cfg: DictConfig, rows: Sequence[Any], key: str) -> list[Any]:
    """Returns the operating points of the rows with the fields that a key of the config names."""
    fields = dict(cfg[key] or {})
    if unknown := [name for name in fields if not any(name in row for row in rows)]:
        raise UserError(f"{key} names {unknown[0]}, which is no field of the rows in {cfg.rows}: see rows.jsonl there")
    matching = [row for row in rows if all(str(row.get(name)) == str(value) for name, value in fields.items())]
    if not matching:
        listed = "; ".join(dict.fromkeys(map(operating_point, rows))) or "none"
        raise UserError(f"no row of {cfg.rows} has {key}={_shown(fields)}: there are {listed}")
    return with_spreads(matching)


def _shown(fields: Any) -> str:
    """Formats fields as they are passed on the command line."""
    return "{" + ",".join(f"{name}:{value}" for name, value in fields.items()) + "}"


def unets(cfg: DictConfig) -> Path:
    """Counts the FLOPs that the identity adaptor saves on published UNets of all classes."""
    stem = Path(cfg.output) / "unets"
    check_sheet(stem)
    savings_sheet(progress_bar(list(PUBLISHED_UNETS), "counting", unit="UNet", leave=False)).write(stem)
    print(f"\n{stem.with_suffix('.md').read_text(encoding='utf-8')}")
    return stem.with_suffix(".md")


WHAT = {"tables": tables, "flops": flops, "unets": unets, "html": html, "compare": compare}


def report(cfg: DictConfig) -> None:
    """Writes the report that `what` names."""
    WHAT[cfg.what](cfg)
