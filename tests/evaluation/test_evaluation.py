"""Rows: one a point however often it is asked for, nothing lost to a kill, and what they measure in order."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluation import evaluation_of
from helpers.figures import saved_figures, shows

from clockwork.data.image_files import read_image
from clockwork.data.image_io import images_at_once
from clockwork.errors import UserError
from clockwork.evaluation.generate import read_batches
from clockwork.evaluation.rows import append_row, image_folder, read_rows
from clockwork.flops.cost import image_flops, step_flops
from clockwork.metrics import latency
from clockwork.metrics.base import Metric
from clockwork.metrics.fid import FID
from clockwork.metrics.reference import Reference
from clockwork.metrics.registry import metric_info
from clockwork.miniature.prompts import scene_prompts
from clockwork.reports.figures import images_side_by_side
from clockwork.reports.pareto import save_pareto
from clockwork.reports.tables import table
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule


def test_a_row_is_measured_once(identity: Sampler, tmp_path: Path) -> None:
    evaluation = evaluation_of(scene_prompts("test", 4), tmp_path, batch_size=4)
    evaluation.evaluate(identity)
    evaluation.evaluate(identity)
    evaluation.evaluate(replace(identity, steps=6))
    rows = read_rows(evaluation.rows)
    assert len(evaluation.rows.read_text().splitlines()) == len(rows) == 2
    assert rows[0]["full_steps"] == 4 and rows[0]["calls"] == 8 and rows[0]["latency_ms"] is None
    evaluation.rows.write_text(evaluation.rows.read_text()[:-30])  # killed in the middle of the second line
    evaluation.evaluate(replace(identity, steps=6))
    again = read_rows(evaluation.rows)
    assert [r["digest"] for r in again] == [r["digest"] for r in rows] and again[1]["metrics"] == rows[1]["metrics"]
    assert "identity" in table(rows)
    with saved_figures() as figures:
        save_pareto(rows, tmp_path / "pareto.png")
    points = [(1000 * row["tflops_full"], row["metrics"]["psnr"]) for row in rows[::-1]]
    assert np.allclose(figures["pareto.png"][metric_info("psnr").axis]["identity clock2"], points)
    images_side_by_side(rows, evaluation.prompts, tmp_path, count=2)
    for row, number in product(rows, range(3)):
        image = read_image(image_folder(tmp_path, row) / f"{number}.png")
        assert shows(tmp_path / "grid.png", image) == (number < 2)


def test_pictures_do_not_depend_on_the_batch(identity: Sampler, tmp_path: Path) -> None:
    prompts = scene_prompts("test", 5)
    one, many = (evaluation_of(prompts, tmp_path / str(n), batch_size=n) for n in (1, 5))
    first, second = (torch.cat(list(read_batches(e.generate(identity), prompts))).int() for e in (one, many))
    assert (first - second).abs().max() <= 1  # the same but for the rounding of a batched convolution


def test_interrupted_painting_keeps_what_is_there(identity: Sampler, tmp_path: Path) -> None:
    evaluation = evaluation_of(scene_prompts("test", 4), tmp_path, batch_size=2)
    folder = evaluation.generate(identity)
    before = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    (folder / "2.png").unlink()
    evaluation.generate(identity)
    after = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    assert {n for n in before if after[n] != before[n]} == {"2.png"}


def test_flops_of_an_image_are_those_of_its_steps(identity: Sampler) -> None:
    full, adaptor = step_flops(identity)
    assert image_flops(identity).full == 2 * (4 * full.full + 4 * adaptor.full)
    assert image_flops(replace(identity, guidance=1.0)).full == 4 * full.full + 4 * adaptor.full
    assert image_flops(replace(identity, solver="pndm")).full == 2 * (5 * full.full + 4 * adaptor.full)
    teacher = replace(identity, adaptor=None, schedule=Schedule())
    assert 0.25 < 1 - image_flops(identity).full / image_flops(teacher).full < 0.5


def test_the_papers_order_of_schedules(identity: Sampler, tmp_path: Path) -> None:
    """Table 3: alternating is nearest to the teacher, {3,4,5,6} farthest (PSNR at the same prompts and seeds)."""
    evaluation = evaluation_of(scene_prompts("test", 8), tmp_path)
    psnr = {
        s: evaluation.measure(replace(identity, schedule=Schedule.parse(s))).metrics["psnr"]
        for s in ("clock2", "3,4,5,6")
    }
    assert psnr["clock2"] > psnr["3,4,5,6"] + 1


@contextmanager
def running(sampler: Sampler) -> Iterator[list[str]]:
    """The names of what runs in the block, in its order."""
    ran: list[str] = []
    pipe, embedder = sampler.teacher.pipe, sampler.teacher.text_embedder
    assert embedder is not None
    modules = {
        "unet": pipe.unet.conv_in,
        "text encoder": pipe.text_encoder,
        "vae": pipe.vae.decoder,
        "text embedder": embedder.module.transformer,
        "adaptor": sampler.adaptor,
    }
    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_pre_hook(lambda *_, name=name: ran.append(name)))
        yield ran


def test_latency_is_latent_generation_only(reads_text: Sampler, tmp_path: Path) -> None:
    """Text encoder, text embedder, noise and decoder are outside what is timed; a measured row is timed later, and its
    other figures stay."""
    prompts = scene_prompts("test", 2)
    evaluation_of(prompts, tmp_path).evaluate(reads_text)
    (measured,) = read_rows(tmp_path / "rows.jsonl")
    with running(reads_text) as ran:
        evaluation_of(prompts, tmp_path, latency=True).evaluate(reads_text)
    first = ran.index("unet")
    assert set(ran[:first]) == {"text encoder", "text embedder"}, "nothing is generated or decoded again"
    assert ran[first:] == ["unet", "unet", "adaptor"] * 12, "two runs to warm up and ten timed, two steps each"
    (timed,) = read_rows(tmp_path / "rows.jsonl")
    names = ("latency_ms", "latency_median_ms", "latency_spread_ms", "latency_device")
    assert {name for name in measured if measured[name] != timed[name]} == set(names)
    assert timed["latency_median_ms"] > 0 and timed["latency_spread_ms"] >= 0
    assert 0.2 < timed["latency_ms"] / timed["latency_median_ms"] < 5


def test_latency_belongs_to_a_device(identity: Sampler, tmp_path: Path) -> None:
    evaluation = evaluation_of(scene_prompts("test", 1), tmp_path, latency=True)
    short = replace(identity, steps=1)
    evaluation.evaluate(short)
    lines = evaluation.rows.read_text().splitlines()
    evaluation.evaluate(short)
    assert evaluation.rows.read_text().splitlines() == lines, "timed once"
    append_row(evaluation.rows, {**json.loads(lines[-1]), "latency_device": "another GPU", "latency_ms": 0.1})
    evaluation.evaluate(short)
    (row,) = read_rows(evaluation.rows)
    assert row["latency_device"] == latency.device_name(torch.device("cpu")) and row["latency_ms"] > 0.1


def test_spread_and_median_are_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 1, 2, …, 10 ms after two slow ones to warm up."""
    clock = [0.0]
    durations = iter([5.0, 5.0, *(ms / 1000 for ms in range(1, 11))])
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])

    def run() -> None:
        clock[0] += next(durations)

    measured = latency.measure_latency(run, torch.device("cpu"))
    assert measured.latency_ms == pytest.approx(5.5) and measured.latency_median_ms == pytest.approx(5.5)
    assert measured.latency_spread_ms == pytest.approx(4.5)


OLD_ROW = {
    **{"digest": "28187d8b203b", "teacher": "miniature", "teacher_hash": "c1c1956c2de1", "cut": "2,3"},
    **{"adaptor": "identity", "adaptor_hash": "9bf7558e7bda", "schedule": "clock2", "solver": "dpm++", "steps": 8},
    **{
        "full_steps": 4,
        "calls": 8,
        "guidance": 3.0,
        "resolution": 32,
        "prompts": "3224434de456",
        "images": 6,
        "seed": 0,
    },
    **{
        "fid": None,
        "clip_score": None,
        "fid_miniature": 31.5,
        "clip_score_miniature": 0.84,
        "psnr": 20.78,
        "ssim": 0.85,
    },
    **{"metrics": "FID small CLIP", "tflops_paper": 0.0007, "tflops_full": 0.0008, "gmacs": 0.5, "device": "cpu"},
    **{"commit": None, "versions": "torch 2", "latency_ms": 41.26},
}


def test_rows_of_earlier_versions_are_read(identity: Sampler, tmp_path: Path) -> None:
    """Their metrics were fields, `metrics` was a label, and the images' folder was named by the row's own digest."""
    evaluation = evaluation_of(scene_prompts("test", 1), tmp_path)
    append_row(evaluation.rows, OLD_ROW)
    evaluation.evaluate(replace(identity, steps=1))
    old, new = read_rows(evaluation.rows)
    assert old["metrics"] == {"fid_miniature": 31.5, "clip_score_miniature": 0.84, "psnr": 20.78, "ssim": 0.85}
    assert (old["metrics_label"], old["latency_ms"], new["metrics"].keys()) == (
        "FID small CLIP",
        41.26,
        {"psnr", "ssim"},
    )
    assert "fid_miniature" not in old and "fid" not in old
    append_row(evaluation.rows, old)
    assert read_rows(evaluation.rows)[0] == old, "written again, it stays as it is"
    (tmp_path / "pictures" / "28187d8b203b").mkdir(parents=True)
    assert image_folder(tmp_path, old) == tmp_path / "pictures" / "28187d8b203b"
    assert image_folder(tmp_path, new) == tmp_path / "images" / new["images_digest"]
    assert image_folder(tmp_path, new, "teacher_").is_dir()
    lines = table([old, new]).splitlines()
    assert "| 31.50†        | 0.8400               | 20.78 " in lines[2] and "| 41.3 " in lines[2]


def test_too_few_prompts_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    fid = FID(Reference(lambda images: images.float().mean((2, 3)), "means", lambda: [torch.rand(9, 3, 2, 2)]))
    metrics: list[list[Metric]] = [[], [fid]]
    for count, chosen in enumerate(metrics):
        with pytest.raises(UserError, match=r"raise prompts\.count"):
            evaluation_of(scene_prompts("test", count), tmp_path, metrics=chosen)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("side", "at_once"), [(32, 50), (256, 32), (512, 8), (768, 3), (1024, 2), (4096, 1)])
def test_fewer_images_at_once_where_they_are_large(side: int, at_once: int) -> None:
    assert images_at_once(side, 50) == at_once


def test_an_adaptorless_clock_is_refused(identity: Sampler) -> None:
    with pytest.raises(ValueError, match="pass adaptor="):
        replace(identity, adaptor=None)
