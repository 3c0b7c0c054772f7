"""Perturbs layers of the UNet from some step on (Figures 2, 10–13)."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from clockwork.analysis.perturbation import Perturbation
from clockwork.data.image_io import read_images, write_grid
from clockwork.evaluation.generate import generate, read_batches
from clockwork.experiments.build import counted_prompts, make_sampler
from clockwork.experiments.run_dir import claim
from clockwork.io.lock import release_folders
from clockwork.io.outputs import check_outputs
from clockwork.reports.analysis import curves, summary, write_csv


@release_folders()
def perturb(cfg: DictConfig) -> list[dict[str, Any]]:
    """Writes perturbation.csv, a figure and grids into the output folder; returns the rows."""
    prompts, output = counted_prompts(cfg)[: cfg.count], Path(cfg.output)
    check_outputs(output, "perturbation.csv", "perturbation.png", *(f"grid-{p.id}.png" for p in prompts[: cfg.grids]))
    sampler = make_sampler(cfg, instantiate(cfg.teacher))
    perturbations = Perturbation.each(sampler, cfg.layers, cfg.from_steps, cfg.alpha, cfg.over, cfg.seed)
    claim(output, cfg, sampler.teacher, prompts)
    rows: list[dict[str, Any]] = []
    shown: dict[str, list[Path]] = {}
    untouched = output / "pictures" / "untouched"
    generate(sampler, prompts, untouched, cfg.seed, cfg.batch_size, label="untouched")
    for number, one in enumerate(perturbations, 1):
        folder, label = output / "pictures" / one.name, f"[{number}/{len(perturbations)}] {one.name}"
        generate(sampler, prompts, folder, cfg.seed, cfg.batch_size, one.around, label)
        rows += one.effects(prompts, read_batches(folder, prompts), read_batches(untouched, prompts))
        shown.setdefault(one.layer, []).append(folder)
    write_csv(rows, output / "perturbation.csv")
    curves(rows, "layer", "from_step", {"distance": "L2 to the unperturbed image"}, output / "perturbation.png",
           f"disturbed from step … of {cfg.steps}")  # fmt: skip
    for prompt in prompts[: cfg.grids]:
        lines = {
            layer: read_images([f / f"{prompt.id}.png" for f in [*folders, untouched]])
            for layer, folders in shown.items()
        }
        write_grid(output / f"grid-{prompt.id}.png", lines, columns=[*map(str, cfg.from_steps), "untouched"])
    print(f"L2 to the unperturbed image, disturbed from step {list(cfg.from_steps)} on")
    for layer, points in summary(rows, "layer", "from_step", "distance").items():
        print(f"{layer:10} " + " ".join(f"{mean:.4f}" for mean, *_ in points.values()))
    print(f"figure, grids and rows in {output}")
    return rows
