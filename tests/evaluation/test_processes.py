"""Several processes and kills: nothing lost, nothing doubled, the same numbers."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.commands import ROOT
from helpers.processes import ENVIRONMENT, Process, start, start_ranks

from clockwork.data.image_io import write_image
from clockwork.evaluation.per_image import read_per_image
from clockwork.evaluation.rows import image_folder, read_rows
from clockwork.miniature.scenes import render, sample_scene

FEW = ["metrics=none", "metrics.latency=false", "steps=2", "adaptor=identity", "batch_size=2"]


def command(output: Path, *options: str) -> list[str]:
    return ["scripts/evaluate.py", *FEW, *options, f"output={output}"]


def check(*processes: Process) -> None:
    for process in processes:
        status, _, errors = process.wait()
        assert status == 0, errors


def images(folder: Path, row: dict[str, Any]) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in image_folder(folder, row).iterdir()}


@pytest.mark.parametrize(("processes", "prompts"), [pytest.param(2, 5, marks=pytest.mark.slow), (3, 2)])
def test_several_processes_measure_what_one_does(processes: int, prompts: int, tmp_path: Path) -> None:
    """The same images and the same figures, the reference's sums made in shares included; with three processes and two
    prompts one process has no image."""
    words = ["metrics=miniature", "metrics.reference=120", f"prompts.count={prompts}"]
    commands = {
        name: command(tmp_path / name, *words, f"metrics.cache={tmp_path / name / 'cache'}")
        for name in ("several", "one")
    }
    check(start(*commands["one"]), *start_ranks(processes, *commands["several"]))
    (several,), (one,) = (read_rows(tmp_path / name / "rows.jsonl") for name in commands)
    assert images(tmp_path / "several", several) == images(tmp_path / "one", one)
    assert len(images(tmp_path / "one", one)) == prompts
    assert list(one["metrics"]) == ["fid_miniature", "clip_score_miniature", "psnr", "ssim"]
    assert several["metrics"] == pytest.approx(one["metrics"], rel=1e-6)
    of_images = {name: read_per_image(tmp_path / name, one) for name in commands}
    assert of_images["several"].ids == of_images["one"].ids and len(of_images["one"].ids) == prompts
    for metric, values in of_images["one"].metrics.items():
        assert of_images["several"].metrics[metric] == pytest.approx(values, rel=1e-5)
    assert {k for k in one if one[k] != several[k]} <= {"command", "metrics"}


@pytest.mark.slow
def test_several_processes_edit_as_one_does(tmp_path: Path) -> None:
    """Three source images with two edits each on two processes: an image is inverted once, on one of them."""
    entries = []
    for index in range(3):
        scene = sample_scene("test", index)
        write_image(tmp_path / f"{index}.png", torch.from_numpy(render(scene)).permute(2, 0, 1))
        targets = [scene.recoloured(colour).caption for colour in ("cyan", "pink")]
        entries.append({"init_img": f"{index}.png", "source_prompt": scene.caption, "target_prompts": targets})
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(entries))
    files = [f"benchmark.images={tmp_path}", f"benchmark.file={tmp_path / 'set.yaml'}"]
    point = ["inversion.steps=2", "generation.steps=2", "points=[{adaptor: identity, schedule: clock2}]"]
    words = ["scripts/edit.py", "+benchmark=imagenetr_ti2i", *files, *point]
    commands = {
        name: [*words, f"output={tmp_path / name}", f"latents={tmp_path / name / 'latents'}"]
        for name in ("several", "one")
    }
    check(start(*commands["one"]), *start_ranks(2, *commands["several"]))
    (several,), (one,) = (read_rows(tmp_path / name / "rows.jsonl") for name in commands)
    assert images(tmp_path / "several", several) == images(tmp_path / "one", one)
    assert len(images(tmp_path / "one", one)) == 6 + 3 and len(list(tmp_path.glob("several/latents/*"))) == 3
    assert several["metrics"] == pytest.approx(one["metrics"], rel=1e-9) and len(one["metrics"]) == 4
    assert {k for k in one if one[k] != several[k]} <= {"command", "metrics"}
    assert (tmp_path / "several" / "figure6.png").is_file()


@pytest.mark.slow
def test_torchrun_starts_the_processes(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, *command(tmp_path, "prompts.count=3")]
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read_rows(tmp_path / "rows.jsonl")) == 1 and len(list(tmp_path.glob("images/*/*.png"))) == 6


def test_ctrl_c_keeps_the_pictures_and_the_same_command_goes_on(tmp_path: Path) -> None:
    stopped = start(*command(tmp_path, "prompts.count=40"))
    while not list(tmp_path.glob("images/*/*.png")):
        assert stopped.poll() is None
        time.sleep(0.05)
    stopped.send_signal(signal.SIGINT)
    status, _, errors = stopped.wait()
    assert status == 130 and "Traceback" not in errors, errors
    assert "stopped: images and rows are kept, and the same command goes on from there" in errors
    assert not list(tmp_path.glob("images/*/*.partial"))
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("images/*/*.png")}
    assert 0 < len(kept) < 80
    check(start(*command(tmp_path, "prompts.count=40")))
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(read_rows(tmp_path / "rows.jsonl")) == 1 and len(list(tmp_path.glob("images/*/*.png"))) == 80
