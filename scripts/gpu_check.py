"""Checks all commands on one GPU with random weights at real size: `make gpu-check` writes outputs/gpu/report.md."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from clockwork.errors import UserError
from clockwork.experiments.command import command
from clockwork.experiments.gpu_check import Stage, machine, run_stage, write_report

CAPTIONS = ["a lighthouse at dusk", "a red bicycle against a wall", "two cats on a sofa", "a bowl of oranges"]


def stages(cfg: DictConfig, folder: Path) -> list[Stage]:
    """The commands in their order; later ones use what earlier ones made."""
    captions, image = folder / "captions.txt", folder / "generated" / "image.png"
    captions.write_text("\n".join(CAPTIONS * 4) + "\n")
    where = [f"device={cfg.device}", f"precision={cfg.precision}"]
    teacher = ["teacher=miniature_sd"] if cfg.small else ["teacher=sd15", f"teacher.path={folder / 'sd15'}"]
    at = [*teacher, *where, f"steps={2 if cfg.small else 4}"]
    prompts = ["prompts=captions", f"prompts.path={captions}", f"prompts.count={4 if cfg.small else 8}"]
    # Random weights for the text embedder are not to be had from a hub: the adaptor reads no text.
    train = ["train", *at, *prompts, "adaptor=resnet_no_text", "prompts_per_epoch=4", "repeats_per_epoch=1",
             "samples_every=1", "val_prompts=0", "generation_batch_size=4", "guided=1",
             f"output={folder / 'adaptors'}"]  # fmt: skip
    measure = [
        "evaluate",
        *at,
        *prompts,
        "metrics=none",
        f"adaptors={folder / 'adaptors'}",
        f"output={folder / 'eval'}",
    ]
    points = "points=[{adaptor: none, schedule: full}, {adaptor: identity}, {adaptor: resnet_no_text}]"
    edit = ["edit", *teacher, *where, f"image={image}", "source=a lighthouse", "target=a castle", "edit_metrics=none",
            "inversion.steps=4", "generation.steps=4", "resize=true", f"output={folder / 'edit'}"]  # fmt: skip
    commands = {
        "train": [*train, "epochs=1"],
        "resume": [*train, "epochs=2"],
        "evaluate": [*measure, points],
        "generate": ["generate", *at, f"prompt={CAPTIONS[0]}", f"output={image}"],
        "edit": edit,
        "bench": ["bench", *teacher, *where, "steps=8", "batch=1", "rounds=3"],
    }
    if not cfg.small:
        weights = ["random_teacher", "architecture=sd15", f"path={folder / 'sd15'}"]
        commands = {"weights": weights, **commands}
    return [Stage(name, script, tuple(overrides)) for name, (script, *overrides) in commands.items()]


@command("gpu_check")
def main(cfg: DictConfig) -> None:
    folder = Path(cfg.output)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"output={folder} is not empty: pass output=<a new folder>, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for stage in stages(cfg, folder):
        results.append(run_stage(stage, folder))
        print(f"{stage.name}: {'passed' if results[-1].passed else 'failed'}, {results[-1].seconds:.1f} s", flush=True)
        write_report(results, folder / "report.md", machine())
    print(f"report in {folder / 'report.md'}")
    sys.exit(not all(result.passed for result in results))


if __name__ == "__main__":
    main()
