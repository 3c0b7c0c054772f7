"""One prompt without and with Clockwork: `python scripts/generate.py prompt="…" adaptor=identity schedule=clock2`."""

import json
from pathlib import Path

from omegaconf import DictConfig

from clockwork.errors import UserError
from clockwork.experiments.command import command


@command("generate")
def main(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    import clockwork
    from clockwork.data.image_io import write_grid
    from clockwork.experiments.build import adaptor_source, require_values
    from clockwork.io.atomic import atomic_write
    from clockwork.pipeline.compare import compare
    from clockwork.sampling.solvers import make_solver

    require_values(cfg, "prompt")
    if cfg.adaptor_name == "none":
        raise UserError("adaptor=none is the picture without Clockwork: say adaptor=identity, or a trained one")
    adaptor = adaptor_source(cfg)
    teacher = instantiate(cfg.teacher)
    teacher.pipe.scheduler = make_solver(cfg.solver, teacher.noise_schedule)
    clockwork.enable(teacher.pipe, str(cfg.schedule), adaptor, str(cfg.cut))
    seeds = list(range(cfg.seed, cfg.seed + cfg.count))
    size = {"height": teacher.resolution, "width": teacher.resolution}
    call = {"num_inference_steps": cfg.steps, "guidance_scale": cfg.guidance, **size}
    pairs = [compare(teacher, cfg.prompt, seed, call) for seed in seeds]
    output = Path(cfg.output)
    write_grid(output, {f"seed {pair.seed}": pair.images for pair in pairs})
    report = [pair.to_dict() for pair in pairs]
    with atomic_write(output.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n")
    for pair in report:
        print(
            f"seed {pair['seed']}: {pair['seconds_without']:.3g} s without, {pair['seconds_with']:.3g} s with Clockwork"
        )
    clockwork.summary(teacher.pipe)
    print(f"{output} (left without, right with Clockwork), figures in {output.with_suffix('.json')}")


if __name__ == "__main__":
    main()
