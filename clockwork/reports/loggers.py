"""Where training curves go: nowhere, a csv file, or Weights & Biases."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal


def make_logger(config: Mapping[str, Any], output: Path) -> Any:
    """A Lightning logger, or False. Without a key wandb writes offline, into the output folder."""
    if config["name"] == "none":
        return False
    if config["name"] == "csv":
        from pytorch_lightning.loggers import CSVLogger

        return CSVLogger(output, name="log")  # a version a run: a resumed one keeps the log of the one before
    from pytorch_lightning.loggers import WandbLogger

    return WandbLogger(project=config["project"], group=config["group"], save_dir=output, offline=offline())


def offline() -> bool:
    """No key in the environment or in ~/.netrc, and no mode asked for."""
    netrc = Path.home() / ".netrc"
    known = "WANDB_API_KEY" in os.environ or (netrc.is_file() and "wandb" in netrc.read_text())
    return not known and os.environ.get("WANDB_MODE", "offline") == "offline"


def log_rows(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], output: Path) -> None:
    """The same rows as a wandb table, with the figures beside them."""
    if config["name"] != "wandb":
        return
    import wandb

    mode: Literal["offline", "online"] = "offline" if offline() else "online"
    with wandb.init(
        project=config["project"], group=config["group"], dir=output, mode=mode, job_type="evaluate"
    ) as run:
        columns = list(rows[0])
        run.log({"rows": wandb.Table(columns=columns, data=[[row[c] for c in columns] for row in rows])})
        figures = {name: output / f"{name}.png" for name in ("pareto", "grid")}
        run.log({name: wandb.Image(str(file)) for name, file in figures.items() if file.is_file()})
