"""The chain at real size with random weights: `make test-full`."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from clockwork.evaluation.rows import read_rows
from clockwork.teachers.architectures import architecture
from clockwork.unet.split import SplitUNet

ROOT = Path(__file__).parents[2]


@pytest.mark.full
@pytest.mark.parametrize("name", ["sd15", "efficient", "distilled", "bk_sdm_base", "bk_sdm_tiny", "sd21", "sdxl"])
def test_full_pass_is_diffusers_at_real_size(name: str) -> None:
    config = architecture(name)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**config).eval().requires_grad_(False)
    inputs: dict[str, Any] = {
        "sample": torch.randn(1, 4, 32, 32),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(1, 77, config["cross_attention_dim"]),
    }
    if name == "sdxl":
        inputs["added_cond_kwargs"] = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
    if name == "distilled":
        inputs["timestep_cond"] = torch.randn(1, config["time_cond_proj_dim"])
    plain = unet(**inputs).sample
    for cut in ("stage1", "stage1_upsampled", "stage2", "layer1", "layer2"):
        assert torch.equal(SplitUNet(unet, cut)(**inputs), plain), cut


@pytest.mark.full
def test_commands_run_at_real_size(tmp_path: Path) -> None:
    """SD v1.5 with random weights, 256² pixels and 2 steps: a folder, an adaptor trained a step, a row; 14 GB."""
    folder, adaptors, rows = tmp_path / "sd15", tmp_path / "adaptors", tmp_path / "eval"
    place = [f"teacher.path={folder}", "teacher.resolution=256", "teacher.openclip=miniature", "device=cpu"]
    point = ["teacher=sd15", *place, "adaptor=resnet", "schedule=clock2", "steps=2"]
    tiny = [
        "prompts_per_epoch=1",
        "repeats_per_epoch=1",
        "generation_batch_size=1",
        "epochs=1",
        "samples_every=0",
        "logger=none",
    ]
    few = ["prompts.count=1", "batch_size=1", "metrics=none", "metrics.latency=false"]
    commands = {
        "random_teacher": ["architecture=sd15", f"path={folder}"],
        "train": [*point, *tiny, f"output={adaptors}"],
        "evaluate": [*point, *few, f"adaptors={adaptors}", f"output={rows}"],
    }
    for script, arguments in commands.items():
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, f"scripts/{script}.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of the largest so far
        print(f"{script}: {time.monotonic() - start:.0f} s, {peak:.1f} GiB")
        assert peak < 14
    (adaptor,) = adaptors.rglob("adaptor/config.json")
    assert json.loads(adaptor.read_text())["operating_point"]["resolution"] == 256
    (row,) = read_rows(rows / "rows.jsonl")
    assert (row["adaptor"], row["calls"], row["full_steps"]) == ("resnet", 2, 1)
    assert row["gmacs"] > 0 and row["metrics"]["psnr"] > 0
