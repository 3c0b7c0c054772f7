"""Logging of training and evaluation to CSV files and Weights & Biases."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from clockwork.evaluation.rows import flat_row, image_folder
from clockwork.reports.adaptors import TrainedAdaptor
from clockwork.reports.pareto import curve_names, pareto_figures
from clockwork.reports.tables import Row


def make_logger(config: Mapping[str, Any], output: Path) -> Any:
    """Lightning loggers, or False. wandb comes beside the csv file, so that no figure is in wandb alone; without a key
    it writes offline, into the output folder."""
    if config["name"] == "none":
        return False
    from pytorch_lightning.loggers import WandbLogger

    from clockwork.reports.csv_logger import AtomicCSVLogger

    loggers: list[Any] = [AtomicCSVLogger(output, name="log")]  # a version a run: a resumed one keeps the log before it
    if config["name"] == "wandb":
        group = config["group"] or output.parent.name
        loggers.append(WandbLogger(project=config["project"], group=group, save_dir=output, offline=offline()))
    return loggers


def offline() -> bool:
    """Whether wandb writes to local files only.

    Returns:
        True if there is no API key in the environment or in `~/.netrc`, and `WANDB_MODE` is unset or `offline`.
    """
    netrc = Path.home() / ".netrc"
    has_key = "WANDB_API_KEY" in os.environ or (netrc.is_file() and "wandb" in netrc.read_text())
    return not has_key and os.environ.get("WANDB_MODE", "offline") == "offline"


def log_adaptor(loggers: Sequence[Any], folder: Path, about: Mapping[str, Any]) -> None:
    """Uploads a trained adaptor as an artifact named after the run's folder; loggers other than wandb are ignored.

    Args:
        loggers: Lightning loggers.
        folder: The adaptor's folder, inside the run's folder.
        about: Metadata of the artifact.
    """
    for logger in loggers:
        if hasattr(logger, "log_image"):  # Weights & Biases
            logger.experiment.log_artifact(_artifact(folder.parent.name, "adaptor", [folder], about))


def log_calibration(config: Mapping[str, Any], folder: Path, figures: Mapping[str, Any], image: Path) -> None:
    """Logs a calibration as one wandb run: the error of each step, the figure, and the adaptor as an artifact.

    Does nothing unless the logger is wandb.

    Args:
        config: The logger's config: `name`, `project` and `group`, which defaults to the name of the teacher's folder.
        folder: The adaptor's folder, inside the run's folder.
        figures: Figures of the calibration, as the adaptor's `config.json` holds them.
        image: The figure of the errors.
    """
    if config["name"] != "wandb":
        return
    import wandb

    mode: Literal["offline", "online"] = "offline" if offline() else "online"
    output = folder.parent
    group = config["group"] or output.parent.name
    with wandb.init(project=config["project"], group=group, dir=output, mode=mode, job_type="calibrate") as run:
        for fit in figures["steps"]:
            run.log({name: fit[name] for name in ("step", "error", "identity_error", "ridge")})
        run.log({"errors": wandb.Image(str(image))})
        run.log_artifact(_artifact(output.name, "adaptor", [folder], figures))


def log_rows(
    config: Mapping[str, Any],
    rows: Sequence[Row],
    output: Path,
    adaptors: Sequence[TrainedAdaptor] = (),
    count: int = 6,
) -> None:
    """Logs an evaluation as one wandb run: rows, Pareto plots and images; report and adaptors as artifacts.

    Does nothing unless the logger is wandb.

    Args:
        config: The logger's config: `name`, `project` and `group`, which defaults to the output folder's name.
        rows: The rows.
        output: The output folder of the rows.
        adaptors: The trained adaptors that the rows used.
        count: Number of images per row.
    """
    if config["name"] != "wandb":
        return
    import wandb

    mode: Literal["offline", "online"] = "offline" if offline() else "online"
    group = config["group"] or output.name
    with wandb.init(project=config["project"], group=group, dir=output, mode=mode, job_type="evaluate") as run:
        _log_figures(run, rows)
        _log_images(run, rows, output, count)
        reports = [file for name in ("report.html", "rows.jsonl") if (file := output / name).is_file()]
        if reports:
            run.log_artifact(_artifact(f"report-{output.name}", "report", reports, {}))
        for adaptor in adaptors:
            run.log_artifact(_artifact(adaptor.name, "adaptor", [adaptor.folder], adaptor.config))


def _log_figures(run: Any, rows: Sequence[Row]) -> None:
    """Logs the rows as a table, and a Pareto plot per metric and cost."""
    import wandb

    flat = [flat_row(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    run.log({"rows": wandb.Table(columns=columns, data=[[row.get(c) for c in columns] for row in flat])})
    for name, figure in pareto_figures(rows).items():
        run.log({f"pareto/{name}": figure})


def _log_images(run: Any, rows: Sequence[Row], output: Path, count: int) -> None:
    """Logs the first `count` images of each row, and the grid of all rows."""
    import wandb

    for name, row in zip(curve_names(rows), rows, strict=True):
        files = sorted(image_folder(output, row).glob("*.png"), key=lambda f: int(f.stem))[:count]
        images = [wandb.Image(str(file), caption=f"prompt {file.stem}") for file in files]
        if images:
            run.log({f"images/{name}, {row['steps']} steps": images})
    if (grid := output / "grid.png").is_file():
        run.log({"grid": wandb.Image(str(grid))})


def _artifact(name: str, kind: str, paths: Sequence[Path], about: Mapping[str, Any]) -> Any:
    """Creates an artifact of files and folders."""
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "_", name), kind, metadata=dict(about))
    for path in paths:
        (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
    return artifact
