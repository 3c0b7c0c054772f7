"""The shipped miniature: scenes by seed, a folder that diffusers loads, metrics that see what captions say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from helpers.processes import start

from clockwork.metrics.fid import FID
from clockwork.metrics.reference import Reference
from clockwork.metrics.similarity import psnr_and_ssim
from clockwork.miniature import WEIGHTS, models, scenes
from clockwork.miniature.teacher import small_clip
from clockwork.miniature.training import Recipe
from clockwork.teachers.random_weights import WORDS
from clockwork.teachers.tokenizer import train_tokenizer


def test_scenes_depend_on_split_and_number_alone() -> None:
    captions, images = scenes.render_batch("test", 3, 4)
    assert captions[2] == scenes.sample_scene("test", 5).caption
    assert torch.equal(scenes.render_batch("test", 5, 1)[1][0], images[2])
    assert captions != scenes.render_batch("train", 3, 4)[0]


def test_recolouring_changes_the_caption_and_the_thing_alone() -> None:
    scene = next(s for i in range(99) if (s := scenes.sample_scene("test", i)).objects[0].colour == "red")
    other = scene.recoloured("green")
    assert other.caption == scene.caption.replace("a red", "a green", 1).replace(" red", " green", 1)
    changed = (scenes.render(scene) != scenes.render(other)).any(-1)
    assert 0 < changed.mean() < 0.6


@pytest.mark.parametrize("name", ["miniature", "miniature_sd"])
def test_diffusers_loads_it_and_it_paints(name: str) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS / name, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    captions = [scenes.sample_scene("test", i).caption for i in range(32)]
    latents = torch.randn(32, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    painted = pipe(captions, num_inference_steps=8, guidance_scale=3.0, latents=latents, output_type="np").images
    images = torch.from_numpy((painted * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)
    clip = small_clip()
    match = F.normalize(clip.encode_image(images), dim=-1) @ clip.encode_text(captions).T
    assert (match.argmax(1) == torch.arange(32)).float().mean() > 0.9


def test_words_are_single_tokens() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS / "miniature", safety_checker=None)
    for i in range(200):
        caption = scenes.sample_scene("test", i).caption
        assert pipe.tokenizer.tokenize(caption) == [f"{word}</w>" for word in caption.split()]


def test_the_small_clip_finds_captions_of_real_renders() -> None:
    captions, images = scenes.render_batch("test", 0, 100)
    clip = small_clip()
    seen = F.normalize(clip.encode_image(((images + 1) * 127.5).round().byte()), dim=-1)
    assert ((seen @ clip.encode_text(captions).T).argmax(1) == torch.arange(100)).float().mean() > 0.95


def test_fid_is_the_frechet_distance() -> None:
    """Against the textbook formula with scipy's matrix square root; means over channels as features."""
    rng = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, 256 - 40 * i, (60, 3, 8, 8), generator=rng, dtype=torch.uint8) for i in range(2))

    def features(x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((2, 3))

    ours = FID(Reference(features, "means", lambda: real.split(20)))(fake.split(7))
    a, b = features(real).double().numpy(), features(fake).double().numpy()
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    theirs = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert ours == pytest.approx(theirs, rel=1e-4)
    with pytest.raises(ValueError, match="more images than features"):
        FID(Reference(features, "means", lambda: [real[:3]]))


def test_psnr_is_its_formula() -> None:
    a = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    psnr, ssim = psnr_and_ssim([(a, a + 5)])
    assert psnr == pytest.approx(20 * np.log10(255 / 5), abs=1e-4)
    assert psnr_and_ssim([(a, a)]) == (100.0, pytest.approx(1.0)) and ssim < 1


def test_a_tokenizer_made_twice_is_the_same(tmp_path: Path) -> None:
    one, two = (models.make_tokenizer(tmp_path / name, 200) for name in ("one", "two"))
    assert one.get_vocab() == two.get_vocab()
    assert one("a small red circle").input_ids == two("a small red circle").input_ids


@pytest.mark.slow
def test_a_tokenizer_made_in_another_process_is_the_same(tmp_path: Path) -> None:
    """Hash tables have another order in every process; merges of equal frequency must not follow it."""
    train_tokenizer(tmp_path / "one", [WORDS, WORDS], 77)
    status, _, errors = start("tests/helpers/make_tokenizer.py", tmp_path / "two").wait()
    assert status == 0, errors
    for file in ("vocab.json", "merges.txt"):
        assert (tmp_path / "one" / file).read_text() == (tmp_path / "two" / file).read_text()


@pytest.mark.slow
def test_the_whole_recipe_from_nothing(tmp_path: Path) -> None:
    """Every stage of `make miniature`, two steps each, ends in pipelines that paint; what is there is not run again."""
    few = {"steps": 2, "batch_size": 2, "learning_rate": 1e-3}
    trainer: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    recipe = Recipe(tmp_path)
    recipe.autoencoder(few, trainer)
    recipe.clip(few, trainer)
    for name, origin in (("draft", None), ("miniature", "draft"), ("miniature_sd", "miniature")):
        recipe.teacher(name, {**few, "offset": 1}, 4, trainer, origin)
    begun, ended = (
        UNet2DConditionModel.from_pretrained(tmp_path / n, subfolder="unet") for n in ("draft", "miniature")
    )
    moved = [not torch.equal(a, b) for a, b in zip(begun.parameters(), ended.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "miniature_sd")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red circle", num_inference_steps=1, output_type="pt").images.shape == (1, 3, 32, 32)
    before = (tmp_path / "draft" / "model_index.json").stat().st_mtime_ns
    recipe.teacher("draft", few, 4, trainer)
    assert (tmp_path / "draft" / "model_index.json").stat().st_mtime_ns == before
