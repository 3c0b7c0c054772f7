"""Makes the paper's tables: trains the adaptors they lack, measures the rows they lack, writes the report."""

import os
import subprocess
import sys
from collections.abc import Mapping

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from clockwork.errors import MissingFileError, UserError
from clockwork.experiments.configs import compose_config
from clockwork.experiments.paper_tables import Table


def make_tables(cfg: DictConfig) -> None:
    """Trains the adaptors that are missing, measures the rows that are missing, and writes the report."""
    scale = [f"scale={cfg.scale.name}", *(o for o in HydraConfig.get().overrides.task if o.startswith("scale."))]
    evaluate = (f"adaptors={cfg.adaptors}", *scale[1:], *cfg.evaluate)
    numbers = [("table", number) for number in cfg.tables] + [("figure", number) for number in cfg.figures]
    tables = [Table.load(kind, number, cfg.scale.name, evaluate) for kind, number in numbers]
    failed = _train(tables, cfg)
    for table in tables:
        print(f"\n== {table.name}", flush=True)
        words = [f"+{table.kind}={table.number}", scale[0], f"output={cfg.rows}", *evaluate]
        failed += failed_commands("evaluate", words)
    folders = [f"rows={cfg.rows}", f"adaptors={cfg.adaptors}", f"output={cfg.output}", *scale]
    for table in tables:
        failed += failed_commands("report", [f"{table.kind}={table.number}", *folders])
    failed += failed_commands("report", ["html", *folders])
    if failed:
        raise UserError(
            f"{len(failed)} of the commands above failed: correct what their messages name, and run this again"
        )


def _train(tables: list[Table], cfg: DictConfig) -> list[str]:
    """One adaptor after the other, each once; those whose folder is there are passed over."""
    missing: dict[tuple[str, ...], None] = {}
    for table in tables:
        for teacher, points in table.by_teacher():
            try:
                config = table.config(teacher)
            except MissingFileError:
                continue
            untrained = [point for point in points if table.untrained(point, config)]
            missing |= dict.fromkeys(tuple(table.training(point, config)) for point in untrained)
    for words in missing:  # so that a mistake in one shows before the first is trained
        compose_config("train", [*words, *cfg.train])
    failed = []
    for number, words in enumerate(missing, 1):
        print(f"\n== adaptor {number} of {len(missing)}", flush=True)
        failed += failed_commands("train", [*words, *cfg.train])
    return failed


def failed_commands(verb: str, words: list[str], environment: Mapping[str, str] | None = None) -> list[str]:
    """Runs a command of Clockwork in another process.

    Args:
        verb: The command.
        words: Its overrides.
        environment: Further environment variables.

    Returns:
        The verb if the command failed, else nothing. Ctrl-C and SIGTERM end this process, too.
    """
    command = [sys.executable, "-m", "clockwork.experiments.cli", verb, *words]
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, check=False)
    if done.returncode in (130, -2):
        raise KeyboardInterrupt
    if done.returncode in (143, -15):
        raise SystemExit(143)
    return [verb] if done.returncode else []
