"""Benchmarks as they come, with their quirks; structure distance; an editor's rows, resumed and reported."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import ROOT
from helpers.editing import editor
from helpers.figures import saved_figures, shows
from hydra import initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from clockwork.data.image_files import read_image
from clockwork.data.image_io import squared, write_image
from clockwork.editing.benchmark import EditPair, pairs_hash, read_ti2i
from clockwork.editing.evaluation import EditEvaluation
from clockwork.editing.source_image import read_source_image
from clockwork.errors import UserError
from clockwork.evaluation.rows import image_folder, read_rows
from clockwork.experiments.configs import compose_config
from clockwork.metrics.base import Metric
from clockwork.metrics.registry import metric_info
from clockwork.metrics.similarity import PSNR
from clockwork.miniature import metrics
from clockwork.miniature.editing import scene_pairs
from clockwork.reports.editing import COLUMNS, figures, readable, side_by_side
from clockwork.reports.tables import table
from clockwork.teachers import Teacher

REAL = Path(__file__).parents[3] / "shared" / "data" / "imagenetr-ti2i"


@pytest.mark.skipif(not REAL.is_dir(), reason="ImageNet-R-TI2I is not here")
def test_imagenetr_ti2i(teacher: Teacher) -> None:
    """Section 6: 150 edits, 3 pictures of each of 10 classes, 5 targets each."""
    pairs = read_ti2i(teacher, str(REAL / "imnetr-ti2i.yaml"), str(REAL))
    assert len(pairs) == 150 and len({p.id for p in pairs}) == 150
    assert [len([p for p in pairs if p.image_id == name]) for name in dict.fromkeys(p.image_id for p in pairs)] == (
        [5] * 30
    )
    assert (pairs[0].source, pairs[0].target) == ("a sketch of a penguin", "a video-game of a penguin")
    assert pairs[5].source == "an art of a penguin" and pairs[10].source == "a painting of a penguin"
    panda = next(p for p in pairs if p.source == "a cartoon of a panda")  # its entry names no picture
    expected = squared(read_image(REAL / "panda" / "cartoon_30.jpg"), teacher.resolution)
    assert torch.equal(panda.image(), expected)
    assert pairs_hash(pairs[:5]) != pairs_hash(pairs[5:10])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "panda").mkdir(parents=True)
    image = torch.randint(0, 255, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name in ("panda/cartoon_1.jpg", "bear.jpg", "../secret_1.jpg"):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "data" / name)
    return tmp_path


def load(teacher: Teacher, folder: Path, text: str, **more: Any) -> Any:
    (folder / "set.yaml").write_text(text)
    return read_ti2i(teacher, str(folder / "set.yaml"), str(folder / "data"), **more)


def test_wild_and_fake_entries(teacher: Teacher, folder: Path) -> None:
    """The same format: a picture with its prompt, one without, and one that the teacher paints from a seed."""
    pairs = load(
        teacher,
        folder,
        "- {init_img: /Wild-TI2I/data/bear.jpg, target_prompts: [a lion]}\n"
        "- {source_prompt: a cartoon of a panda, target_prompts: [a toy of a panda, a bear]}\n"
        "- {source_prompt: a red circle, seed: 50, scale: 3.0, ddim_steps: 2, target_prompts: [a blue circle]}\n",
        source_prompt="",
    )
    assert [p.source for p in pairs] == ["", *["a cartoon of a panda"] * 2, "a red circle"]
    assert [p.id for p in pairs] == ["001-1", "002-1", "002-2", "003-1"]
    side = teacher.resolution
    assert all(p.image().shape == (3, side, side) and p.image().dtype == torch.uint8 for p in pairs)
    assert pairs[3].image() is pairs[3].image()  # generated once


def test_wild_ti2is_own_files(teacher: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They name folders that the downloaded set does not have, and no source prompts."""
    for name in ("horse", "gnochi_mirror"):
        write_image(tmp_path / "data" / f"{name}.png", torch.zeros(3, 32, 32, dtype=torch.uint8))
    (tmp_path / "wild-ti2i-real.yaml").write_text(
        "- {init_img: data/translation/benchmark/horse.png, target_prompts: [a zebra, a statue of a horse]}\n"
        "- {init_img: data/translation/benchmark/gnochi_mirror.png, target_prompts: [a tiger]}\n"
    )
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose_config("edit", ["+benchmark=wild_ti2i", f"benchmark.images={tmp_path}"])
    pairs = instantiate(cfg.benchmark)(teacher)
    assert [(pair.id, pair.source) for pair in pairs] == [("001-1", ""), ("001-2", ""), ("002-1", "")]
    assert all(pair.image().shape[0] == 3 for pair in pairs)
    printed = capsys.readouterr().out
    assert printed.count("found by the names of their files") == printed.count("inverted with the empty one") == 1
    write_image(tmp_path / "other" / "horse.png", torch.zeros(3, 32, 32, dtype=torch.uint8))
    with pytest.raises(UserError, match="2 images named horse"):
        instantiate(cfg.benchmark)(teacher)


BAD = {
    "unknown class": (
        "- {init_img: /T/zebra/toy_1.jpg, target_prompts: [a]}",
        r"zebra/toy_1.jpg.*unknown class 'zebra'",
    ),
    "no such image": ("- {init_img: /T/panda/toy_9.jpg, target_prompts: [a]}", "panda/toy_9.jpg.*no such image"),
    "no targets": ("- {init_img: /T/panda/cartoon_1.jpg}", "entry 1 .*cartoon_1.jpg.*no target_prompts"),
    "empty target": ("- {init_img: /T/panda/cartoon_1.jpg, target_prompts: [a, '']}", "prompt '' is not a text"),
    "number as target": ("- {init_img: /T/panda/cartoon_1.jpg, target_prompts: [3]}", "prompt 3 is not a text"),
    "no source": ("- {init_img: /T/data/bear.jpg, target_prompts: [a]}", "bear.jpg.*no source_prompt"),
    "no picture": ("- {source_prompt: a bear, target_prompts: [a]}", "entry 1 .a bear.*neither init_img"),
    "picture not found by its prompt": (
        "- {source_prompt: a toy of a panda, target_prompts: [a]}",
        "0 images panda/toy",
    ),
    "no source for a seed": ("- {seed: 3, target_prompts: [a]}", "entry 1 .without a name.*source_prompt"),
    "an entry that is none": ("- {source_prompt: a cartoon of a panda, target_prompts: [a]}\n- 3", "entry 2 .*mapping"),
    "out of the folder": ("- {init_img: ../secret_1.jpg, target_prompts: [a]}", "no such image"),
    "out of the folder from within": ("- {init_img: panda/../../secret_1.jpg, target_prompts: [a]}", "no such image"),
    "nothing but above": ("- {init_img: .., target_prompts: [a]}", "no such image"),
    "above by its prompt": ("- {source_prompt: a secret of a .., target_prompts: [a]}", "0 images|neither"),
    "a path as prompt": ("- {source_prompt: a ../secret of a panda, target_prompts: [a]}", "neither init_img"),
    "no list": ("init_img: a", "not contain a list of entries"),
    "no yaml": ("- {", "not valid YAML"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_entry_is_named(teacher: Teacher, folder: Path, name: str) -> None:
    text, said = BAD[name]
    with pytest.raises(ValueError, match=said) as mistake:
        load(teacher, folder, text)
    assert "\n" not in str(mistake.value)


def test_missing_benchmark_files(teacher: Teacher, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no benchmark file at "):
        read_ti2i(teacher, str(folder / "nowhere.yaml"), str(folder))
    with pytest.raises(FileNotFoundError, match="no image folder at "):
        read_ti2i(teacher, __file__, str(folder / "nowhere"))


def test_pictures_of_another_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "data" / "bear.jpg"
    assert read_source_image(file, 32).shape == (3, 32, 32)
    assert "50 × 40 pixels: its central square is resized to 32 × 32" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"bear.jpg has 50 × 40 pixels, not 32 × 32"):
        read_source_image(file, 32, resize=False)
    write_image(folder / "fits.png", read_source_image(file, 32))
    fits = folder / "fits.png"
    assert torch.equal(read_source_image(fits, 32, resize=False), read_source_image(fits, 32))
    (folder / "broken.jpg").write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"broken.jpg is not an image that can be read"):
        read_source_image(folder / "broken.jpg", 32)


def test_scenes_change_one_colour_word(teacher: Teacher) -> None:
    for pair in scene_pairs(teacher, 8):
        before, after = pair.source.split(), pair.target.split()
        assert sum(a != b for a, b in zip(before, after, strict=True) if {a, b} != {"a", "an"}) == 1
        assert pair.ground_truth is not None and not torch.equal(pair.image(), pair.ground_truth())


def every_metric() -> list[Metric]:
    similarities = [PSNR(f"psnr_{name}") for name in ("right", "unedited", "reconstruction", "autoencoder")]
    return [metrics.clip_score(), metrics.structure(), *similarities]


def evaluation_of(pairs: list[EditPair], folder: Path, measured: list[Metric]) -> EditEvaluation:
    return EditEvaluation(benchmark="scenes", pairs=pairs, metrics=measured, folder=folder, latents=folder / "latents")


def test_a_row_is_measured_once_and_resumed(teacher: Teacher, tmp_path: Path) -> None:
    pairs = scene_pairs(teacher, 2)
    plain, clocked = editor(teacher, 4, 2), editor(teacher, 4, 2, "clock2")
    evaluation = evaluation_of(pairs, tmp_path, every_metric())
    evaluation.evaluate(plain)
    kept = list((tmp_path / "latents").iterdir())
    assert len(kept) == 2 and all(file.suffix == ".safetensors" for file in kept)
    images = evaluation.image_folder(plain)
    edit, again = images / "test-0.png", images / "test-1.png"
    before = edit.read_bytes(), again.stat().st_mtime_ns
    edit.unlink()  # killed in between: what is there stays, what is missing comes out the same
    evaluation.rows.unlink()
    for one in (plain, plain, clocked):
        evaluation.evaluate(one)
    assert (edit.read_bytes(), again.stat().st_mtime_ns) == before
    assert len(list((tmp_path / "latents").iterdir())) == 4  # other clocks invert otherwise
    first, second = read_rows(evaluation.rows)
    assert len(evaluation.rows.read_text().splitlines()) == 2
    assert (first["generation_full_steps"], second["generation_full_steps"]) == (2, 1)
    assert (first["inversion_full_steps"], second["inversion_full_steps"]) == (4, 2)
    figures = first["metrics"]
    assert list(figures) == [metric.name for metric in evaluation.metrics] == list(second["metrics"])
    assert 0 < figures["clip_score_miniature"] <= 1 and figures["structure_miniature"] > 0
    assert figures["psnr_unedited"] == second["metrics"]["psnr_unedited"]
    assert figures["psnr_reconstruction"] < figures["psnr_autoencoder"]
    assert (
        first["tflops_full"] == pytest.approx(plain.flops().full / 1e12)
        and second["tflops_full"] < first["tflops_full"]
    )
    in_memory = plain.edit(plain.invert(pairs[0].image(), pairs[0].source), pairs[0].target)
    assert torch.equal(in_memory, read_image(edit))
    report(tmp_path, [first, second], pairs)


def report(folder: Path, rows: list[Any], pairs: list[Any]) -> None:
    assert [(r["adaptor"], r["schedule"], r["steps"]) for r in readable(rows)] == [
        ("none", "full", 4),
        ("identity", "clock2", 4),
    ]
    assert "psnr_right" in table(readable(rows), COLUMNS) and "dino_distance" not in table(readable(rows), COLUMNS)
    mixed = {**rows[1], "inversion_schedule": "clock4"}
    assert readable([mixed])[0]["adaptor"] == "identity clock4 | identity"
    other = [{**row, "benchmark": "fake", "digest": row["digest"]} for row in rows[:1]]
    with saved_figures() as drawn:
        figures([*rows, *other], folder)
    axis = metric_info("psnr_right").axis
    curves = {name: set(panels[axis]) for name, panels in drawn.items()}
    both, plain = {"miniature_sd", "identity clock2", "front"}, {"miniature_sd"}  # the other has no clock
    assert curves == {"figure15-scenes.png": both, "figure15-fake.png": plain, "figure6.png": plain}
    side_by_side(rows, pairs, folder)
    sheet = folder / "images-scenes-4.png"
    assert all(shows(sheet, pair.image()) for pair in pairs)
    assert all(shows(sheet, read_image(image_folder(folder, row) / f"{pair.id}.png")) for row in rows for pair in pairs)
    shutil.rmtree(folder / "images")


def test_replay_and_phases_in_rows(teacher: Teacher, tmp_path: Path) -> None:
    """Each phase has its own clock; a saving is another point, and says so."""
    pairs = scene_pairs(teacher, 1)
    clocked, plain = editor(teacher, 2, 2, "clock2"), editor(teacher, 2, 2)
    only_inversion = replace(clocked, generation=plain.generation, replay=True)
    evaluation = evaluation_of(pairs, tmp_path, [PSNR("psnr_right")])
    assert only_inversion.label == "identity clock2 | no clock, 2 + 2 steps"
    digests = {evaluation.digest(e) for e in (clocked, plain, only_inversion, replace(only_inversion, replay=False))}
    assert len(digests) == 4
    evaluation.evaluate(only_inversion)
    (row,) = read_rows(evaluation.rows)
    assert (row["inversion_adaptor"], row["generation_adaptor"], row["replay"]) == ("identity", "none", True)
    assert row["metrics"].keys() == {"psnr_right"} and row["metrics_label"] == "none"
