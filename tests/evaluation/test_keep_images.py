"""Images that go from the decoder to the metrics: the same figures as those of files, and no files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.evaluation import evaluation_of
from helpers.processes import start, start_ranks

from clockwork.evaluation import text_to_image
from clockwork.evaluation.per_image import read_per_image
from clockwork.evaluation.rows import read_rows
from clockwork.evaluation.text_to_image import full_teacher
from clockwork.miniature import metrics
from clockwork.miniature.prompts import scene_prompts
from clockwork.reports.figures import images_side_by_side
from clockwork.sampling.sampler import Sampler


def pngs(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.glob("images/*/*.png")}


def test_figures_do_not_depend_on_what_is_kept(
    identity: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PSNR of every image is equal to the bit, as images are 8-bit on disk and off it."""
    monkeypatch.setattr(text_to_image, "SAMPLE", 2)
    prompts = scene_prompts("test", 5)
    kid = metrics.kid(reference=20, cache=str(tmp_path / "cache"))
    rows, kept = {}, {}
    for keep in ("all", "teacher", "sample", "none"):
        folder = tmp_path / keep
        evaluation = evaluation_of(prompts, folder, batch_size=3, keep_images=keep)
        evaluation = replace(evaluation, metrics=[*evaluation.metrics, metrics.clip_score(), kid])
        evaluation.evaluate(identity)
        (row,) = read_rows(evaluation.rows)
        rows[keep], kept[keep] = (row, read_per_image(folder, row)), pngs(folder)
        images_side_by_side([row], prompts, folder, count=2)
        assert (folder / "grid.png").is_file() == (keep in ("all", "sample"))
    expected, per_image = rows["all"]
    for row, figures in rows.values():
        assert row["digest"] == expected["digest"] and figures.ids == per_image.ids
        assert row["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
        assert np.array_equal(figures.metrics["psnr"], per_image.metrics["psnr"])
    point, teacher = (evaluation.images_digest(p) for p in (identity, full_teacher(identity)))
    assert kept["all"] == {f"images/{d}/{n}.png" for d in (point, teacher) for n in range(5)}
    assert kept["teacher"] == {f"images/{teacher}/{n}.png" for n in range(5)}
    assert kept["sample"] == {f"images/{point}/{n}.png" for n in range(2)} and not kept["none"]
    assert all((tmp_path / "all" / f).read_bytes() == (tmp_path / "sample" / f).read_bytes() for f in kept["sample"])


def test_images_of_an_earlier_evaluation_are_read(
    identity: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = scene_prompts("test", 2)
    evaluation_of(prompts, tmp_path).measure(identity)

    def refuse(*_: object) -> None:
        raise AssertionError("generated again")

    monkeypatch.setattr("clockwork.evaluation.generate.generate_batch", refuse)
    evaluation_of(prompts, tmp_path, keep_images="none").measure(identity)


@pytest.mark.slow
def test_every_process_measures_its_share(tmp_path: Path) -> None:
    """Two processes without files give the figures of one with files, those of sets of features included."""
    words = ["scripts/evaluate.py", "adaptor=identity", "steps=2", "prompts.count=9", "batch_size=2"]
    small = ["metrics=miniature_all", "metrics.reference=120", "metrics.latency=false"]
    commands = {
        name: [
            *words,
            *small,
            f"metrics.cache={tmp_path / name / 'cache'}",
            f"output={tmp_path / name}",
            f"keep_images={k}",
        ]
        for name, k in (("one", "all"), ("several", "none"))
    }
    for process in (start(*commands["one"]), *start_ranks(2, *commands["several"])):
        status, _, errors = process.wait()
        assert status == 0, errors
    (one,), (several,) = (read_rows(tmp_path / name / "rows.jsonl") for name in commands)
    assert several["metrics"] == pytest.approx(one["metrics"], rel=1e-5) and len(one["metrics"]) == 10
    assert several["digest"] == one["digest"] and len(pngs(tmp_path / "one")) == 18 and not pngs(tmp_path / "several")
