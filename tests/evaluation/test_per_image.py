"""Figures of each image: those of the images one by one, whose mean is the row's."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from helpers.evaluation import evaluation_of

from clockwork.errors import MissingFileError
from clockwork.evaluation.generate import read_batch
from clockwork.evaluation.per_image import per_image_file, read_per_image
from clockwork.evaluation.rows import image_folder
from clockwork.metrics.base import Batch, measure
from clockwork.metrics.clip_score import CLIPScore
from clockwork.metrics.similarity import PSNR, SSIM
from clockwork.miniature.prompts import scene_prompts
from clockwork.miniature.teacher import small_clip
from clockwork.sampling.sampler import Sampler


def test_they_are_those_of_single_images_and_their_mean_is_the_rows(identity: Sampler, tmp_path: Path) -> None:
    prompts, metrics = scene_prompts("test", 12), [CLIPScore(small_clip()), PSNR(), SSIM()]
    row = asdict(evaluation_of(prompts, tmp_path, metrics=metrics).measure(replace(identity, steps=2)))
    figures = read_per_image(tmp_path, row)
    assert sorted(map(int, figures.ids)) == [prompt.id for prompt in prompts]
    for prompt in (prompts[2], prompts[11]):  # not in the order of their names
        images, teachers = (read_batch(image_folder(tmp_path, row, of), [prompt]) for of in ("", "teacher_"))
        alone = measure(metrics, [Batch(images, [prompt.text], teacher_images=teachers)])
        position = figures.ids.index(str(prompt.id))
        assert {name: values[position] for name, values in figures.metrics.items()} == pytest.approx(alone, abs=1e-5)
    assert {name: values.mean() for name, values in figures.metrics.items()} == pytest.approx(row["metrics"], rel=1e-6)
    assert {values.dtype for values in figures.metrics.values()} == {np.dtype("float32")}


def test_a_row_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"row 28187d8b203b has no figures of each image.*measure it again"):
        read_per_image(tmp_path, {"digest": "28187d8b203b"})
    assert not per_image_file(tmp_path, "28187d8b203b").parent.exists()
