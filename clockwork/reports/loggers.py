"""Where training curves, rows and pictures go: nowhere, a csv file, or Weights & Biases beside it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from clockwork.evaluation.rows import image_folder
from clockwork.reports import plots
from clockwork.reports.adaptors import Trained
from clockwork.reports.tables import Row


def make_logger(config: Mapping[str, Any], output: Path) -> Any:
    """Lightning loggers, or False. wandb comes beside the csv file, so that no figure is in wandb alone; without a key
    it writes offline, into the output folder."""
    if config["name"] == "none":
        return False
    from pytorch_lightning.loggers import CSVLogger, WandbLogger

    loggers: list[Any] = [CSVLogger(output, name="log")]  # a version a run: a resumed one keeps the log before it
    if config["name"] == "wandb":
        group = config["group"] or output.parent.name
        loggers.append(WandbLogger(project=config["project"], group=group, save_dir=output, offline=offline()))
    return loggers


def offline() -> bool:
    """No key in the environment or in ~/.netrc, and no mode asked for."""
    netrc = Path.home() / ".netrc"
    known = "WANDB_API_KEY" in os.environ or (netrc.is_file() and "wandb" in netrc.read_text())
    return not known and os.environ.get("WANDB_MODE", "offline") == "offline"


def log_adaptor(loggers: Sequence[Any], folder: Path, about: Mapping[str, Any]) -> None:
    """A trained adaptor's folder as an artifact, of those loggers that keep any; named by the run's folder."""
    for logger in loggers:
        if hasattr(logger, "log_image"):  # Weights & Biases
            logger.experiment.log_artifact(_artifact(folder.parent.name, "adaptor", [folder], about))


def log_rows(
    config: Mapping[str, Any], rows: Sequence[Row], output: Path, adaptors: Sequence[Trained] = (), pictures: int = 6
) -> None:
    """A sweep as one run, in a group with the output folder's name: rows as a table, Pareto plots, pictures by
    operating point, the report and the adaptors' folders as artifacts."""
    if config["name"] != "wandb":
        return
    import wandb

    mode: Literal["offline", "online"] = "offline" if offline() else "online"
    group = config["group"] or output.name
    with wandb.init(project=config["project"], group=group, dir=output, mode=mode, job_type="evaluate") as run:
        columns = list(rows[0])
        run.log({"rows": wandb.Table(columns=columns, data=[[row.get(c) for c in columns] for row in rows])})
        for quality in plots.present(rows, plots.QUALITY):
            for cost in plots.present(rows, plots.COSTS):
                run.log({f"pareto/{quality}-{cost}": plots.pareto(rows, quality, cost)})
        for name, row in zip(plots.curve_names(rows), rows, strict=True):
            files = sorted(image_folder(output, row).glob("*.png"), key=lambda f: int(f.stem))[:pictures]
            shown = [wandb.Image(str(file), caption=f"prompt {file.stem}") for file in files]
            if shown:
                run.log({f"pictures/{name}, {row['steps']} steps": shown})
        if (grid := output / "grid.png").is_file():
            run.log({"grid": wandb.Image(str(grid))})
        made = [file for name in ("report.html", "rows.jsonl") if (file := output / name).is_file()]
        if made:
            run.log_artifact(_artifact(f"report-{output.name}", "report", made, {}))
        for adaptor in adaptors:
            run.log_artifact(_artifact(adaptor.name, "adaptor", [adaptor.folder], adaptor.config))


def _artifact(name: str, kind: str, paths: Sequence[Path], about: Mapping[str, Any]) -> Any:
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "_", name), kind, metadata=dict(about))
    for path in paths:
        (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
    return artifact
