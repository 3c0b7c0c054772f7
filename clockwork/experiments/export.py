"""The graphs of an operating point, for devices without diffusers."""

from pathlib import Path

from omegaconf import DictConfig

from clockwork.errors import UserError
from clockwork.experiments.build import enabled_teacher
from clockwork.exporting.pair import check_target
from clockwork.exporting.pair import export as export_pair
from clockwork.exporting.solver_table import EXPORTED_SOLVERS


def export(cfg: DictConfig) -> Path:
    """Exports the config's operating point.

    Args:
        cfg: The composed config of the command `export`.

    Returns:
        The folder.

    Raises:
        UserError: The format's package is missing, the folder holds something else, or teacher, adaptor or solver
            cannot be exported.
    """
    output = Path(cfg.output)
    if cfg.adaptor_name == "none":
        raise UserError("adaptor=none has no adaptor step to export: use adaptor=identity, or a trained one")
    if cfg.solver not in EXPORTED_SOLVERS:
        raise UserError(f"solver={cfg.solver} cannot be exported: use solver={' or solver='.join(EXPORTED_SOLVERS)}")
    check_target(output, cfg.format)
    teacher = enabled_teacher(cfg)
    print("exporting the full step and the adaptor step, which may take minutes")
    export_pair(teacher.pipe, output, cfg.format, num_inference_steps=cfg.steps, guidance_scale=cfg.guidance)
    files = {file.name: file.stat().st_size / 1e6 for file in sorted(output.glob("[!.]*"))}
    print(*(f"{size:10.3f} MB  {name}" for name, size in files.items()), sep="\n")
    print(f"graphs in {output}: Runner({str(output)!r}) of its runner.py samples latents")
    return output
