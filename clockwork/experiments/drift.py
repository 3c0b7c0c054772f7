"""How much `r_out` changes from step to step at every cut."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from clockwork.analysis.drift import drift
from clockwork.experiments.build import counted_prompts, make_sampler
from clockwork.io.outputs import check_outputs
from clockwork.reports.analysis import curves, summary, write_csv


def measure_drift(cfg: DictConfig) -> list[dict[str, Any]]:
    """Writes drift.csv and drift.png into the output folder; returns the rows."""
    check_outputs(Path(cfg.output), "drift.csv", "drift.png")
    prompts = counted_prompts(cfg)[: cfg.count]  # before the teacher is loaded: a mistake shows at once
    sampler = make_sampler(cfg, instantiate(cfg.teacher))
    entries = drift(sampler, prompts, list(map(str, cfg.cuts)), cfg.seed, cfg.batch_size)
    rows, output = [asdict(row) for row in entries], Path(cfg.output)
    write_csv(rows, output / "drift.csv")
    measures = {"relative_l2": "relative L2 to the step before", "cosine": "cosine to the step before"}
    curves(rows, "cut", "step", measures, output / "drift.png", f"step of {cfg.steps}")
    for name in measures:
        for cut, points in summary(rows, "cut", "step", name).items():
            print(f"{name:12} {cut:8} " + " ".join(f"{mean:.3f}" for mean, *_ in points.values()))
    print(f"figure and rows in {output}")
    return rows
