"""Run by `make dist-check` in an environment with nothing but the wheel and its core dependencies."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

import clockwork
from clockwork.teachers.loading import find_folder

EXTRAS = ("hydra", "pytorch_lightning", "wandb", "open_clip", "torchmetrics", "matplotlib", "plotly")


def main() -> None:
    """Enables and calibrates Clockwork on the shipped miniature; runs a command without the extras that it needs."""
    assert not [name for name in EXTRAS if find_spec(name)], "this environment has more than the core dependencies"
    assert "site-packages" in str(clockwork.__file__), clockwork.__file__
    folder = find_folder("miniature")
    assert folder is not None
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)

    def latents() -> torch.Tensor:
        call = {"num_inference_steps": 4, "height": 32, "width": 32, "output_type": "latent"}
        return pipe("a red circle", generator=torch.Generator().manual_seed(0), **call).images

    without = latents()
    clockwork.enable(pipe, schedule="clock2")
    with_clockwork = latents()
    clockwork.disable(pipe)
    assert not torch.equal(with_clockwork, without) and torch.equal(latents(), without)
    adaptor = clockwork.calibrate(pipe, num_inference_steps=4, height=32, width=32)
    assert adaptor.steps == (2, 4) and not torch.equal(latents(), with_clockwork)
    done = subprocess.run(
        [Path(sys.executable).parent / "clockwork", "train"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and 'pip install "clockwork-diffusion[train]"' in done.stderr, done.stderr
    print("the wheel works with its core dependencies")


if __name__ == "__main__":
    main()
