"""What `tests/calibration/test_processes.py` starts in two processes: calibrations on five captions, three and two."""

import sys
from pathlib import Path

import torch
from helpers.calibration import PROMPTS, small_sampler

from clockwork.calibration.denoiser import FitOptions
from clockwork.calibration.fit import Calibrated, calibrate_sampler
from clockwork.errors import UserError
from clockwork.io.distributed import barrier, process_group, rank
from clockwork.teachers import load_teacher


def calibrate(folder: Path | None, count: int = 5) -> Calibrated:
    """Calibrates the small Stable Diffusion; every second caption is held out."""
    teacher = load_teacher("miniature_sd", guidance=3.0, device="cpu", resolution=32)
    options = FitOptions(held_out_every=2, batch=2)
    return calibrate_sampler(
        small_sampler(teacher=teacher), PROMPTS[:count], ("", "snow"), options=options, folder=folder
    )


def main(folder: Path) -> None:
    """Calibrates twice, the second time after one process has lost its state; then with too few captions."""
    for attempt in ("first", "second"):
        result = calibrate(folder)
        torch.save(result.adaptor.state_dict(), folder / f"{attempt}{rank()}.pt")
        if rank() == 1:
            (folder / "progress1.safetensors").unlink()
        barrier()
    try:
        calibrate(None, count=2)
    except UserError as error:
        (folder / f"error{rank()}.txt").write_text(str(error))


if __name__ == "__main__":
    with process_group():
        main(Path(sys.argv[1]))
