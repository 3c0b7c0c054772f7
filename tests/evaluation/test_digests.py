"""What a row's digest and its images' folder depend on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.evaluation import evaluation_of

from clockwork.adaptors import Identity, ResNet
from clockwork.evaluation.text_to_image import full_teacher
from clockwork.metrics.clip_score import CLIPScore
from clockwork.miniature.prompts import scene_prompts
from clockwork.miniature.teacher import small_clip
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, load_teacher
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.unet.split import SplitUNet


def other_weights(module: torch.nn.Module) -> None:
    with torch.no_grad():
        next(module.parameters()).add_(1.0)


CHANGES: dict[str, Callable[[Teacher], Any]] = {
    "precision": lambda teacher: teacher.unet.to(torch.float16),
    "VAE": lambda teacher: other_weights(teacher.pipe.vae),
    "text encoder": lambda teacher: other_weights(teacher.pipe.text_encoder),
    "UNet": lambda teacher: other_weights(teacher.unet),
    "solver": lambda teacher: teacher.pipe.scheduler.register_to_config(timestep_spacing="leading"),
    "text embedder": lambda teacher: setattr(teacher, "text_embedder", OpenCLIP("ViT-B-32", "openai")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_an_image_changes_the_digest(
    change: str, reads_text: Sampler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    width = reads_text.teacher.text_width
    monkeypatch.setattr(OpenCLIP, "width", width)  # or another embedder's width would be refused
    evaluation = evaluation_of(scene_prompts("test", 1), tmp_path)
    teacher = load_teacher("miniature", guidance=3.0)
    same = replace(reads_text, teacher=teacher, split=SplitUNet(teacher.unet))
    assert evaluation.digest(same) == evaluation.digest(reads_text)
    teacher = load_teacher("miniature", guidance=3.0)
    CHANGES[change](teacher)
    other = replace(reads_text, teacher=teacher, split=SplitUNet(teacher.unet))
    assert evaluation.images_digest(other) != evaluation.images_digest(reads_text)
    assert evaluation.digest(other) != evaluation.digest(reads_text)


def test_whatever_does_not_change_an_image_does_not_change_its_folder(reads_text: Sampler, tmp_path: Path) -> None:
    evaluation = evaluation_of(scene_prompts("test", 1), tmp_path)
    embedder = small_clip(text_only=True)
    scored = replace(evaluation, metrics=[CLIPScore(small_clip())])
    assert scored.images_digest(reads_text) == evaluation.images_digest(reads_text)
    assert scored.digest(reads_text) != evaluation.digest(reads_text)
    assert evaluation.digest(replace(reads_text, guidance=3)) == evaluation.digest(reads_text)
    untexted = replace(reads_text, adaptor=Identity(feature_dims(reads_text.teacher, "stage1")))
    assert untexted.text_embedder is None and reads_text.text_embedder == embedder.identity


def test_an_adaptor_is_the_same_in_every_precision(reads_text: Sampler) -> None:
    assert reads_text.adaptor is not None
    trained = reads_text.adaptor_hash
    half = ResNet(reads_text.adaptor.dims, width=16, blocks=1)
    half.load_state_dict(reads_text.adaptor.state_dict())
    cast = replace(reads_text, adaptor=half.bfloat16(), trained_hash=trained)
    assert cast.adaptor_hash == trained != replace(cast, trained_hash=None).adaptor_hash
    assert cast.identity() != reads_text.identity(), "it computes other images"


def test_the_teachers_images_are_the_same_for_adaptors_at_all_cuts(identity: Sampler) -> None:
    """A full pass at any cut equals the UNet, so they are generated once."""
    points = [replace(identity, split=SplitUNet(identity.teacher.unet, cut)) for cut in ("stage1", "layer1", "1,2")]
    full = [full_teacher(point) for point in points]
    assert len({sampler.split.cut for sampler in full}) == 1 and full_teacher(full[0]) is full[0]
    assert all(sampler.adaptor is None and sampler.schedule == Schedule() for sampler in full)
