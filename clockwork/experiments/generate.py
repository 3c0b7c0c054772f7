"""One prompt without and with Clockwork."""

import json
from pathlib import Path

from omegaconf import DictConfig

import clockwork
from clockwork.data.image_io import check_image_file, write_grid
from clockwork.errors import UserError
from clockwork.experiments.build import enabled_teacher, require_values
from clockwork.io.atomic import atomic_write
from clockwork.io.paths import check_file
from clockwork.pipeline.compare import compare


def generate(cfg: DictConfig) -> Path:
    """Returns the file with the images, beside which a JSON file has their figures."""
    require_values(cfg, "prompt")
    if cfg.adaptor_name == "none":
        raise UserError("adaptor=none is the image without Clockwork: use adaptor=identity, or a trained one")
    output = Path(cfg.output)
    figures = output.with_suffix(".json")
    check_image_file(output)
    check_file(figures, '"seconds_without"')
    teacher = enabled_teacher(cfg)
    if teacher.resolution % 8:
        raise UserError(f"resolution {teacher.resolution} is not a multiple of 8, as diffusers needs: change it")
    seeds = list(range(cfg.seed, cfg.seed + cfg.count))
    size = {"height": teacher.resolution, "width": teacher.resolution}
    call = {"num_inference_steps": cfg.steps, "guidance_scale": cfg.guidance, **size}
    pairs = [compare(teacher, cfg.prompt, seed, call) for seed in seeds]
    write_grid(output, {f"seed {pair.seed}": pair.images for pair in pairs})
    report = [pair.to_dict() for pair in pairs]
    with atomic_write(figures) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n")
    for pair in report:
        print(
            f"seed {pair['seed']}: {pair['seconds_without']:.3g} s without, {pair['seconds_with']:.3g} s with Clockwork"
        )
    clockwork.summary(teacher.pipe)
    print(f"{output} (left without, right with Clockwork), figures in {figures}")
    return output
